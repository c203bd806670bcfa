//! A real `obol rs` as a child process that a test starts, asks, kills and starts again on the same port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use obol_token::text::to_hex;
use serde_json::{Value, json};

use crate::process::{limitable, write_private};
use crate::redis_server::{PATIENCE, free_port};
use crate::rs_fixture::{AUDIENCE, KEYS, ORG, SESSION, TOOL};

/// Writes the sessions' file of the fixture's session into a home.
pub(crate) fn write_sessions(home: &Path, now: u64) {
    write_sessions_as(home, now, "active");
}

/// The same, with the session's status.
pub(crate) fn write_sessions_as(home: &Path, now: u64, status: &str) {
    write_sessions_with(home, now, json!({"status": status}));
}

/// The same, with other or more fields of the session.
pub(crate) fn write_sessions_with(home: &Path, now: u64, fields: Value) {
    let mut session = json!({
        "session_id": format!("{:016x}", SESSION.0), "suite": 1, "aud": AUDIENCE, "org_id": ORG,
        "K_session": to_hex(&KEYS.session_key), "verifier_secret": to_hex(&KEYS.verifier_secret),
        "mutual_auth": to_hex(&KEYS.mutual_auth), "SEK_PK": to_hex(&KEYS.sek_public),
        "window": {"start": now - 100, "end": now + 100_000},
        "agent_instance_id": "agent-1", "iss": "as.example", "sub": "agent-key:1",
        "grants": [{"tool": TOOL, "aud": AUDIENCE, "action": "read", "resource": "docs/**", "trust_level": 1}],
    });
    session.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let file = json!({"obol_rs_sessions": 1, "sessions": [session]});
    write_private(&home.join("sessions.json"), &file.to_string());
}

/// An `obol rs`, running or not; killed when dropped.
pub(crate) struct RsProcess {
    home: PathBuf,
    port: u16,
    sessions: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
    /// The operator's socket.
    control: PathBuf,
}

impl RsProcess {
    /// Starts one with the sessions in `home` and waits until it is ready.
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_with(home, "sessions.json", arguments)
    }

    /// The same with another file of sessions.
    pub(crate) fn start_with(home: &Path, sessions: &'static str, arguments: &[&str]) -> Self {
        let mut arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let port = free_port();
        // The first of a home has the usual place, the others have to name one.
        let mut control = home.join("run/obol/rs-control.sock");
        if control.exists() && !arguments.iter().any(|argument| argument == "--rs-control-socket") {
            control = home.join(format!("run/obol/rs-{port}.sock"));
            arguments.extend(["--rs-control-socket".to_owned(), control.display().to_string()]);
        }
        let mut rs = Self { home: home.to_owned(), port, sessions, arguments, child: None, control };
        rs.start_again();
        rs
    }

    /// Where its operator is answered.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.control.clone()
    }

    /// Starts it until it is ready, as a supervisor does: it may end because what it needs is away.
    pub(crate) fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.spawn();
            while self.runs() {
                if self.get("/readyz") == 200 {
                    return;
                }
                assert!(Instant::now() < deadline, "obol rs is not ready: {}", self.log());
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(Instant::now() < deadline, "obol rs does not start: {}", self.log());
            self.child = None;
        }
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let child = limitable(&self.home)
            .args(["--log", "info", "rs", "--sessions", self.sessions, "--listen"])
            .arg(format!("127.0.0.1:{}", self.port))
            .args(&self.arguments)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn runs(&mut self) -> bool {
        let Some(status) = self.child.as_mut().map(|child| child.try_wait().unwrap()) else { return false };
        // Starting again does not help against a wrong command line.
        assert_ne!(status.and_then(|status| status.code()), Some(2), "obol rs: {}", self.log());
        status.is_none()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let sent = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap().code()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let line = status.unwrap().lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned));
        line.unwrap().trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The status of a `GET`; 0 where nothing answers.
    pub(crate) fn get(&self, path: &str) -> u16 {
        Http::new(self.port).get(path).map_or(0, |(status, _)| status)
    }

    /// A figure of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, text) = Http::new(self.port).get("/metrics").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.home.join(format!("rs-{}.log", self.port))
    }
}

impl Drop for RsProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One connection that is kept alive while it lasts, and made again when it is needed again.
pub(crate) struct Http {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    pub(crate) fn get(&mut self, path: &str) -> Option<(u16, String)> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Presents a token for the fixture's tool: `OK`, or the code of the refusal; `None` if no answer came.
    pub(crate) fn present(&mut self, token: &str) -> Option<String> {
        self.present_for(token, TOOL)
    }

    /// The same for another tool.
    pub(crate) fn present_for(&mut self, token: &str, tool: &str) -> Option<String> {
        let body = json!({"token": token, "tool": tool, "action": "read", "resource": "docs/a"}).to_string();
        let length = body.len();
        let (status, answer) = self.exchange(&format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        ))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status == 200, answer["ok"] == true, "{answer}");
        Some(if status == 200 { "OK" } else { answer["code"].as_str().unwrap() }.to_owned())
    }

    fn exchange(&mut self, request: &str) -> Option<(u16, String)> {
        let answer = self.try_exchange(request);
        if answer.is_none() {
            // Never sent again on its own: the token may have been spent.
            self.stream = None;
        }
        answer
    }

    fn try_exchange(&mut self, request: &str) -> Option<(u16, String)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            stream.set_nodelay(true).ok()?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut()?;
        stream.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = Some(line.split(' ').nth(1)?.parse().ok()?);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some((status?, String::from_utf8(body).ok()?))
    }
}
