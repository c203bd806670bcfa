//! What the credential is put into, by a document's security schemes: the one that lets most of its operations be called.

use http::HeaderName;
use serde_json::Value;

use super::document::{Document, text};
use super::notes::{Notes, shown};
use super::toml::{line, quoted};
use crate::api::read_url;
use crate::headers;

/// The longest `scope`, in bytes.
const MAX_SCOPE_BYTES: usize = 4_096;

/// How one scheme is put on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Put {
    Bearer,
    Basic,
    Header(HeaderName),
    Query(String),
    OauthClient { token_url: String, client_id: String, scopes: Vec<String> },
}

/// The credential of the file.
#[derive(Debug)]
pub(super) struct Credential {
    /// The scheme of the document, if it has one.
    scheme: Option<String>,
    pub(super) put: Put,
}

impl Credential {
    /// Chooses among the document's schemes, or takes the one that is named.
    pub(super) fn choose(
        document: &Document,
        operations: &[&Value],
        named: Option<&str>,
        client_id: Option<&str>,
        notes: &mut Notes,
    ) -> Result<Self, String> {
        let schemes = document
            .member("components")
            .and_then(|components| document.object(components, "securitySchemes"));
        let mut best: Option<(usize, Self)> = None;
        let mut unfit = Vec::new();
        for (name, scheme) in document.each(schemes.into_iter().flatten()) {
            if named.is_some_and(|named| named != name) {
                continue;
            }
            let put = document.resolve(scheme).and_then(|scheme| put(scheme, client_id));
            let put = match put {
                Ok(put) => put,
                Err(why) => {
                    unfit.push(format!("the security scheme {}: {why}", shown(name, 80)));
                    continue;
                }
            };
            let one = Self { scheme: Some(name.clone()), put };
            let count = document.each(operations).filter(|operation| one.lets(document, operation)).count();
            if best.as_ref().is_none_or(|(most, _)| count > *most) {
                best = Some((count, one));
            }
        }
        unfit.iter().for_each(|why| notes.add(why));
        if let Some((_, mut one)) = best {
            one.tell(document, operations, notes);
            return Ok(one);
        }
        let is_needed = operations.iter().any(|operation| !Self::none().lets(document, operation));
        match (named, is_needed || !unfit.is_empty()) {
            (Some(named), _) => {
                Err(format!("there is no security scheme {named:?} that the gateway can put on"))
            }
            (None, true) => Err(format!(
                "none of its security schemes can be put on by the gateway: {}",
                unfit.first().map_or("there are none", String::as_str)
            )),
            (None, false) => {
                notes.add("a credential: the document names none. `put` below is a guess, to be changed");
                Ok(Self::none())
            }
        }
    }

    fn none() -> Self {
        Self { scheme: None, put: Put::Bearer }
    }

    /// Whether an operation asks for nothing else than this.
    pub(super) fn lets(&self, document: &Document, operation: &Value) -> bool {
        let own = operation.get("security").or_else(|| document.member("security"));
        let Some(alternatives) = own.and_then(Value::as_array).filter(|list| !list.is_empty()) else {
            return true;
        };
        document.each(alternatives).filter_map(Value::as_object).any(|schemes| {
            schemes.len() <= 1 && schemes.keys().all(|name| Some(name) == self.scheme.as_ref())
        })
    }

    /// Says what is not known of it, and gathers the scopes that operations ask for.
    fn tell(&mut self, document: &Document, operations: &[&Value], notes: &mut Notes) {
        let name = self.scheme.as_deref().unwrap_or_default();
        let scheme = document
            .member("components")
            .and_then(|components| document.object(components, "securitySchemes")?.get(name))
            .and_then(|scheme| document.resolve(scheme).ok());
        let kind = scheme.and_then(|scheme| text(scheme, "type")).unwrap_or_default();
        match &mut self.put {
            Put::OauthClient { scopes, .. } => {
                let mut all: Vec<_> = scopes_of(document, operations, name).collect();
                all.sort_unstable();
                all.dedup();
                let is_sound = |scope: &&str| {
                    !scope.is_empty()
                        && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
                };
                let fit: Vec<_> = all.iter().copied().filter(is_sound).map(str::to_owned).collect();
                let length: usize = fit.iter().map(|scope| scope.len() + 1).sum();
                match fit.len() == all.len() && length <= MAX_SCOPE_BYTES {
                    true => *scopes = fit,
                    false => notes.add(
                        "the scopes of its tokens: there are too many, or they cannot be sent; say `scope`",
                    ),
                }
            }
            Put::Bearer if kind == "oauth2" => {
                notes.add("tokens got by OAuth: the credential is an access token. With --client-id, client credentials get them");
            }
            Put::Bearer if kind == "openIdConnect" => {
                notes.add("tokens got by OpenID Connect: the credential is an access token");
            }
            Put::Header(header) if *header == http::header::AUTHORIZATION => {
                notes.add(
                    "what may stand before the key in Authorization: say `prefix` where the API wants one",
                );
            }
            _ => {}
        }
    }

