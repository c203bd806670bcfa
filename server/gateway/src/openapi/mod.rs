//! The file of an API, from a document that describes it: OpenAPI 3.0 or 3.1, in JSON or YAML.
//!
//! A document is somebody else's word, and its file decides what agents may do. So nothing in it makes a route wider than the
//! document's own paths, methods and parameters; nothing in it gets out of the text that it is written as; nothing is fetched;
//! and what a file cannot say is left out and told.

mod document;
mod notes;
mod operation;
mod path;
mod security;
mod server;
mod toml;
mod yaml;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::document::{Document, MAX_LOOKS, text};
use self::notes::{Notes, shown};
use self::operation::Route;
use self::path::Path;
use self::security::Credential;
use self::server::Server;
use self::toml::{line, list, quoted};

/// The longest document, in bytes. The largest that are known have half of it.
pub const MAX_DOCUMENT_BYTES: usize = 32 << 20;
/// The most operations, and so routes.
const MAX_ROUTES: usize = 4_096;
/// The most headers that are passed on.
const MAX_HEADERS: usize = 64;
/// Methods, as a document and as HTTP has them. A gateway passes no TRACE.
const METHODS: [(&str, &str); 8] = [
    ("get", "GET"),
    ("head", "HEAD"),
    ("options", "OPTIONS"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
    ("trace", "TRACE"),
];

/// What a call's action is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Actions {
    /// `read` for GET, HEAD and OPTIONS, else `write`.
    #[default]
    Method,
    /// The operation's own name.
    Operation,
}

/// What whoever has a file written says of it.
#[derive(Clone, Default, Debug)]
pub struct RuleWishes {
    /// One tool for all routes. Without it they are named for the first tag, or for the first segment of the path.
    pub tool: Option<String>,
    /// What the names of tools begin with.
    pub prefix: Option<String>,
    /// What actions are.
    pub actions: Actions,
    /// The API's address, instead of the one in the document.
    pub server: Option<String>,
    /// The security scheme to use.
    pub scheme: Option<String>,
    /// The client of OAuth client credentials.
    pub client_id: Option<String>,
    /// Only operations with one of these tags; all, if there are none.
    pub tags: Vec<String>,
}

/// One operation, where it stands.
struct Found<'a> {
    path: &'a str,
    method: &'static str,
    item: &'a Value,
    operation: &'a Value,
}

/// Writes the file of an API.
///
/// # Errors
///
/// What is wrong with the document, or with what is wished, in one sentence.
pub fn rules(bytes: &[u8], wishes: &RuleWishes) -> Result<String, String> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("it is longer than {MAX_DOCUMENT_BYTES} bytes"));
    }
    of_document(&Document::read(bytes)?, wishes)
}

/// The same, of one that was read.
fn of_document(document: &Document, wishes: &RuleWishes) -> Result<String, String> {
    let written = file(document, wishes);
    match document.is_over() {
        true => Err(format!(
            "it says the same things again so often that there are more than {MAX_LOOKS} to look at; take some of its operations \
             with --tag"
        )),
        false => written,
    }
}

fn file(document: &Document, wishes: &RuleWishes) -> Result<String, String> {
    let mut notes = Notes::default();
    let server = match &wishes.server {
        Some(url) => Server::read(url).map_err(|why| format!("--server: {why}"))?,
        None => Server::of_document(document, &mut notes)?,
    };
    let found = operations(document, wishes, &mut notes)?;
    if found.is_empty() {
        return Err("it has no paths with operations, or none of the tags that were asked for".to_owned());
    }
    let all: Vec<_> = found.iter().map(|found| found.operation).collect();
    let (scheme, client_id) = (wishes.scheme.as_deref(), wishes.client_id.as_deref());
    let credential = Credential::choose(document, &all, scheme, client_id, &mut notes)?;
    let (mut routes, mut left_out) = (Vec::new(), None);
    for found in document.each(&found) {
        match route(document, &server, found, wishes, &credential) {
            Ok(mut route) => {
                // They are not kept beside those that are told.
                core::mem::take(&mut route.notes).iter().for_each(|note| notes.add(&found.note(note)));
                routes.push(route);
            }
            Err(why) => {
                let note = found.note(why);
                notes.add(&note);
                left_out.get_or_insert(note);
            }
        }
    }
    if document.member("webhooks").and_then(Value::as_object).is_some_and(|webhooks| !webhooks.is_empty()) {
        notes.add("webhooks: the API makes those calls, and nobody makes them here");
    }
    let routes = sorted(routes, &mut notes);
    if routes.is_empty() {
        return Err(format!("nothing in it can be a route: {}", left_out.unwrap_or_default()));
    }
    Ok(written(document, &server, &credential, &routes, notes))
}

