//! Which headers pass.

use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, header};
use obol_mcp::routing::{METHOD_HEADER, NAME_HEADER, Outline, VERSION_HEADER};
use obol_probe::hop::{is_of_a_connection, named_by_connection};

/// The session, of revisions that have one.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where a stream is to be taken up again.
pub(crate) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// The longest name of a session, in bytes.
pub(crate) const MAX_SESSION_BYTES: usize = 1_024;

/// What some servers take for another method than the one that was looked at.
const OTHER_METHOD: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What of a request or an answer goes on. What a message is looked up by cannot be of the connection.
pub(crate) fn passed(headers: &HeaderMap) -> HeaderMap {
    let mut named = named_by_connection(headers);
    named.retain(|name| !name.as_str().starts_with("mcp-"));
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| may_pass(name) && !named.contains(name)) {
        passed.append(name.clone(), value.clone());
    }
    passed
}

/// Some servers read `_` in a name as `-`: what was looked at would not be what they see. How a body is packed is asked anew.
fn may_pass(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(is_of_a_connection(name)
        || *name == ACCEPT_ENCODING
        || OTHER_METHOD.contains(&text)
        || text.contains('_'))
}

/// The value of a header that stands there once, as text.
///
/// # Errors
///
/// It stands there twice, or is no text: two readers could read two things.
pub(crate) fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err("a header that may occur only once is repeated");
    }
    first.map(|value| value.to_str().map_err(|_| "a header is no text")).transpose()
}

/// Whether headers say what the message says.
///
/// # Errors
///
/// Which one does not, in words.
pub(crate) fn check(headers: &HeaderMap, outline: &Outline) -> Result<(), &'static str> {
    let version = once(headers, VERSION_HEADER)?;
    let method = once(headers, METHOD_HEADER)?;
    outline.check(version, method, once(headers, NAME_HEADER)?)
}

/// The kind of content, without what is said about it.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a body is as it is, and not packed.
pub(crate) fn is_unpacked(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    encodings.iter().all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Asks for an answer that can be read.
pub(crate) fn ask_unpacked(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_a_connection_or_could_be_read_otherwise_does_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "application/json"),
            ("authorization", "Bearer a"),
            ("mcp-session-id", "s"),
            ("mcp_session_id", "t"),
            ("x-own", "1"),
            ("x-other", "2"),
            ("connection", "close, X-Other, mcp-session-id"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("host", "a"),
            ("x-http-method-override", "DELETE"),
        ] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        let passed = passed(&headers);
        let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "authorization", "mcp-session-id", "x-own"]);
        assert_eq!(passed.get("mcp-session-id").unwrap(), "s");
    }

    #[test]
    fn a_header_that_counts_stands_there_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(once(&headers, NAME_HEADER), Ok(None));
        headers.append(NAME_HEADER, HeaderValue::from_static("add"));
        assert_eq!(once(&headers, NAME_HEADER), Ok(Some("add")));
        headers.append(NAME_HEADER, HeaderValue::from_static("add"));
        assert!(once(&headers, NAME_HEADER).is_err());
    }
}
