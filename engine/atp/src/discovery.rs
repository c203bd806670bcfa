//! The discovery document at `/.well-known/agentdom.json`, written by providers and read by agents.
//!
//! Whoever serves a document says where an agent sends its signed requests. So nothing comes out of it that is not an
//! HTTPS URL at the host that was asked or below it, or one that the agent's owner listed.

use core::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::endpoint::{AtpEndpoint, Host};
use crate::scope::ScopeSet;

/// The longest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 10;
/// Where it is.
pub const WELL_KNOWN: &str = "/.well-known/agentdom.json";
/// The placeholder in routes of the master dialect.
const ID: &str = "{id}";

/// What a provider tells about itself.
#[derive(Clone, Debug)]
pub struct Published<'a> {
    /// The token endpoint.
    pub endpoint: &'a AtpEndpoint,
    /// The provider's name.
    pub name: &'a str,
    /// Scopes on offer.
    pub scopes: &'a ScopeSet,
    /// The longest life of a token in the master dialect, in seconds; `None` if the dialect is switched off.
    pub master_max_ttl: Option<u64>,
    /// What the API can do, in AgentDOM's form.
    pub capabilities: &'a Value,
}

impl Published<'_> {
    /// The document.
    pub fn document(&self) -> Value {
        let e = self.endpoint;
        let mut auth = json!({
            "method": "agent_token",
            "agent_token_endpoint": e.as_str(),
            "scopes": self.scopes,
            "agent_token_verify_endpoint": format!("{e}/verify"),
            "agent_token_revoke_endpoint": format!("{e}/revoke"),
            "atp_version": "1",
            "canonicalization": "jcs",
            "signature_alg": "HMAC-SHA256",
            "timestamp_unit": "ms",
        });
        if let (Some(max_ttl), Some(auth)) = (self.master_max_ttl, auth.as_object_mut()) {
            auth.insert(
                "agent_tokens".to_owned(),
                json!({
                    "issue": format!("POST {e}/issue"),
                    "rotate": format!("POST {e}/{ID}/rotate"),
                    "revoke": format!("DELETE {e}/{ID}"),
                    "list": format!("GET {e}"),
                    "max_ttl_seconds": max_ttl,
                    "scopes": self.scopes,
                }),
            );
        }
        json!({
            "version": "1.0",
            "agentdom": "0.1",
            "host": e.authority(),
            "name": self.name,
            "auth": auth,
            "capabilities": self.capabilities,
        })
    }
}

/// What an agent takes from a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovered {
    /// The signed dialect, if it is offered.
    pub signed: Option<SignedEndpoints>,
    /// The master dialect, if it is offered.
    pub master: Option<MasterRoutes>,
}

/// The endpoints of the signed dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedEndpoints {
    /// Where tokens are asked for; also the `aud` of what is signed.
    pub token: AtpEndpoint,
    /// Where tokens are checked.
    pub verify: AtpEndpoint,
    /// Where tokens are revoked.
    pub revoke: AtpEndpoint,
}

/// The routes of the master dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MasterRoutes {
    /// Where tokens are issued.
    pub issue: AtpEndpoint,
    /// Where one is rotated.
    pub rotate: Option<RouteOfId>,
    /// Where one is revoked.
    pub revoke: Option<RouteOfId>,
}

/// A route with a token's id in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteOfId {
    before: Box<str>,
    after: Box<str>,
}

impl RouteOfId {
    /// The route of one token. `None` for an id that is not plain: it must not reach another path.
    pub fn of(&self, id: &str) -> Option<AtpEndpoint> {
        let plain = (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if plain { format!("{}{id}{}", self.before, self.after).parse().ok() } else { None }
    }
}

/// Why a document gives nothing to work with. Never repeats what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// More than [`MAX_DOCUMENT_BYTES`].
    TooLong,
    /// Not JSON, or a member of the wrong type.
    Malformed,
    /// No token endpoint in either dialect.
    NotOffered,
    /// The signed dialect in a form that is not known; the member is named.
    Unsupported(&'static str),
    /// An endpoint that an agent does not send anything to; the member is named.
    Endpoint(&'static str),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the discovery document has more than {MAX_DOCUMENT_BYTES} bytes"),
            Self::Malformed => f.write_str("the discovery document is not JSON of the right form"),
            Self::NotOffered => f.write_str("the host offers no agent tokens"),
            Self::Unsupported(member) => {
                write!(f, "the discovery document asks for something unknown in auth.{member}")
            }
            Self::Endpoint(member) => write!(
                f,
                "auth.{member} of the discovery document is not an HTTPS endpoint at that host; if it is right, list it in \
                 atp.endpoints"
            ),
        }
    }
}

