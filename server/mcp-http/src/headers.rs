//! Which headers pass.

use http::header::{
    ACCEPT_ENCODING, ALT_SVC, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, header};
use obol_mcp::routing::{METHOD_HEADER, NAME_HEADER, Outline, VERSION_HEADER};

/// The session, of revisions that have one.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where a stream is to be taken up again.
pub(crate) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// The longest name of a session, in bytes.
pub(crate) const MAX_SESSION_BYTES: usize = 1_024;

/// What is of one connection (RFC 9110, section 7.6.1), and what frames a message.
const OF_A_CONNECTION: [HeaderName; 14] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    ACCEPT_ENCODING,
    ALT_SVC,
];
/// What some servers take for another method than the one that was looked at.
const OTHER_METHOD: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What of a request or an answer goes on.
pub(crate) fn passed(headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if may_pass(name) && !named.iter().any(|other| other.eq_ignore_ascii_case(name.as_str())) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// Some servers read `_` in a name as `-`: what was looked at would not be what they see.
fn may_pass(name: &HeaderName) -> bool {
    !OF_A_CONNECTION.contains(name) && !OTHER_METHOD.contains(&name.as_str()) && !name.as_str().contains('_')
}

/// What a message's `Connection` says is of the connection too. What a message is looked up by cannot be.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned());
    names.filter(|name| !name.to_ascii_lowercase().starts_with("mcp-")).collect()
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
        return Err("a header stands there twice that may stand there once");
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
