//! Which headers pass, and which do not: few go in, and what belongs to a connection or to a login never does.
//!
//! What goes in is a list of what may, since what must not has no end: every API has a header of its own for credentials, for
//! another method, for the caller's address.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use obol_probe::hop::{is_credential, is_of_a_connection, strip_answer};

/// What a caller may tell any API. `range` is not among it: in the pieces that somebody asks for the credential is not found.
const PASSED: [&str; 20] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "last-event-id",
    "pragma",
    "prefer",
    "traceparent",
    "tracestate",
    "user-agent",
    "want-digest",
    "x-request-id",
];
/// What else opens a WebSocket.
const PASSED_TO_WEBSOCKET: [&str; 5] = [
    "origin",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
];
/// What no file may let through beside logins: the caller's address, and other methods and places than those that were compared.
const NEVER_PASSED: [&str; 5] = ["forwarded", "via", "x-original-method", "x-original-url", "x-real-ip"];
const NEVER_BEGINS_WITH: [&str; 6] =
    ["proxy-", "x-forwarded-", "x-http-method", "x-method", "x-obol-", "x-rewrite-"];

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

fn is_one_of(name: &HeaderName, list: &[&str]) -> bool {
    list.contains(&name.as_str())
}

/// Whether a header goes in without being named.
pub(crate) fn is_usual(name: &HeaderName) -> bool {
    is_one_of(name, &PASSED)
}

/// Whether a file may let a header through.
pub(crate) fn check_passed(name: &HeaderName) -> Result<(), String> {
    let text = name.as_str();
    let begins = NEVER_BEGINS_WITH.iter().any(|front| text.starts_with(front));
    // Some servers read an underscore as a hyphen.
    let never = is_of_a_connection(name) || is_credential(name) || is_one_of(name, &NEVER_PASSED);
    if begins || never || text.contains('_') {
        return Err(format!("headers: {name} is never passed on"));
    }
    Ok(())
}

/// Whether a credential may be put into a header.
pub(crate) fn check_own(name: &HeaderName) -> Result<(), String> {
    match is_of_a_connection(name) {
        true => Err(format!("credential: {name} belongs to the connection")),
        false => Ok(()),
    }
}

/// What goes to the API of a request's headers. An answer that is compressed could not be looked through, so none is asked for.
pub(crate) fn inward(sent: &HeaderMap, more: &[HeaderName], is_websocket: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        let opens = is_websocket && is_one_of(name, &PASSED_TO_WEBSOCKET);
        if opens || is_one_of(name, &PASSED) || more.contains(name) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    if is_websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    headers
}

/// Whether an answer's end can be read in one way.
pub(crate) fn is_framed(headers: &HeaderMap) -> bool {
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => true,
        ([length], []) => length.as_bytes().iter().all(u8::is_ascii_digit),
        ([], [coding]) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Takes out of an answer what is not the caller's: what belongs to the other connection, sessions that the API opened, and
/// whatever could be taken for an answer of the gateway's own.
pub(crate) fn outward(status: StatusCode, headers: &mut HeaderMap) {
    strip_answer(headers);
    for name in [SET_COOKIE, WWW_AUTHENTICATE] {
        headers.remove(name);
    }
    headers.remove("tbac-sealed-type");
    // Under these an agent reads from a problem document whether its call was carried out.
    let is_told = matches!(status.as_u16(), 401 | 409 | 503);
    let is_problem =
        |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"application/problem+json");
    if is_told && headers.get(CONTENT_TYPE).is_some_and(is_problem) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let parsed = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        list.iter().map(parsed).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn few_headers_go_in() {
        let sent = headers(&[
            ("accept", "*/*"),
            ("authorization", "TBAC x"),
            ("cookie", "a=b"),
            ("x-api-key", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-http-method-override", "DELETE"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("x-other", "1"),
            ("accept-encoding", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
        ]);
        let own = [HeaderName::from_static("x-own")];
        assert_eq!(names(&inward(&sent, &own, false)), ["accept", "accept-encoding", "x-own"]);
        let opening = inward(&sent, &[], true);
        assert_eq!(
            names(&opening),
            ["accept", "accept-encoding", "connection", "sec-websocket-key", "upgrade"]
        );
        assert_eq!(opening[ACCEPT_ENCODING], "identity");
    }

    #[test]
    fn what_is_not_the_callers_stays_here() {
        let mut answer = headers(&[
            ("content-type", "application/problem+json; charset=utf-8"),
            ("connection", "keep-alive, x-hop, content-type"),
            ("x-hop", "1"),
            ("set-cookie", "session=1"),
            ("www-authenticate", "TBAC error=\"SESSION_EXPIRED\""),
            ("x-ratelimit-remaining", "7"),
        ]);
        let mut other = answer.clone();
        outward(StatusCode::SERVICE_UNAVAILABLE, &mut answer);
        assert_eq!(names(&answer), ["content-type", "x-ratelimit-remaining"]);
        assert_eq!(answer[CONTENT_TYPE], "application/json");
        outward(StatusCode::NOT_FOUND, &mut other);
        assert_eq!(other[CONTENT_TYPE], "application/problem+json; charset=utf-8");
    }
}
