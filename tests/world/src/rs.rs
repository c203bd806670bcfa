//! A real `obol rs` as a child process that a test starts, asks, kills and starts again on the same port.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::authority::AsProcess;
use crate::halves::resource_server_sessions;
use crate::home::{PATIENCE, command, free_port, limitable, write_private};
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
    sessions: Option<&'static str>,
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
        let mut rs =
            Self { home: home.to_owned(), port, sessions: Some(sessions), arguments, child: None, control };
        rs.start_again();
        rs
    }

    /// Starts a copy of the resource server `audience` that joins an Authentication Service and has its sessions from there,
    /// and waits until it is ready.
    pub fn follow(home: &Path, service: &AsProcess, audience: &str, arguments: &[&str]) -> Self {
        let mut rs = Self::joined(home, service, audience, arguments);
        rs.start_again();
        rs
    }

    /// The same, without starting it.
    pub fn joined(home: &Path, service: &AsProcess, audience: &str, arguments: &[&str]) -> Self {
        let code = service.told(&["rs", "invite", audience])["ticket"].as_str().unwrap().to_owned();
        Self::joined_by(home, &service.pin(), &code, audience, arguments)
    }

    /// The same, of a service that is pinned by this, with a code of its.
    pub fn joined_by(home: &Path, pin: &str, code: &str, audience: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let identity = format!("rs-{port}.key");
        let control = home.join(format!("run/obol/rs-{port}.sock"));
        let trusted = arguments.iter().position(|argument| *argument == "--rs-ca-file");
        let trusted = trusted.map_or(&[][..], |at| &arguments[at..at + 2]);
        let join = ["rs", "join", "--authority", pin, "--rs-identity-key", &identity, code, "--json"];
        let joined = command(home).args(join).args(trusted).output().unwrap();
        assert!(joined.status.success(), "{joined:?}");
        let joined: Value = serde_json::from_slice(&joined.stdout).unwrap();
        assert_eq!(joined["audience"], audience);
        let socket = control.display().to_string();
        let own = ["--authority", pin, "--rs-identity-key", &identity, "--rs-control-socket", &socket];
        // What a test names itself counts.
        let audience = (!arguments.contains(&"--audience")).then_some(["--audience", audience]);
        let arguments = own.iter().chain(audience.iter().flatten()).chain(arguments);
        let arguments = arguments.map(ToString::to_string).collect();
        Self { home: home.to_owned(), port, sessions: None, arguments, child: None, control }
    }

    /// What its operator is told.
    pub fn operate(&self, what: &str) -> Value {
        let socket = self.control.display().to_string();
        let output =
            command(&self.home).args(["rs", what, "--rs-control-socket", &socket, "--json"]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Presents a token: `OK`, or the code of the refusal. A session that it has not heard of yet is waited for, as an agent
    /// does: the service tells its servers a moment after the agent, and such a refusal spends nothing.
    pub fn present(&self, token: &str, tool: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.present_once(token, tool);
            if answer != "SESSION_NOT_FOUND" || Instant::now() > deadline {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The same, whatever the first answer is.
    pub fn present_once(&self, token: &str, tool: &str) -> String {
        Http::new(self.port).present_for(token, tool).unwrap_or_else(|| "no answer".to_owned())
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

    /// Starts it, without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let sessions = self.sessions.map(|sessions| ["--sessions", sessions]);
        let child = limitable(&self.home)
            .args(["--log", "info", "rs"])
            .args(sessions.iter().flatten())
            .arg("--listen")
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
