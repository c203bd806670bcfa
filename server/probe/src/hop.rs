//! What of a message's headers goes no further, for whatever passes messages on: what belongs to one connection (RFC 9110, section 7.6.1),
//! and what programs log in with.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};

/// What is of a connection by its name alone, or frames a message.
const OF_A_CONNECTION: [&str; 15] = [
    "alt-svc",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header is of a connection, or frames a message.
pub fn is_of_a_connection(name: &HeaderName) -> bool {
    OF_A_CONNECTION.contains(&name.as_str())
}

/// What programs log in with, beside what is of a connection. No name tells for certain; these are the usual ones.
const CREDENTIALS: [&str; 18] = [
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "dd-api-key",
    "deploy-token",
    "dpop",
    "job-token",
    "ocp-apim-subscription-key",
    "private-token",
    "tbac-pop",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
    "x-vault-token",
    "xi-api-key",
];

/// Whether a header is one that programs log in with.
pub fn is_credential(name: &HeaderName) -> bool {
    CREDENTIALS.contains(&name.as_str()) || name == PROXY_AUTHORIZATION
}

/// What a message's own `Connection` says is of the connection too.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = values.flat_map(|value| value.split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// Takes out of an answer what is of the connection that it came by. How long it is and of what kind stays, whatever is said of it.
pub fn strip_answer(headers: &mut HeaderMap) {
    let named = named_by_connection(headers).into_iter().filter(|name| *name != CONTENT_TYPE);
    let own = headers.keys().filter(|name| is_of_a_connection(name)).cloned();
    let all: Vec<HeaderName> = named.chain(own).filter(|name| *name != CONTENT_LENGTH).collect();
    for name in all {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_connection_goes_and_what_frames_an_answer_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("x-other", "1"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("alt-svc", "h3"),
            ("transfer-encoding", "chunked"),
            ("connection", "close, X-Hop, content-type"),
            ("connection", "content-length"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_answer(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type", "x-other"]);
    }

    #[test]
    fn a_name_is_read_beside_what_is_none() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_bytes(b"X-Hop, \xff ,,b d").unwrap());
        assert_eq!(named_by_connection(&headers), [HeaderName::from_static("x-hop")]);
    }
}
