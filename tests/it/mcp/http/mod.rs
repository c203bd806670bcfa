//! `obol mcp wrap --url` and `obol mcp guard --url` as processes, between clients and servers that know nothing of tokens.

mod attacks;
mod clients;
mod conformance;
mod flags;
mod following;
mod kills;
mod sealed;

use core::net::SocketAddr;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use obol_world::home::{command, free_port, obol, wait_until};
use parking_lot::Mutex;
use serde_json::Value;

use super::pipe::{AUDIENCE, program};
use crate::sdk::python;

/// A process that listens; killed when dropped.
struct Listening {
    child: Child,
    port: u16,
}

impl Listening {
    fn start(mut command: Command, home: &Path, port: u16) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("http.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        wait_until("it listens", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", log_of(home));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn kill(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_of(home: &Path) -> String {
    std::fs::read_to_string(home.join("http.log")).unwrap_or_default()
}

/// The official SDK's server, which writes calls to `seen`.
fn server(home: &Path, flags: &[&str]) -> Listening {
    let port = free_port();
    let mut command = Command::new(python());
    command.arg(program("http_server.py")).arg(port.to_string()).arg(home.join("seen")).args(flags);
    command.current_dir(home).env_clear().env("HOME", home);
    Listening::start(command, home, port)
}

/// The guard in front of a server.
fn guard(home: &Path, url: &str, arguments: &[&str]) -> Listening {
    guard_at(home, free_port(), url, arguments)
}

fn guard_at(home: &Path, port: u16, url: &str, arguments: &[&str]) -> Listening {
    let mut command = command(home);
    let listen = format!("127.0.0.1:{port}");
    command.args(["mcp", "guard", "--sessions", "rs-sessions.json", "--first-start", "--url", url]);
    command.args(["--listen", &listen]).args(arguments);
    Listening::start(command, home, port)
}

/// The command of a wrapper in front of a server.
fn wrapped_url(url: &str) -> Vec<OsString> {
    let words = ["mcp", "wrap", "--audience", AUDIENCE, "--url", url].map(OsString::from);
    [vec![obol().into()], words.to_vec()].concat()
}

/// What passes on connections to somewhere, and is written down.
struct Tap {
    port: u16,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    answered: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// In front of a port.
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let answered = Arc::<Mutex<Vec<u8>>>::default();
        let (kept, answers) = (Arc::clone(&asked), Arc::clone(&answered));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Who was killed is not there.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let number = {
                    let mut kept = kept.lock();
                    kept.push(Vec::new());
                    kept.len() - 1
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                std::thread::spawn(move || {
                    carry(from, to, |bytes| kept.lock()[number].extend_from_slice(bytes));
                });
                std::thread::spawn(move || {
                    carry(server, client, |bytes| answers.lock().extend_from_slice(bytes));
                });
            }
        });
        Self { port, asked, answered }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// The messages that passed, with the heads they came under. The last of a connection may have broken off.
    fn messages(&self) -> Vec<(String, Value)> {
        let connections = self.asked.lock().clone();
        connections.iter().flat_map(|bytes| requests(bytes)).collect()
    }

    /// The calls of tools.
    fn calls(&self) -> Vec<(String, Value)> {
        self.messages().into_iter().filter(|(_, message)| message["method"] == "tools/call").collect()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut buffer = [0; 16_384];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        seen(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _gone = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

/// The requests of one connection that have a body of JSON.
fn requests(mut bytes: &[u8]) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let (begin, length) = (end + 4, length.unwrap_or(0));
        if bytes.len() < begin + length {
            break;
        }
        if length > 0 {
            found.push((head, serde_json::from_slice(&bytes[begin..begin + length]).unwrap()));
        }
        bytes = &bytes[begin + length..];
    }
    found
}
