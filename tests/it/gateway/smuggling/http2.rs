//! Requests of HTTP/2 that become several where they are written as HTTP/1.1: H2.CL, H2.TE, and lines in what is none.

use super::h2;

/// Where something is said otherwise than a client would, and what is said besides.
type Odd = (&'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

const ODD: [Odd; 34] = [
    (&[], &[("content-length", "0")]),
    (&[], &[("content-length", "3")]),
    (&[], &[("content-length", "999999")]),
    (&[], &[("content-length", "0"), ("content-length", "{all}")]),
    (&[], &[("content-length", "{all}, 0")]),
    (&[], &[("content-length", "+{all}")]),
    (&[], &[("content-length", "{all}\r\n")]),
    (&[], &[("content-length ", "0")]),
    (&[], &[("transfer-encoding", "chunked")]),
    (&[], &[("transfer-encoding", "identity, chunked")]),
    (&[], &[("Transfer-Encoding", "chunked")]),
    (&[], &[("transfer-encoding ", "chunked")]),
    (&[], &[("x: y\r\ntransfer-encoding", "chunked")]),
    (&[], &[("x", "y\r\ntransfer-encoding: chunked")]),
    (&[], &[("x", "y\ntransfer-encoding: chunked")]),
    (&[], &[("x", "y\r\n\r\n{hidden}")]),
    (&[], &[("x", "y\u{0}")]),
    (&[], &[("te", "chunked")]),
    (&[], &[("connection", "transfer-encoding")]),
    (
        &[],
        &[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ],
    ),
    (&[], &[("keep-alive", "timeout=5")]),
    (&[], &[("proxy-connection", "keep-alive")]),
    (&[], &[("host", "other.example")]),
    (&[], &[("host", "localhost"), ("host", "other.example")]),
    (&[], &[(":path", "/saas/v1/search/hidden")]),
    (&[], &[(":protocol", "websocket")]),
    (&[(":method", "CONNECT")], &[(":protocol", "websocket")]),
    (&[(":method", "POST {path} HTTP/1.1\r\nx:")], &[]),
    (&[(":path", "{path} HTTP/1.1\r\nhost: localhost\r\n\r\nPOST /saas/v1/search/hidden")], &[]),
    (&[(":path", "{path} HTTP/1.1")], &[]),
    (&[(":path", "*")], &[]),
    (&[(":path", "")], &[]),
    (&[(":authority", "localhost\r\ntransfer-encoding: chunked")], &[]),
    (&[(":authority", "user@localhost/saas/v1/search/hidden?")], &[]),
];

/// How many there are.
pub(crate) fn count() -> usize {
    ODD.len()
}

/// The bytes of one, on a connection of its own.
pub(crate) fn bytes(number: usize, scheme: &str, path: &str, token: &str, hidden: &str) -> Vec<u8> {
    let (otherwise, besides) = ODD[number];
    let chunked =
        besides.iter().any(|(name, value)| format!("{name}{value}").to_lowercase().contains("chunked"));
    let body = if chunked { format!("0\r\n\r\n{hidden}") } else { hidden.to_owned() };
    let filled = |text: &str| {
        let text = text.replace("{path}", path).replace("{hidden}", hidden);
        text.replace("{all}", &body.len().to_string())
    };
    let authorization = format!("TBAC {token}");
    let usual = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", path),
        (":authority", "localhost"),
        ("authorization", &authorization),
        ("content-type", "text/plain"),
    ];
    let said = |(name, value): (&str, &str)| {
        let other = otherwise.iter().find(|(other, _)| *other == name);
        (name.to_owned(), other.map_or_else(|| value.to_owned(), |(_, other)| filled(other)))
    };
    let besides = besides.iter().map(|(name, value)| (filled(name), filled(value)));
    let headers: Vec<(String, String)> = usual.into_iter().map(said).chain(besides).collect();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    h2::request(&headers, body.as_bytes())
}

/// For people.
pub(crate) fn shown(number: usize) -> String {
    format!("{:?}", ODD[number])
}
