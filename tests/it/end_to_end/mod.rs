//! Sidecar and resource server together: what leaves the one is shown to the other.

pub(crate) mod api;
mod named_calls;
mod proofs;
mod sealed_calls;
mod whole_way;

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use obol_ipc::names::ToolName;
use obol_world::home::command;
use obol_world::tqs::Tqs;
use serde_json::json;

pub(crate) const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `obol rs`, killed when dropped.
pub(crate) struct Rs {
    child: Child,
    address: SocketAddr,
}

impl Rs {
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        let log = home.join("rs.log");
        let file = std::fs::File::create(&log).unwrap();
        let child = command(home)
            .args(["rs", "--sessions", "rs-sessions.json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        let mut rs = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            // The log may be read in the middle of a line.
            let line = text.split_once("listening address=").and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((line, _)) = line {
                rs.address = line.split_whitespace().next().unwrap().parse().unwrap();
                return rs;
            }
            assert!(rs.child.try_wait().unwrap().is_none() && Instant::now() < deadline, "obol rs: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of one verification.
    pub(crate) fn verify(&self, token: &str, tool: &str) -> u16 {
        let body = json!({"token": token, "tool": tool}).to_string();
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Rs {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

pub(crate) fn create_session(home: &Path) {
    let created = command(home)
        .args(["session", "create", "--audience", AUDIENCE, "--tool", "search", "--tool", "pay"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
}

pub(crate) fn draw(tqs: &Tqs, tool: &str) -> String {
    let drawn = tqs.client().dequeue_token(&ToolName::new(tool).unwrap(), PATIENCE).unwrap();
    drawn.token.expose().to_owned()
}
