//! A real `redis-server` as a child process that a test starts, talks to, kills and starts again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::home::{free_port, wait_until};

/// A server with a folder of its own, on a Unix socket and a loopback port; killed when dropped.
pub struct RedisServer {
    folder: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one without persistence, unless the arguments say otherwise, and waits until it answers.
    pub fn start(arguments: &[&str]) -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            child: None,
        };
        server.start_again();
        server
    }

    /// Starts it again, with what its folder holds.
    pub fn start_again(&mut self) {
        self.spawn(&[]);
        wait_until("redis-server answers", || {
            let answer = self.ask(&["PING"]);
            answer.contains("PONG") || answer.contains("NOAUTH")
        });
    }

    /// Starts it with more arguments and does not wait.
    pub fn spawn(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "it runs");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--enable-debug-command", "local", "--save", ""])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}); install it (Debian: apt-get install redis-server)"
            )
        }));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its append-only files are gone.
    pub fn lose_files(&self) {
        let _none = std::fs::remove_dir_all(self.append_only());
    }

    /// Keeps a copy of its append-only files.
    pub fn copy_files(&self) {
        copy_folder(&self.append_only(), &self.folder.path().join("copy"));
    }

    /// Puts the copy in the place of its append-only files.
    pub fn restore_files(&self) {
        self.lose_files();
        copy_folder(&self.folder.path().join("copy"), &self.append_only());
    }

    fn append_only(&self) -> PathBuf {
        self.folder.path().join("appendonlydir")
    }

    /// The file that `SAVE` writes.
    pub fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Its address: the Unix socket.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its address: the loopback port.
    pub fn tcp_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What it answers to a command; errors are answers too.
    pub fn ask(&self, words: &[&str]) -> String {
        let answer = cli(&self.socket()).args(words).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }

    /// Sends commands one behind the other, over one connection.
    pub fn ask_all(&self, commands: &[&[&str]]) {
        use std::io::Write as _;
        let mut cli = cli(&self.socket()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines: String = commands.iter().map(|words| words.join(" ") + "\n").collect();
        cli.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(cli.wait().unwrap().success());
    }

    /// Sends a command and does not wait for the answer.
    pub fn begin(&self, words: &[&str]) -> Child {
        cli(&self.socket()).args(words).stdout(Stdio::null()).spawn().unwrap()
    }

    /// A field of `INFO`.
    pub fn info(&self, section: &str, name: &str) -> String {
        let info = self.ask(&["INFO", section]);
        let prefix = format!("{name}:");
        info.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap_or_default().to_owned()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let _was_there = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn cli(socket: &Path) -> Command {
    let mut command = Command::new("redis-cli");
    command.arg("-s").arg(socket).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
