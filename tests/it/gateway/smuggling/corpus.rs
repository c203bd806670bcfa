//! Requests that two readers may end at different places, as published: CL.TE, TE.CL, TE.TE, CL.0, and chunks that are none.
//!
//! Each carries another request, `{hidden}`, where the second reader may begin.

/// One of them. What stands in braces is filled in by [`Entry::bytes`].
pub(super) struct Entry {
    head: String,
    body: String,
}

/// How a head begins.
const POST: &str =
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Type: text/plain\r\n";

/// `Transfer-Encoding` as some read it and some do not.
const CODINGS: [&str; 29] = [
    "Transfer-Encoding: chunked",
    "TRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: \u{c}chunked",
    "Transfer-Encoding: chunked\u{0}",
    "Transfer-Encoding\u{0}: chunked",
    "Transfer-Encoding\u{a0}: chunked",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "Expect: 100-continue\r\nTransfer-Encoding: chunked",
];

/// Lengths of which some read the whole body, some none of it, and some refuse.
const LENGTHS: [&str; 24] = [
    "Content-Length: 0\r\nContent-Length: {all}",
    "Content-Length: {all}\r\nContent-Length: 0",
    "Content-Length: {all}, 0",
    "Content-Length: 0, {all}",
    "Content-Length : {all}",
    "Content-Length\t: {all}",
    " Content-Length: {all}",
    "Content-Length:\r\n {all}",
    "Content-Length: {all}\r\n 0",
    "X: y\nContent-Length: {all}",
    "X: y\rContent-Length: {all}",
    "Content-Length: +{all}",
    "Content-Length: -{all}",
    "Content-Length: 0x{hex}",
    "Content-Length: {all}_0",
    "Content-Length: {all} 0",
    "Content-Length: {all}.0",
    "Content-Length: \u{b}{all}",
    "Content-Length\u{0}: {all}",
    "Content-Length\u{a0}: {all}",
    "Content-Length: 00000000000000000000{all}",
    "Content-Length: 18446744073709551616",
    "Connection: Content-Length\r\nContent-Length: {all}",
    "Expect: y 100-continue\r\nContent-Length: {all}",
];

/// Chunks that end here for some, and there for others.
const CHUNKS: [&str; 24] = [
    "0\r\n\r\n{hidden}",
    "2;a=b\r\n{}\r\n0\r\n\r\n{hidden}",
    "2;\n{}\r\n0\r\n\r\n{hidden}",
    "2;\nxx\r\n{size}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n",
    "2;a=\"\r\n{}\r\n0\r\n\r\n{hidden}\"\r\n0\r\n\r\n",
    "2\n{}\n0\n\n{hidden}",
    "2\r{}\r\n0\r\n\r\n{hidden}",
    "2\r\n{}0\r\n\r\n{hidden}",
    "2\r\n{}XX0\r\n\r\n{hidden}",
    "2\r\n{}\n0\r\n\r\n{hidden}",
    "2 \r\n{}\r\n0\r\n\r\n{hidden}",
    "\t2\r\n{}\r\n0\r\n\r\n{hidden}",
    "0x2\r\n{}\r\n0\r\n\r\n{hidden}",
    "+2\r\n{}\r\n0\r\n\r\n{hidden}",
    "-2\r\n{}\r\n0\r\n\r\n{hidden}",
    "10000000000000002\r\n{}\r\n0\r\n\r\n{hidden}",
    "100000002\r\n{}\r\n0\r\n\r\n{hidden}",
    "fffffffffffffffe\r\n{}\r\n0\r\n\r\n{hidden}",
    "00000000000000000000\r\n\r\n{hidden}",
    "\r\n0\r\n\r\n{hidden}",
    "0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n{hidden}",
    "0\r\n{hidden}",
    "0\n\r\n{hidden}",
    "0\r\n\n{hidden}",
];

/// Heads that some take for another request, or for none.
const HEADS: [&str; 17] = [
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "HEAD {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.0\r\nAuthorization: TBAC {token}\r\nTransfer-Encoding: chunked\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nHost: hidden\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST http://other.example{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.1\u{b}\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST  {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST\t{path}\tHTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST {path}%20HTTP/1.1%0d%0aHost:%20localhost%0d%0a%0d%0aPOST%20/saas/v1/search/hidden HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
    "POST {path}\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: {all}\r\n",
    "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {all}\r\n",
    "POST {path} HTTP/1.1\r\n: x\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nContent-Length: {all}\r\n",
];

/// All of them.
pub(super) fn corpus() -> Vec<Entry> {
    let entry = |head: String, body: &str| Entry { head, body: body.to_owned() };
    let mut all = Vec::new();
    for coding in CODINGS {
        all.push(entry(format!("{POST}Content-Length: {{all}}\r\n{coding}\r\n"), "0\r\n\r\n{hidden}"));
        all.push(entry(
            format!("{POST}{coding}\r\nContent-Length: {{short}}\r\n"),
            "{size}\r\n{hidden}\r\n0\r\n\r\n",
        ));
    }
    all.extend(LENGTHS.map(|length| entry(format!("{POST}{length}\r\n"), "{hidden}")));
    all.extend(CHUNKS.map(|chunks| entry(format!("{POST}Transfer-Encoding: chunked\r\n"), chunks)));
    all.extend(HEADS.map(|head| entry(head.to_owned(), "{hidden}")));
    all
}

impl Entry {
    /// The request, with this path and token, and the hidden one.
    pub(super) fn bytes(&self, path: &str, token: &str, hidden: &str) -> Vec<u8> {
        let body = self.body.replace("{size}", &format!("{:x}", hidden.len()));
        let short = body.find("{hidden}").unwrap();
        let body = body.replace("{hidden}", hidden);
        let head = self.head.replace("{path}", path).replace("{token}", token);
        let head =
            head.replace("{all}", &body.len().to_string()).replace("{hex}", &format!("{:x}", body.len()));
        let head = head.replace("{short}", &short.to_string());
        // Every character is one byte.
        format!("{head}\r\n{body}").chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        format!("{:?} {:?}", self.head.replace(POST, "POST … "), self.body)
    }
}
