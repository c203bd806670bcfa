//! The resource server: its service and layer, what it is sent, and what it keeps.

mod bodies;
mod channel;
mod forged_tokens;
mod framing;
mod grants;
mod proxies;
mod receipts;
pub(crate) mod replicas;
pub(crate) mod revocation;
mod running;
mod service;
mod shared_sessions;
mod spend;
mod templates;

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blocking client that says exactly what it is told.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Status, code and check of a problem; everything that every problem has is checked on the way.
    pub(crate) fn problem(&self) -> (u16, String, String) {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], self.status);
        assert!(problem["type"].is_string() && problem["title"].is_string());
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        let (code, check) = (text("code"), text("failed_check"));
        let challenge = self.header("www-authenticate").map(str::to_owned);
        let expected =
            (self.status == 401).then(|| format!("TBAC error=\"{code}\", failed_check=\"{check}\""));
        assert_eq!(challenge, expected);
        (self.status, code, check)
    }
}

/// What comes back, as far as it comes: a server may close the connection on us. Status 0 is no answer at all.
pub(crate) fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let _closed_early = stream.write_all(request.as_ref());
    let _closed_hard = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    Answer { status, head, bytes: bytes.split_off(bytes.len().min(end + 4)) }
}

pub(crate) fn fetch(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    send(address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
}

pub(crate) fn post(address: SocketAddr, target: &str, body: &str) -> Answer {
    let length = body.len();
    send(
        address,
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

pub(crate) fn refusal(status: u16, code: &str, check: &str) -> (u16, String, String) {
    (status, code.to_owned(), check.to_owned())
}
