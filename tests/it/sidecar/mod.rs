//! The sidecar: its sockets, its life, those who hold it up and those who attack it.

mod canary;
mod cut_off;
mod fair_shares;
pub(crate) mod hardening;
mod ipc_vectors;
mod lease;
mod life;
mod peers;
mod renewal;
mod sandbox_deeds;
mod session_end;
mod session_folders;
mod sockets;
pub(crate) mod two_users;
mod unread_log;
mod watch;

use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use obol_ipc::names::ToolName;
use obol_world::halves::AgentSession;
use obol_world::tqs::Tqs;
use obol_world::{home, now};
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn tool(name: &str) -> ToolName {
    ToolName::new(name).unwrap()
}

/// A daemon with one session for two tools.
pub(crate) fn start(home: &Path) -> Tqs {
    start_as(home, &[], |_| {})
}

/// The same, with more arguments and whatever else the command needs.
pub(crate) fn start_as(home: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Tqs {
    let session = home.join("session.json");
    if !session.exists() {
        home::write_private(
            &session,
            &AgentSession::new(1, now(), &["search", "pay"]).agent_json().to_string(),
        );
    }
    Tqs::start_as(home, &[&["--session", session.to_str().unwrap()], arguments].concat(), prepare)
}

/// A peer that knows nothing but the bytes.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    pub(crate) fn connect(home: &Path, socket: &str) -> Self {
        let stream = UnixStream::connect(home.join("run/obol").join(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn greeted(home: &Path, socket: &str) -> Self {
        let mut raw = Self::connect(home, socket);
        raw.send(&json!({"obol": 1, "codec": "json", "client": "raw/1"}));
        assert_eq!(raw.receive().unwrap()["codec"], "json");
        raw
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.try_send(message).unwrap();
    }

    /// The same, where the peer may have closed the connection already.
    pub(crate) fn try_send(&mut self, message: &Value) -> std::io::Result<()> {
        let body = message.to_string();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length[..], body.as_bytes()].concat())
    }

    /// The next frame, or `None` where the connection has ended.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut body).ok()?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
        let answer = self.receive().unwrap();
        assert_eq!(answer["id"], 7);
        answer
    }
}

/// One request, and the status line's number and the body of its answer.
pub(crate) fn ask(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    // A server that refuses a request may close before it has read the whole of it; its answer is there all the same.
    let _refused_early =
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let mut answer = Vec::new();
    let _reset_after_it = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) fn get(home: &Path, path: &str) -> (u16, String) {
    ask(UnixStream::connect(home.join("run/obol/http.sock")).unwrap(), &format!("GET {path}"))
}
