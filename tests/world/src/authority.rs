//! A real `obol as` as a child process that a test starts, asks, kills and starts again on the same port, with a policy.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::home::{PATIENCE, command, command_of, free_port, obol, obol_with_people, write_private};
use crate::http::Http;

/// Tools that are on offer: one for the role `dev`, one that is never minted ahead.
pub const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "search"
audience = "https://api.example"
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["read"]
  resource = "docs/**"
  ttl = 60

[[tool]]
name = "pay"
audience = "https://bank.example"
risk = "low"
  [[tool.offer]]
  name = "small"
  action = ["pay"]
  resource = "invoices/*"
  ttl = 30
"#;

/// The role `dev` may search, `clerk` may pay; an operator of the machine approves anything but the role `root`.
pub const POLICIES: &str = r#"
@id("search") permit (principal in Obol::Role::"dev", action == Obol::Action::"use", resource == Obol::Tool::"search");
@id("pay") permit (principal in Obol::Role::"clerk", action == Obol::Action::"use", resource == Obol::Tool::"pay");
@id("ahead") permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource);
@id("operators") permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource)
  when { !context.roles.contains(Obol::Role::"root") };
"#;

/// A command of the binary in a home, and what it says.
pub fn command_in(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

/// Writes a folder of policies: its catalogue, and one file of policies.
pub fn write_policy(folder: &Path, catalogue: &str, policies: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("catalogue.toml"), catalogue).unwrap();
    std::fs::write(folder.join("policies.cedar"), policies).unwrap();
}

/// An `obol as`, running or not; killed when dropped.
pub struct AsProcess {
    home: PathBuf,
    origin: String,
    port: u16,
    probes: u16,
    arguments: Vec<String>,
    binary: &'static Path,
    child: Option<Child>,
}

impl AsProcess {
    /// Starts one with the usual policy in `home` and waits until it is ready.
    pub fn start(home: &Path) -> Self {
        write_policy(&home.join("policy"), CATALOGUE, POLICIES);
        Self::start_with(home, &["--policy", "policy"])
    }

    /// The same with the usual policy and these arguments.
    pub fn start_audited(home: &Path, arguments: &[&str]) -> Self {
        write_policy(&home.join("policy"), CATALOGUE, POLICIES);
        Self::start_with(home, arguments)
    }

    /// The same with these arguments.
    pub fn start_with(home: &Path, arguments: &[&str]) -> Self {
        let mut service = Self::unstarted(home, arguments);
        service.start_again();
        service
    }

    /// One that does not run yet.
    pub fn unstarted(home: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let (port, probes) = (free_port(), free_port());
        let origin = format!("http://127.0.0.1:{port}");
        Self { home: home.to_owned(), origin, port, probes, arguments, binary: obol(), child: None }
    }

    /// From here on it is the build that speaks to identity providers.
    #[must_use]
    pub fn with_people(mut self) -> Self {
        self.binary = obol_with_people();
        self
    }

    /// From here on it is known as this, and has these arguments as well.
    pub fn call_it(&mut self, origin: &str, arguments: &[&str]) {
        self.arguments.extend(["--origin", origin].iter().chain(arguments).map(ToString::to_string));
        self.origin = origin.to_owned();
    }

    /// Starts it, and waits until it is ready.
    pub fn start_again(&mut self) {
        self.start_once(&[]);
    }

    /// The same, this time with these arguments as well.
    pub fn start_once(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "it runs");
        self.child = Some(self.command().args(arguments).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz") != 200 {
            let status = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(status.is_none(), "obol as ended ({status:?}): {}", self.log());
            assert!(Instant::now() < deadline, "obol as is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = command_of(self.binary, &self.home);
        command.args(["--log", "info", "as", "--listen"]).arg(format!("127.0.0.1:{}", self.port));
        command.args(["--http", &format!("127.0.0.1:{}", self.probes)]).args(&self.arguments);
        // Tests ask more at once than an address may.
        command.env("OBOL_AS__ADDRESS_RATE", "0").stderr(Stdio::from(log));
        command
    }

    /// Starts it where it cannot start, and gives what came of it.
    pub fn fails(&self) -> (Option<i32>, String) {
        self.fails_with(&[])
    }

    /// The same, this time with these arguments as well.
    pub fn fails_with(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command().args(arguments).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
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
        self.signal("TERM");
        self.child.take()?.wait().unwrap().code()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Where its probes answer.
    pub fn probes(&self) -> u16 {
        self.probes
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What agents know it as.
    pub fn origin(&self) -> String {
        self.origin.clone()
    }

    /// The service with its key, as agents pin it.
    pub fn pin(&self) -> String {
        let output = self.operate(&["as", "key", "--pin", "--origin", &self.origin()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Where its operator is answered.
    pub fn control_socket(&self) -> PathBuf {
        self.home.join("run/obol/as-control.sock")
    }

    /// A command of its operator.
    pub fn operate(&self, arguments: &[&str]) -> Output {
        command(&self.home).args(arguments).output().unwrap()
    }

    /// A command of its operator that must succeed, and what it says as JSON.
    pub fn told(&self, arguments: &[&str]) -> Value {
        let output = self.operate(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The status of a `GET` at the probes; 0 where nothing answers.
    pub fn get(&self, path: &str) -> u16 {
        Http::new(self.probes).get(path).map_or(0, |(status, _)| status)
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> String {
        Http::new(self.probes).get("/metrics").map_or_else(String::new, |(_, text)| text)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits for a line of the log.
    pub fn wait_for_log(&self, text: &str) {
        crate::home::wait_until(text, || self.log().contains(text));
    }

    fn log_file(&self) -> PathBuf {
        self.home.join(format!("as-{}.log", self.port))
    }
}

impl Drop for AsProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A settings file in a home.
pub fn write_settings(home: &Path, text: &str) {
    let folder = home.join(".config/obol");
    std::fs::create_dir_all(&folder).unwrap();
    write_private(&folder.join("obol.toml"), text);
}
