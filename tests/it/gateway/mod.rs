//! The gateway as a process: what an agent's request becomes at the API, and what never does.

mod calls;
mod following;
mod http2;
mod limits;
mod openapi;
mod passing;
mod proxies;
mod recipes;
mod renewal;
mod secrets;
mod smuggling;
mod tls;
mod unix;

use core::net::SocketAddr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use obol_world::home::{command, free_port, home, wait_until, write_private};
use obol_world::tqs::Tqs;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::end_to_end::{create_session, draw};
use crate::resource::{Answer, send};

/// What no agent may see.
pub(crate) const SECRET: &str = "sk-live-0123456789abcdef";

/// The requests that an API got, as they came.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// An API that shows what it was sent, as the worst do. `/slow` never answers; `/401` refuses the credential; `/events` says one
/// thing, and another once it sees `GO_ON`; `/socket` changes to a WebSocket and says again what it hears; `/token` gives tokens.
fn api() -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, seen) = (stream.unwrap(), Arc::clone(&kept));
            std::thread::spawn(move || serve(stream, &seen));
        }
    });
    (port, seen)
}

/// What lets `/events` go on, among what was seen.
pub(crate) const GO_ON: &str = "go on";
/// The token that `/token` gives.
const FRESH: &str = "fresh-token-0123456789";

/// The lines up to an empty one, in small letters.
pub(crate) fn head(reader: &mut impl BufRead) -> String {
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        head.push_str(&line.to_ascii_lowercase());
        line.clear();
    }
    head
}

/// The body behind a head, if it comes to its end.
pub(crate) fn body(reader: &mut impl BufRead, head: &str) -> Option<Vec<u8>> {
    if !head.contains("transfer-encoding: chunked") {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        return reader.read_exact(&mut body).is_ok().then_some(body);
    }
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut piece = vec![0; length + 2];
        reader.read_exact(&mut piece).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&piece[..length]);
    }
}

fn serve(mut stream: TcpStream, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let head = head(&mut reader);
        let Some(body) = body(&mut reader, &head).filter(|_| !head.is_empty()) else { return };
        let whole = format!("{head}\n{}", String::from_utf8(body).unwrap());
        seen.lock().push(whole.clone());
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/slow") {
            let _until_the_gateway_ends = reader.read_line(&mut String::new());
            return;
        }
        if path.contains("/events") {
            return say_events(&mut stream, seen);
        }
        if path.contains("/socket") && head.contains("upgrade: websocket\r\n") {
            return say_again(&mut stream, &mut reader);
        }
        let (status, text) = match path {
            "/token" => {
                ("200 OK", format!(r#"{{"access_token":"{FRESH}","token_type":"Bearer","expires_in":3600}}"#))
            }
            _ if path.contains("/401") => ("401 Unauthorized", whole),
            _ => ("200 OK", whole),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nSet-Cookie: a=b\r\nX-Echo: {SECRET}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn say_events(stream: &mut TcpStream, seen: &Seen) {
    let first = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n";
    stream.write_all(first.as_bytes()).unwrap();
    wait_until("the agent has the first event", || seen.lock().iter().any(|text| text == GO_ON));
    stream.write_all(b"b\r\ndata: two\n\n\r\n0\r\n\r\n").unwrap();
}

fn say_again(stream: &mut TcpStream, reader: &mut impl Read) {
    let changed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    stream.write_all(changed.as_bytes()).unwrap();
    let _the_agent_ended_it = std::io::copy(reader, stream);
}

/// The file of an API at this port that takes a bearer.
pub(crate) fn file(api: u16) -> String {
    file_with(api, "put = \"bearer\"")
}

/// The same, with this rule for its credential.
fn file_with(api: u16, credential: &str) -> String {
    format!(
        r#"
upstream = "http://127.0.0.1:{api}"
max_body_bytes = 1000

[credential]
{credential}

[[route]]
method = ["GET", "POST"]
path = "/v1/search/{{*what}}"
tool = "search"
query = ["q"]

[[route]]
method = "POST"
path = "/v1/pay"
tool = "pay"

[[route]]
method = "POST"
path = "/v1/files/{{name}}"
tool = "search"
body = "stream"

[[route]]
method = "GET"
path = "/v1/socket"
tool = "search"
body = "none"
websocket = true
"#
    )
}

/// A sidecar with a session for `search`, an API, and a gateway between them.
pub(crate) struct World {
    pub(crate) home: TempDir,
    tqs: Tqs,
    pub(crate) seen: Seen,
    pub(crate) port: u16,
    /// What the gateway is started with each time.
    arguments: Vec<String>,
    child: Option<Child>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(&[], |_, api| file(api))
    }

    /// The same with these arguments, and with a file that follows from its home and the API's port.
    pub(crate) fn with(arguments: &[&str], file: impl FnOnce(&Path, u16) -> String) -> Self {
        let home = home();
        create_session(home.path());
        let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
        let (api, seen) = api();
        let file = file(home.path(), api);
        let arguments = [&["--sessions", "rs-sessions.json"], arguments].concat();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut world = Self { home, tqs, seen, port: free_port(), arguments, child: None };
        world.write("saas", &file);
        if !["file = ", "command = ", "credential = "].iter().any(|source| file.contains(source)) {
            world.seal("saas", SECRET);
        }
        world.run(&["--first-start"]);
        world
    }

    /// Writes the file of an API.
    fn write(&self, api: &str, text: &str) {
        let apis = self.home().join("apis");
        fs::create_dir_all(&apis).unwrap();
        write_private(&apis.join(format!("{api}.toml")), text);
    }

    /// Gives the gateway a credential, which is in no file afterwards.
    fn seal(&self, api: &str, secret: &str) {
        let file = self.home().join("secret");
        write_private(&file, secret);
        let added = command(self.home())
            .args(["gateway", "add", api, "--apis", "apis", "--credential-file", "secret"])
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        fs::remove_file(file).unwrap();
    }

    /// The command that starts the gateway.
    fn command(&self) -> std::process::Command {
        let mut command = command(self.home());
        command.env("CREDENTIALS_DIRECTORY", self.home());
        command.args(["--log", "trace", "gateway", "--apis", "apis", "--listen"]);
        command.arg(format!("127.0.0.1:{}", self.port)).args(&self.arguments);
        command
    }

    pub(crate) fn run(&mut self, arguments: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        self.child = Some(self.command().args(arguments).stderr(Stdio::from(log)).spawn().unwrap());
        wait_until("the gateway listens", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            TcpStream::connect(self.at()).is_ok()
        });
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _ended = child.wait();
        }
    }

    fn at(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn token(&self, tool: &str) -> String {
        draw(&self.tqs, tool)
    }

    /// How many tokens were handed out.
    pub(crate) fn drawn(&self, tool: &str) -> u64 {
        let status = self.tqs.control().status().unwrap();
        let of_tool = status.tools.iter().find(|counts| counts.tool.as_str() == tool);
        of_tool.map_or(0, |counts| counts.handed_out)
    }

    fn ask(&self, line: &str, token: &str, more: &str, body: &str) -> Answer {
        let length = body.len();
        send(
            self.at(),
            format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nConnection: close\r\n{more}\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
        )
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("gateway.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}
