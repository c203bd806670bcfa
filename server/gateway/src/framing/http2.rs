//! What is refused of a request that came by HTTP/2, where frames say how it ends.
//!
//! The library refuses what RFC 9113 does: headers of a connection, pseudo-headers that are none, a length that is not the body's. Here
//! is what it lets pass, and what another reader could still take otherwise once it is written as HTTP/1.1.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use obol_probe::hop::is_of_a_connection;

use super::{MAX_HEADERS, is_token, number};

/// What a header may be called that is of a connection by its name, and is read here.
const READ_HERE: [HeaderName; 4] = [CONTENT_LENGTH, EXPECT, HOST, TE];

/// Whether it can be read in one way.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return Err(
            "HTTP/2 carries no WebSocket and no tunnel here; offer http/1.1 alone (ALPN) to open a WebSocket",
        );
    }
    if !request.method().as_str().bytes().all(is_token) {
        return Err("the method has invalid characters");
    }
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(":scheme is not https");
    }
    if headers.len() > MAX_HEADERS {
        return Err("there are more than 96 headers");
    }
    if headers.keys().any(|name| is_of_a_connection(name) && !READ_HERE.contains(name)) {
        return Err("there is a connection header of HTTP/1.1");
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    check_host(authority, headers)?;
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if lengths.next().is_some_and(|length| number(length.as_bytes()).is_none()) || lengths.next().is_some() {
        return Err("Content-Length is not one number");
    }
    if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err("Expect is not 100-continue");
    }
    Ok(())
}

/// One name of the server, whether it is said once or twice.
fn check_host(authority: Option<&str>, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (host, None) = (hosts.next(), hosts.next()) else { return Err("there are several Host headers") };
    let named = match (authority, host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host) => {
            return Err("Host is not :authority");
        }
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err("there is neither :authority nor Host"),
    };
    match named.contains(&b'@') {
        true => Err(":authority holds a user"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, lines: &[(&str, &str)]) -> Request<()> {
        let request =
            lines.iter().fold(Request::post(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap()
    }

    #[test]
    fn what_a_client_sends_passes() {
        for lines in [
            &[][..],
            &[("host", "Gateway.example")],
            &[("content-length", "3"), ("te", "trailers"), ("expect", "100-continue")],
        ] {
            assert_eq!(check(&request("https://gateway.example/a", lines)), Ok(()), "{lines:?}");
        }
        assert_eq!(
            check(&request("https://gateway.example:8443/a?b", &[("host", "gateway.example:8443")])),
            Ok(())
        );
    }

    #[test]
    fn what_another_reader_could_take_otherwise_is_refused() {
        for lines in [
            &[("host", "other.example")][..],
            &[("host", "gateway.example"), ("host", "gateway.example")],
            &[("content-length", "3"), ("content-length", "3")],
            &[("content-length", "3, 3")],
            &[("content-length", "+3")],
            &[("content-length", "")],
            &[("transfer-encoding", "chunked")],
            &[("connection", "close")],
            &[("upgrade", "websocket")],
            &[("http2-settings", "x")],
            &[("keep-alive", "1")],
            &[("proxy-authorization", "x")],
            &[("expect", "200-ok")],
        ] {
            assert!(check(&request("https://gateway.example/a", lines)).is_err(), "{lines:?}");
        }
        for uri in ["http://gateway.example/a", "/a", "https://user@gateway.example/a"] {
            assert!(check(&request(uri, &[])).is_err(), "{uri}");
        }
        let mut tunnel = request("https://gateway.example/a", &[]);
        *tunnel.method_mut() = Method::CONNECT;
        assert!(check(&tunnel).is_err());
        let many: Vec<_> = (0..=MAX_HEADERS).map(|number| (format!("x-{number}"), "y")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert!(check(&request("https://gateway.example/a", &many)).is_err());
    }
}
