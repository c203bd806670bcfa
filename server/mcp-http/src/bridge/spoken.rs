//! What was agreed on with the server, and what follows for the next request.

use std::borrow::Cow;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, HeaderName};
use obol_mcp::routing::{METHOD_HEADER, NAME_HEADER, Outline, VERSION_HEADER, header_value};

use crate::headers::{self, LAST_EVENT, MAX_SESSION_BYTES, SESSION};

const NAME: &str = concat!("obol-mcp-wrap/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// What went wrong on the way.
const TRANSPORT_ERROR: i32 = -32_000;

/// The session and the revision.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    session: Option<HeaderValue>,
    version: Option<String>,
}

impl Spoken {
    /// Forgets what was agreed on: it is agreed on anew.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// Whether there is a session.
    pub(super) const fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Hears of the session in the head of an answer to `initialize`.
    pub(super) fn hear_session(&mut self, headers: &HeaderMap) {
        self.session = headers.get(SESSION).filter(|name| name.len() <= MAX_SESSION_BYTES).cloned();
        if let Some(session) = &mut self.session {
            session.set_sensitive(true);
        }
    }

    /// Hears of the revision in such an answer.
    pub(super) fn hear_version(&mut self, answer: &Outline) {
        if answer.agreed.is_some() {
            self.version.clone_from(&answer.agreed);
        }
    }

    /// The headers of a message.
    pub(super) fn headers_of(&mut self, outline: &Outline) -> HeaderMap {
        if outline.version.is_some() {
            self.version.clone_from(&outline.version);
        }
        let mut headers = self.headers();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        if outline.is_stateless() {
            headers.remove(SESSION);
            set(&mut headers, METHOD_HEADER, outline.method.as_deref());
            set(&mut headers, NAME_HEADER, outline.name.as_deref());
        }
        headers
    }

    /// The headers of a stream, which is taken up behind an event.
    pub(super) fn headers_of_stream(&self, after: Option<&str>) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(ACCEPT, HeaderValue::from_static(EVENTS));
        if let Some(after) = after.and_then(|after| HeaderValue::from_bytes(after.as_bytes()).ok()) {
            headers.insert(LAST_EVENT, after);
        }
        headers
    }

    /// The headers of a session's end; `None` if there is no session.
    pub(super) fn headers_of_end(&mut self) -> Option<HeaderMap> {
        let headers = self.headers();
        self.session.take().map(|_| headers)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(NAME));
        headers::ask_unpacked(&mut headers);
        if let Some(session) = &self.session {
            headers.insert(SESSION, session.clone());
        }
        let version = self.version.as_ref().and_then(|version| HeaderValue::from_str(version).ok());
        if let Some(version) = version {
            headers.insert(HeaderName::from_static(VERSION_HEADER), version);
        }
        headers
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: Option<&str>) {
    let value = value.and_then(|value| HeaderValue::from_str(&header_value(value)).ok());
    if let Some(value) = value {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// An answer to a request that the server did not answer.
pub(super) fn failure(id: &str, why: &str) -> String {
    let message = serde_json::Value::from(why);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{TRANSPORT_ERROR},\"message\":{message}}}}}"
    )
}

/// A message in one line. Inside of texts JSON has no such signs.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], " "))
    } else {
        Cow::Borrowed(text)
    }
}