impl core::error::Error for DiscoveryError {}

#[derive(Deserialize)]
struct Document {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    agent_token_endpoint: Option<String>,
    agent_token_verify_endpoint: Option<String>,
    agent_token_revoke_endpoint: Option<String>,
    atp_version: Option<String>,
    canonicalization: Option<String>,
    signature_alg: Option<String>,
    timestamp_unit: Option<String>,
    agent_tokens: Option<Routes>,
}

#[derive(Deserialize)]
struct Routes {
    issue: Option<String>,
    rotate: Option<String>,
    revoke: Option<String>,
}

impl Discovered {
    /// Reads the document of `host`. Endpoints elsewhere are taken only if `listed` has them.
    ///
    /// # Errors
    /// [`DiscoveryError`] says why there is nothing to work with.
    pub fn read(json: &[u8], host: &Host, listed: &[AtpEndpoint]) -> Result<Self, DiscoveryError> {
        if json.len() > MAX_DOCUMENT_BYTES {
            return Err(DiscoveryError::TooLong);
        }
        let document: Document = obol_secret::json::parse(json).map_err(|_| DiscoveryError::Malformed)?;
        let auth = document.auth.ok_or(DiscoveryError::NotOffered)?;
        let rules = Rules { host, listed };
        let signed =
            auth.agent_token_endpoint.as_deref().map(|token| signed(&auth, token, &rules)).transpose()?;
        let master = auth.agent_tokens.as_ref().map(|routes| master(routes, &rules)).transpose()?.flatten();
        if signed.is_none() && master.is_none() {
            return Err(DiscoveryError::NotOffered);
        }
        Ok(Self { signed, master })
    }
}

struct Rules<'a> {
    host: &'a Host,
    listed: &'a [AtpEndpoint],
}

impl Rules<'_> {
    fn endpoint(&self, member: &'static str, text: &str) -> Result<AtpEndpoint, DiscoveryError> {
        let endpoint: AtpEndpoint = text.parse().map_err(|_| DiscoveryError::Endpoint(member))?;
        if self.host.covers(endpoint.host()) || self.listed.contains(&endpoint) {
            return Ok(endpoint);
        }
        Err(DiscoveryError::Endpoint(member))
    }

    /// A route with `{id}` in it, as one whole segment of its path.
    fn route_of_id(
        &self,
        member: &'static str,
        text: &str,
        method: &str,
    ) -> Result<RouteOfId, DiscoveryError> {
        let url = route(text, method).ok_or(DiscoveryError::Endpoint(member))?;
        let (before, after) = url.split_once(ID).ok_or(DiscoveryError::Endpoint(member))?;
        let whole = before.ends_with('/') && (after.is_empty() || after.starts_with('/'));
        self.endpoint(member, &format!("{before}id{after}"))?;
        if whole {
            Ok(RouteOfId { before: before.into(), after: after.into() })
        } else {
            Err(DiscoveryError::Endpoint(member))
        }
    }
}

fn signed(auth: &Auth, token: &str, rules: &Rules<'_>) -> Result<SignedEndpoints, DiscoveryError> {
    for (member, value, known) in [
        ("atp_version", &auth.atp_version, "1"),
        ("canonicalization", &auth.canonicalization, "jcs"),
        ("signature_alg", &auth.signature_alg, "HMAC-SHA256"),
        ("timestamp_unit", &auth.timestamp_unit, "ms"),
    ] {
        if value.as_deref().is_some_and(|value| value != known) {
            return Err(DiscoveryError::Unsupported(member));
        }
    }
    let token = rules.endpoint("agent_token_endpoint", token)?;
    let other = |member, named: &Option<String>, suffix| match named {
        Some(text) => rules.endpoint(member, text),
        None => token.join(suffix).map_err(|_| DiscoveryError::Endpoint(member)),
    };
    let verify = other("agent_token_verify_endpoint", &auth.agent_token_verify_endpoint, "/verify")?;
    let revoke = other("agent_token_revoke_endpoint", &auth.agent_token_revoke_endpoint, "/revoke")?;
    Ok(SignedEndpoints { token, verify, revoke })
}

fn master(routes: &Routes, rules: &Rules<'_>) -> Result<Option<MasterRoutes>, DiscoveryError> {
    let Some(issue) = routes.issue.as_deref() else { return Ok(None) };
    let issue = route(issue, "POST").ok_or(DiscoveryError::Endpoint("agent_tokens.issue"))?;
    let of_id = |member, named: &Option<String>, method| {
        named.as_deref().map(|text| rules.route_of_id(member, text, method)).transpose()
    };
    Ok(Some(MasterRoutes {
        issue: rules.endpoint("agent_tokens.issue", issue)?,
        rotate: of_id("agent_tokens.rotate", &routes.rotate, "POST")?,
        revoke: of_id("agent_tokens.revoke", &routes.revoke, "DELETE")?,
    }))
}

