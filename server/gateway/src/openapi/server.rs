//! Where the API is, by a document's `servers`: one origin, encrypted or on this machine, and what its paths begin with.

use http::Uri;
use serde_json::Value;

use super::document::{Document, text};
use super::notes::{Notes, shown};
use super::path;
use crate::api::read_url;

/// The longest address, in bytes.
const MAX_URL_BYTES: usize = 2_048;
/// The most variables in one.
const MAX_VARIABLES: usize = 32;

/// An address that can be one of an API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Server {
    pub(super) origin: String,
    /// What paths begin with.
    pub(super) base: Vec<String>,
}

impl Server {
    /// Reads an address.
    pub(super) fn read(url: &str) -> Result<Self, &'static str> {
        let why = "it is no address with https:// (http:// is for this machine)";
        if url.len() > MAX_URL_BYTES || url.contains('?') {
            return Err(why);
        }
        let uri: Uri = read_url(url, false).ok_or(why)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(why) };
        Ok(Self { origin: format!("{scheme}://{authority}"), base: path::base(uri.path())? })
    }

    /// The one that a document means: the first that can be one.
    pub(super) fn of_document(document: &Document, notes: &mut Notes) -> Result<Self, String> {
        let servers =
            document.member("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut chosen = None;
        for server in servers {
            let (url, has_variables) = address(server);
            match Self::read(&url) {
                Ok(server) if chosen.is_none() => {
                    if has_variables {
                        notes.add(&format!(
                            "other servers than {url}, which is what its variables are by default"
                        ));
                    }
                    chosen = Some(server);
                }
                Ok(_) => {
                    notes.add(&format!("the server {url}: one file has one API; --server names another"));
                }
                Err(why) => notes.add(&format!("the server {url}: {why}")),
            }
        }
        chosen.ok_or_else(|| {
            let named = servers.first().map(|server| shown(&address(server).0, 80)).unwrap_or_default();
            format!("`servers` names no address with https://, or on this machine ({named:?}); --server says where the API is")
        })
    }

    /// The one that a path or an operation has of its own, if any, where it is at the same origin.
    pub(super) fn own(&self, document: &Document, of: &Value) -> Result<Option<Self>, &'static str> {
        let mut servers = document.list(of, "servers").peekable();
        if servers.peek().is_none() {
            return Ok(None);
        }
        let mut same = servers.filter_map(|server| Self::read(&address(server).0).ok());
        same.find(|server| server.origin == self.origin).map(Some).ok_or("it is at another server")
    }
}

/// An address with what its variables are by default, and whether it has any.
fn address(server: &Value) -> (String, bool) {
    let url = text(server, "url").unwrap_or_default();
    if url.len() > MAX_URL_BYTES {
        // None is so long, and it is only shown.
        return (shown(url, MAX_URL_BYTES), false);
    }
    let mut url = url.to_owned();
    let variables = server.get("variables").and_then(Value::as_object);
    let mut has_variables = false;
    let variables = variables.into_iter().flatten().take(MAX_VARIABLES);
    for (name, variable) in variables.filter(|(name, _)| name.len() <= MAX_URL_BYTES) {
        let place = format!("{{{name}}}");
        if url.contains(&place) && url.len() <= MAX_URL_BYTES {
            let default = text(variable, "default").filter(|text| text.len() <= MAX_URL_BYTES);
            url = url.replacen(&place, default.unwrap_or_default(), 1);
            has_variables = true;
        }
    }
    (url, has_variables)
}
