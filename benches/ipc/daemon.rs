//! The real daemon as a child process.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::names::PeerName;
use obol_world::AUDIENCE;
use obol_world::halves::AgentSession;

use crate::text;

/// Makes a token of suite 2, which is minted fast, as long as one of suite 1 with an ordinary scope.
const RESOURCE: &str = "docs/of/the/organisation/and/all/that/is/in/it/whatever/it/is/called/**";
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Minting a run's tokens takes a second on a quiet machine.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// The binary of this tree, built as it is shipped to who builds it.
pub(crate) fn obol() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        // target/<profile>/deps/ipc-… → target/<profile>/obol
        let own = std::env::current_exe().expect("our own path");
        let folder = own.parent().and_then(Path::parent).expect("a target folder");
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "obol", "--bin", "obol"]).current_dir(root);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "cannot build the obol binary");
        folder.join("obol")
    })
}

/// A running `obol tqs`; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    /// Starts it on the files in `folder`, with `ready` tokens of that suite to be kept in memory for each tool, without
    /// rate limits.
    pub(crate) fn start(folder: &Path, suite: u8, tools: &[&str], ready: u16) -> Self {
        let mut command = Command::new(obol());
        command.env_clear().env("HOME", folder).current_dir(folder);
        for (name, value) in [("BATCH", ready), ("MAX_READY", ready), ("MAX_DEPTH", ready)] {
            command.env(format!("OBOL_TQS__{name}"), value.to_string());
        }
        command.env("OBOL_TQS__CONNECTION_RATE", "0").env("OBOL_TQS__USER_RATE", "0");
        command.args(["--log", "warn", "tqs", "--socket", &text(folder, "run/agent.sock")]);
        command.args(["--control-socket", &text(folder, "run/control.sock")]);
        if !tools.is_empty() {
            write_session(folder, suite, tools);
            command.args(["--session", &text(folder, "session.json")]);
        }
        let child = command.stdin(Stdio::null()).spawn().expect("the daemon starts");
        obol_benches::rows::count_as_ours(child.id());
        let mut daemon = Self { child, folder: folder.to_owned() };
        let deadline = Instant::now() + START_PATIENCE;
        while daemon.try_client().is_none() {
            let ended = daemon.child.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < deadline, "the daemon does not answer: {ended:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("run/agent.sock")
    }

    /// In the binary form, as the sizes of the echo are.
    fn options() -> ConnectOptions {
        let options = ConnectOptions::new(PeerName::new("obol-benches/1").expect("a name"));
        ConnectOptions { codec: Codec::Bincode, ..options }
    }

    fn try_client(&self) -> Option<Client> {
        Client::connect(Endpoint::at(self.socket()).ok()?, Self::options()).ok()
    }

    pub(crate) fn client(&self) -> Client {
        self.try_client().expect("the daemon answers")
    }

    /// Waits until that many tokens are in memory in all. Nothing is drawn meanwhile: what a tool gets ahead of its first
    /// use is what was asked for, and after that what its use calls for.
    pub(crate) fn wait_until_ready(&self, tokens: u64) {
        let endpoint = Endpoint::at(self.folder.join("run/control.sock")).expect("a path");
        let mut control = ControlClient::connect(endpoint, Self::options()).expect("the operator's socket");
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let status = control.status().expect("a status");
            let ready: u64 = status.tools.iter().map(|tool| tool.ready).sum();
            if ready >= tokens && status.tools.iter().all(|tool| !tool.renewal_pending) {
                return;
            }
            assert!(Instant::now() < deadline, "{ready} of {tokens} tokens are ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the thread that serves its sockets has taken of a processor, in nanoseconds.
    pub(crate) fn processor_time(&self) -> f64 {
        let told =
            std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).unwrap_or_default();
        let taken = told.split_whitespace().next().and_then(|taken| taken.parse().ok());
        taken.expect("Linux tells")
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kilobytes.expect("Linux tells") * 1024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn write_session(folder: &Path, suite: u8, tools: &[&str]) {
    let path = folder.join("session.json");
    if path.exists() {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let grants: Vec<_> = tools
        .iter()
        .map(|tool| serde_json::json!({"tool": tool, "aud": AUDIENCE, "action": "read", "resource": RESOURCE, "ttl": 3600}))
        .collect();
    let session = AgentSession { expires_at: now + 36_000, grants, ..AgentSession::new(7, now, &[]) };
    let mut document = session.agent_json();
    if let Some(fields) = document.as_object_mut() {
        let _usual = fields.insert("suite".to_owned(), suite.into());
    }
    let options = &mut std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let mut file = options.write(true).create_new(true).open(path).expect("a session file");
    std::io::Write::write_all(&mut file, document.to_string().as_bytes()).expect("written");
}