/// All operations that are wished for. Once there are too many no more is looked for.
fn operations<'a>(
    document: &'a Document,
    wishes: &RuleWishes,
    notes: &mut Notes,
) -> Result<Vec<Found<'a>>, String> {
    let mut found = Vec::new();
    let paths = document.member("paths").and_then(Value::as_object);
    for (path, item) in document.each(paths.into_iter().flatten()) {
        if !path.starts_with('/') {
            // Extensions stand between paths.
            continue;
        }
        let item = match document.resolve(item) {
            Ok(item) => item,
            Err(why) => {
                notes.add(&format!("{}: {why}", shown(path, 120)));
                continue;
            }
        };
        let of_item = METHODS.iter().filter_map(|(name, method)| Some((*method, item.get(*name)?)));
        for (method, operation) in of_item {
            let mut tags = document.list(operation, "tags").filter_map(Value::as_str);
            let is_wished =
                wishes.tags.is_empty() || tags.any(|tag| wishes.tags.iter().any(|wished| wished == tag));
            match (is_wished, method) {
                (false, _) => {}
                (true, "TRACE") => notes.add(&format!("TRACE {}: no gateway passes it", shown(path, 120))),
                (true, _) => found.push(Found { path, method, item, operation }),
            }
        }
        if found.len() > MAX_ROUTES {
            return Err(format!("it has more than {MAX_ROUTES} operations; take some of them with --tag"));
        }
    }
    Ok(found)
}

impl Found<'_> {
    fn note(&self, why: &str) -> String {
        format!("{} {}: {why}", self.method, shown(self.path, 120))
    }
}

fn route(
    document: &Document,
    server: &Server,
    found: &Found<'_>,
    wishes: &RuleWishes,
    credential: &Credential,
) -> Result<Route, &'static str> {
    let own = match server.own(document, found.operation)? {
        Some(own) => Some(own),
        None => server.own(document, found.item)?,
    };
    let path = Path::read(&own.as_ref().unwrap_or(server).base, found.path)?;
    if !credential.lets(document, found.operation) {
        return Err("it takes another credential, or several");
    }
    Ok(Route::read(document, (found.item, found.operation), (path, found.method), wishes, credential))
}

/// Text comes before places, since the first route that fits is the one that counts; of two for the same requests one stays.
fn sorted(mut routes: Vec<Route>, notes: &mut Notes) -> Vec<Route> {
    routes.sort_by_cached_key(|route| route.path.order());
    let mut known = BTreeSet::new();
    routes.retain(|route| {
        let is_new = known.insert((route.path.order(), route.method));
        if !is_new {
            notes.add(&format!(
                "{} {}: another path is for the same requests",
                route.method,
                route.path.pattern()
            ));
        }
        is_new
    });
    routes
}

fn written(
    document: &Document,
    server: &Server,
    credential: &Credential,
    routes: &[Route],
    mut notes: Notes,
) -> String {
    let mut headers: Vec<_> =
        routes.iter().flat_map(|route| route.headers.iter().map(http::HeaderName::as_str)).collect();
    headers.sort_unstable();
    headers.dedup();
    for left_out in headers.iter().skip(MAX_HEADERS) {
        notes.add(&format!("the header {left_out}: there are more than {MAX_HEADERS}"));
    }
    headers.truncate(MAX_HEADERS);
    let none = Value::Object(Map::new());
    let info = document.member("info").unwrap_or(&none);
    let (title, version) =
        (text(info, "title").unwrap_or("an API"), text(info, "version").unwrap_or_default());
    let mut file = format!(
        "# {} {}: written by `obol gateway rules` from its OpenAPI document; the operator's to change.\n",
        shown(title, 120),
        shown(version, 40)
    );
    notes.write(&mut file);
    line(&mut file, "upstream", &quoted(&server.origin));
    if !headers.is_empty() {
        let is_wider =
            |header: &&str| !routes.iter().all(|route| route.headers.iter().any(|named| named == header));
        let wider: Vec<_> = headers.iter().copied().filter(|header| is_wider(header)).collect();
        if !wider.is_empty() {
            file.push_str(&format!(
                "# On every route, also where the document does not name it: {}\n",
                wider.join(", ")
            ));
        }
        line(&mut file, "headers", &list(headers));
    }
    credential.write(&mut file);
    routes.iter().for_each(|route| route.write(&mut file));
    file
}

#[cfg(test)]
mod tests;