/// The URL of a route of the form `METHOD URL`.
fn route<'a>(text: &'a str, method: &str) -> Option<&'a str> {
    text.strip_prefix(method)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        "api.example.com".parse().unwrap()
    }

    fn read(document: &Value) -> Result<Discovered, DiscoveryError> {
        Discovered::read(
            document.to_string().as_bytes(),
            &host(),
            &["https://auth.other.org/t".parse().unwrap()],
        )
    }

    fn with(endpoint: &str) -> Result<Discovered, DiscoveryError> {
        read(&json!({"auth": {"agent_token_endpoint": endpoint}}))
    }

    #[test]
    fn what_is_written_is_read() {
        let endpoint: AtpEndpoint = "https://api.example.com/v1/agent-tokens".parse().unwrap();
        let scopes = ScopeSet::from_texts(["read"]).unwrap();
        let published = Published {
            endpoint: &endpoint,
            name: "Example",
            scopes: &scopes,
            master_max_ttl: Some(86_400),
            capabilities: &json!([]),
        };
        let found = read(&published.document()).unwrap();
        let signed = found.signed.unwrap();
        assert_eq!(
            (signed.token.as_str(), signed.verify.path()),
            (endpoint.as_str(), "/v1/agent-tokens/verify")
        );
        let master = found.master.unwrap();
        assert_eq!(master.revoke.unwrap().of("tok_1").unwrap().path(), "/v1/agent-tokens/tok_1");
        assert_eq!(
            master.rotate.clone().unwrap().of("tok_1").unwrap().path(),
            "/v1/agent-tokens/tok_1/rotate"
        );
        for id in ["..", "a/b", "a%2fb", "", "a?b"] {
            assert_eq!(master.rotate.clone().unwrap().of(id), None, "{id}");
        }
        let alone = Published { master_max_ttl: None, ..published };
        assert_eq!(read(&alone.document()).unwrap().master, None);
    }

    #[test]
    fn no_endpoint_outside_the_rules_comes_out() {
        assert!(with("https://api.example.com/t").is_ok());
        assert!(with("https://auth.api.example.com/t").is_ok());
        assert!(with("https://auth.other.org/t").is_ok(), "listed");
        for bad in [
            "http://api.example.com/t",
            "https://other.org/t",
            "https://auth.other.org/t2",
            "https://api.example.com.evil.org/t",
            "https://api.example.com:22/t",
            "https://api.example.com@evil.org/t",
            "https://user@api.example.com/t",
            "https://169.254.169.254/t",
            "https://[::ffff:127.0.0.1]/t",
            "https://127.1/t",
            "https://api.example.com/t?x=1",
            "https://api.example.com/t#x",
            "//api.example.com/t",
            "/t",
            "",
        ] {
            assert_eq!(with(bad), Err(DiscoveryError::Endpoint("agent_token_endpoint")), "{bad:?}");
        }
        let elsewhere = json!({"auth": {"agent_token_endpoint": "https://api.example.com/t",
            "agent_token_verify_endpoint": "https://other.org/v"}});
        assert_eq!(read(&elsewhere), Err(DiscoveryError::Endpoint("agent_token_verify_endpoint")));
        let master = json!({"auth": {"agent_tokens": {"issue": "POST https://api.example.com/i",
            "revoke": "DELETE https://other.org/{id}"}}});
        assert_eq!(read(&master), Err(DiscoveryError::Endpoint("agent_tokens.revoke")));
        let in_host = json!({"auth": {"agent_tokens": {"issue": "POST https://api.example.com/i",
            "revoke": "DELETE https://{id}/x"}}});
        assert_eq!(read(&in_host), Err(DiscoveryError::Endpoint("agent_tokens.revoke")));
    }

    #[test]
    fn an_unknown_form_is_refused_and_unknown_members_are_not() {
        let known = json!({"x": 1, "auth": {"y": [], "agent_token_endpoint": "https://api.example.com/t"}});
        assert!(read(&known).is_ok());
        let other =
            json!({"auth": {"agent_token_endpoint": "https://api.example.com/t", "signature_alg": "none"}});
        assert_eq!(read(&other), Err(DiscoveryError::Unsupported("signature_alg")));
        assert_eq!(read(&json!({})), Err(DiscoveryError::NotOffered));
        assert_eq!(read(&json!({"auth": {"method": "api_key"}})), Err(DiscoveryError::NotOffered));
        assert_eq!(read(&json!({"auth": []})), Err(DiscoveryError::Malformed));
    }
}