    /// Whether a parameter is what the credential is put into.
    pub(super) fn is_parameter(&self, name: &str) -> bool {
        matches!(&self.put, Put::Query(own) if own.eq_ignore_ascii_case(name))
    }

    /// Whether a header is.
    pub(super) fn is_header(&self, name: &HeaderName) -> bool {
        matches!(&self.put, Put::Header(own) if own == name)
    }

    /// As the file has it.
    pub(super) fn write(&self, text: &mut String) {
        text.push_str("\n[credential]\n");
        let kind = match &self.put {
            Put::Bearer => "bearer",
            Put::Basic => "basic",
            Put::Header(_) => "header",
            Put::Query(_) => "query",
            Put::OauthClient { .. } => "oauth-client",
        };
        line(text, "put", &quoted(kind));
        match &self.put {
            Put::Bearer | Put::Basic => {}
            Put::Header(name) => line(text, "name", &quoted(name.as_str())),
            Put::Query(name) => line(text, "name", &quoted(name)),
            Put::OauthClient { token_url, client_id, scopes } => {
                line(text, "token_url", &quoted(token_url));
                line(text, "client_id", &quoted(client_id));
                if !scopes.is_empty() {
                    line(text, "scope", &quoted(&scopes.join(" ")));
                }
            }
        }
    }
}

/// How a scheme is put on, or why it cannot be.
fn put(scheme: &Value, client_id: Option<&str>) -> Result<Put, &'static str> {
    let name = || text(scheme, "name").filter(|name| !name.is_empty()).ok_or("it has no name");
    match (text(scheme, "type").unwrap_or_default(), text(scheme, "in").unwrap_or_default()) {
        ("http", _) => {
            let kind = text(scheme, "scheme").unwrap_or_default();
            match (kind.eq_ignore_ascii_case("bearer"), kind.eq_ignore_ascii_case("basic")) {
                (true, _) => Ok(Put::Bearer),
                (_, true) => Ok(Put::Basic),
                _ => Err("of HTTP's, the gateway knows bearer and basic"),
            }
        }
        ("apiKey", "header") => {
            let header: HeaderName = name()?.parse().map_err(|_| "its name is not one of a header")?;
            headers::check_own(&header).map_err(|_| "its name is that of a header of the connection")?;
            Ok(Put::Header(header))
        }
        ("apiKey", "query") => {
            let name = name()?;
            match name.chars().any(char::is_control) {
                true => Err("its name has a control character"),
                false => Ok(Put::Query(name.to_owned())),
            }
        }
        ("apiKey", _) => Err("the gateway puts no key into a cookie"),
        ("oauth2", _) => oauth(scheme, client_id),
        ("openIdConnect", _) => Ok(Put::Bearer),
        ("mutualTLS", _) => Err("the gateway has no certificate of its own for APIs"),
        _ => Err("its type is not one of OpenAPI"),
    }
}

fn oauth(scheme: &Value, client_id: Option<&str>) -> Result<Put, &'static str> {
    let flow = scheme.get("flows").and_then(|flows| flows.get("clientCredentials"));
    let (Some(flow), Some(client_id)) = (flow, client_id) else { return Ok(Put::Bearer) };
    let token_url = text(flow, "tokenUrl").filter(|url| read_url(url, false).is_some());
    let token_url = token_url.ok_or("its tokenUrl is no address with https://")?;
    Ok(Put::OauthClient {
        token_url: token_url.to_owned(),
        client_id: client_id.to_owned(),
        scopes: Vec::new(),
    })
}

fn scopes_of<'a>(
    document: &'a Document,
    operations: &'a [&Value],
    name: &'a str,
) -> impl Iterator<Item = &'a str> {
    let of_all = document.member("security").into_iter();
    let own = operations.iter().filter_map(|operation| operation.get("security"));
    let alternatives = of_all.chain(own).filter_map(Value::as_array).flatten();
    let schemes = document.each(alternatives).filter_map(move |schemes| schemes.get(name)?.as_array());
    document.each(schemes.flatten()).filter_map(Value::as_str).take_while(|_| document.keeps_one())
}
