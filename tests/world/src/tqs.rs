//! A real `obol tqs` as a child process that a test starts, talks to and kills.

use core::time::Duration;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::names::PeerName;

use crate::home::{PATIENCE, command, wait_until};

/// A running `obol tqs`, killed when dropped.
pub struct Tqs {
    child: Child,
    home: PathBuf,
}

impl Tqs {
    /// Starts the daemon in a home of its own and waits until it answers.
    pub fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_as(home, arguments, |_| {})
    }

    /// The same, after `prepare` has had the command.
    pub fn start_as(home: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(home);
        command.arg("tqs").args(arguments);
        prepare(&mut command);
        Self::run(home, command)
    }

    /// Starts whatever becomes the daemon and waits until it answers.
    pub fn run(home: &Path, mut command: Command) -> Self {
        let mut tqs = Self::spawn_command(&mut command, home);
        tqs.wait_until_it_answers();
        tqs
    }

    /// Starts the daemon and does not wait for anything.
    pub fn spawn(home: &Path, arguments: &[&str]) -> Self {
        Self::spawn_command(command(home).arg("tqs").args(arguments), home)
    }

    /// As [`Self::spawn`], for a command that was prepared otherwise.
    pub fn spawn_command(command: &mut Command, home: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("tqs.log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        Self { child, home: home.to_owned() }
    }

    /// Waits until the daemon takes connections.
    pub fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.try_client().is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("obol tqs ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "obol tqs does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("tqs.log")).unwrap_or_default()
    }

    /// Waits until the log says this, or fails with what it says instead.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// One line of the daemon's state, such as `Umask`, of each of its threads.
    pub fn status_of_threads(&self, field: &str) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
        let line = |status: String| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::trim));
            line.unwrap_or_else(|| panic!("no {field}: {status}")).to_owned()
        };
        threads.map(Result::unwrap).filter_map(status).map(line).collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::at(socket(&self.home)).unwrap()
    }

    fn options() -> ConnectOptions {
        ConnectOptions::new(PeerName::new("obol-tests/1").unwrap())
    }

    pub fn try_client(&self) -> Result<Client, obol_client::ConnectError> {
        Client::connect(self.endpoint(), Self::options())
    }

    pub fn client(&self) -> Client {
        self.try_client().unwrap()
    }

    pub fn control(&self) -> ControlClient {
        let endpoint = Endpoint::at(self.home.join("run/obol/control.sock")).unwrap();
        ControlClient::connect(endpoint, Self::options()).unwrap()
    }

    /// SIGKILL, as hard as a process can end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the daemon to end by itself, however it does.
    pub fn wait_for_status(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits for the daemon to end by itself; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Tqs {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The agent's socket of a daemon at home here.
pub fn socket(home: &Path) -> PathBuf {
    home.join("run/obol/agent.sock")
}

/// Whether somebody listens behind a socket. Its file is there a moment earlier.
pub fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}
