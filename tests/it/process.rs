//! The real `obol` binary as a child process that a test starts, talks to and kills.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use obol_ipc::value::PeerName;
use obol_ipc::{Client, ConnectOptions, ControlClient, Endpoint};

/// The binary of this very tree, built once for each test process; building what is built already takes no time.
pub(crate) fn obol() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built(&["--package", "obol", "--bin", "obol"]).join("obol"))
}

/// Builds something of this tree; the folder of the profile that this test was built with.
pub(crate) fn built(what: &[&str]) -> PathBuf {
    // target/<profile>/deps/it-… → target/<profile>
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet"]).args(what);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    assert!(build.status().unwrap().success(), "cannot build {what:?}");
    folder
}

/// A command of the binary that sees none of this machine's own settings.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(obol());
    command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).current_dir(home);
    command.stdin(Stdio::null());
    command
}

/// A command of the binary in which a write beyond a limit of the process fails, as on a full disk, instead of ending it:
/// a signal that is ignored stays so in whatever a shell becomes.
pub(crate) fn limitable(home: &Path) -> Command {
    let mut command = Command::new("/bin/bash");
    command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).current_dir(home);
    command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(obol()).stdin(Stdio::null());
    command
}

/// From here on this process cannot make a file longer than so many bytes; `None` lifts that.
pub(crate) fn limit_files(pid: u32, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(pid.try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// A running `obol tqs`, killed when dropped.
pub(crate) struct Tqs {
    child: Child,
    home: PathBuf,
}

impl Tqs {
    /// Starts the daemon in a home of its own and waits until it answers.
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_as(home, arguments, |_| {})
    }

    /// The same, after `prepare` has had the command.
    pub(crate) fn start_as(home: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(home);
        command.arg("tqs").args(arguments);
        prepare(&mut command);
        Self::run(home, command)
    }

    /// Starts whatever becomes the daemon and waits until it answers.
    pub(crate) fn run(home: &Path, mut command: Command) -> Self {
        let mut tqs = Self::spawn_command(&mut command, home);
        tqs.wait_until_it_answers();
        tqs
    }

    /// Starts the daemon and does not wait for anything.
    pub(crate) fn spawn(home: &Path, arguments: &[&str]) -> Self {
        Self::spawn_command(command(home).arg("tqs").args(arguments), home)
    }

    /// As [`Self::spawn`], for a command that was prepared otherwise.
    pub(crate) fn spawn_command(command: &mut Command, home: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("tqs.log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        Self { child, home: home.to_owned() }
    }

    /// Waits until the daemon takes connections.
    pub(crate) fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_client().is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("obol tqs ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "obol tqs does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("tqs.log")).unwrap_or_default()
    }

    /// Waits until the log says this, or fails with what it says instead.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// One line of the daemon's state, such as `Umask`, of each of its threads.
    pub(crate) fn status_of_threads(&self, field: &str) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
        let line = |status: String| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::trim));
            line.unwrap_or_else(|| panic!("no {field}: {status}")).to_owned()
        };
        threads.map(Result::unwrap).filter_map(status).map(line).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::at(socket(&self.home)).unwrap()
    }

    fn options() -> ConnectOptions {
        ConnectOptions::new(PeerName::new("obol-tests/1").unwrap())
    }

    pub(crate) fn try_client(&self) -> Result<Client, obol_ipc::client::ConnectError> {
        Client::connect(self.endpoint(), Self::options())
    }

    pub(crate) fn client(&self) -> Client {
        self.try_client().unwrap()
    }

    pub(crate) fn control(&self) -> ControlClient {
        let endpoint = Endpoint::at(self.home.join("run/obol/control.sock")).unwrap();
        ControlClient::connect(endpoint, Self::options()).unwrap()
    }

    /// SIGKILL, as hard as a process can end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the daemon to end by itself, however it does.
    pub(crate) fn wait_for_status(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits for the daemon to end by itself; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
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

/// Waits for a condition that must come true, for a time that is long even on a crowded machine.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The agent's socket of a daemon at home here.
pub(crate) fn socket(home: &Path) -> PathBuf {
    home.join("run/obol/agent.sock")
}

/// A folder that can be a home: closed to others, with a runtime folder.
pub(crate) fn home() -> tempfile::TempDir {
    use std::os::unix::fs::DirBuilderExt;
    let home = tempfile::tempdir().unwrap();
    std::fs::DirBuilder::new().mode(0o700).create(home.path().join("run")).unwrap();
    home
}

/// Writes a file that others cannot read.
pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
