//! A real `obol rs` as a child process that a test starts, asks, kills and starts again on the same port.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::halves::resource_server_sessions;
use crate::home::{PATIENCE, free_port, limitable, write_private};
use crate::http::Http;

/// Writes the sessions' file of the fixture's session into a home.
pub fn write_sessions(home: &Path, now: u64) {
    write_sessions_as(home, now, "active");
}

/// The same, with the session's status.
pub fn write_sessions_as(home: &Path, now: u64, status: &str) {
    write_sessions_with(home, now, json!({"status": status}));
}

/// The same, with other or more fields of the session.
pub fn write_sessions_with(home: &Path, now: u64, fields: Value) {
    let file = resource_server_sessions(now, &fields);
    write_private(&home.join("sessions.json"), &file.to_string());
}

/// An `obol rs`, running or not; killed when dropped.
pub struct RsProcess {
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
    pub fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_with(home, "sessions.json", arguments)
    }

    /// The same with another file of sessions.
    pub fn start_with(home: &Path, sessions: &'static str, arguments: &[&str]) -> Self {
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
    pub fn control_socket(&self) -> PathBuf {
        self.control.clone()
    }

    /// Starts it until it is ready, as a supervisor does: it may end because what it needs is away.
    pub fn start_again(&mut self) {
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
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let sent = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap().code()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let line = status.unwrap().lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned));
        line.unwrap().trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The status of a `GET`; 0 where nothing answers.
    pub fn get(&self, path: &str) -> u16 {
        Http::new(self.port).get(path).map_or(0, |(status, _)| status)
    }

    /// A figure of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = Http::new(self.port).get("/metrics").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    pub fn log(&self) -> String {
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
