//! What is taken for one request, however it is cut into pieces, and what for none.

use super::*;

/// What is handed on of these bytes, in pieces of this size.
fn handed_on(bytes: &[u8], size: usize) -> String {
    let mut strict = Strict::new(());
    for piece in bytes.chunks(size) {
        strict.feed(piece);
    }
    String::from_utf8(strict.out).unwrap()
}

fn refused(head: &str) -> bool {
    let outcomes = [1, 7, head.len()].map(|size| handed_on(head.as_bytes(), size));
    for outcome in &outcomes {
        assert_eq!(outcome, &outcomes[0], "{head:?}");
    }
    outcomes[0].starts_with(REFUSED)
}

#[test]
fn whole_requests_pass_byte_for_byte() {
    let get = "GET /a?b HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX-Text: caf\u{e9} \t x\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nhost: h\r\nContent-Length: 12\r\n\r\nGET / HTTP/1";
    let old = "GET /a HTTP/1.0\r\n\r\n";
    let chunked = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let all = [get, post, get, old, post, chunked].concat();
    for size in [1, 2, 3, 17, all.len()] {
        assert_eq!(handed_on(all.as_bytes(), size), all, "{size}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let post = "POST /a HTTP/1.1\r\nHost: h\r\n";
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\ncontent-length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 0x3",
        "Content-Length:",
        "Content-Length: 3 4",
        "Content-Length: 9999999999999999999",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tz",
        "Transfer-Encoding\t: chunked",
        "Transfer\u{0}Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\u{0}b",
        "Content-Length\u{a0}: 3",
        ": x",
        "NoColon",
        "Expect: 200-ok",
        "Host: other",
    ] {
        assert!(refused(&format!("{post}{lines}\r\n\r\n")), "{lines:?}");
    }
    for head in [
        "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a HTTP/1.1\nHost: h\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\n\n",
        "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a  HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n",
        "GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a\r\nHost: h\r\n\r\n",
        "GET /a HTTP/0.9\r\nHost: h\r\n\r\n",
        "GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
        "GET /a http/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n",
        "G(T /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "OBOL-REFUSED / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(refused(head), "{head:?}");
    }
    let many = format!("GET /a HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
    assert!(refused(&many));
    assert!(refused(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD_BYTES))));
}

#[test]
fn nothing_behind_what_is_refused_is_handed_on() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let bad = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [1, 5, 1_000] {
        let out = handed_on(format!("{hidden}{bad}{hidden}").as_bytes(), size);
        assert_eq!(out.matches("hidden").count(), 1, "{size}: {out}");
        assert_eq!(out.matches(REFUSED).count(), 1, "{size}: {out}");
    }
}
