//! What every process here needs: the binary of this tree, a home that is its own, files that others cannot read, a port,
//! and patience.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use obol_queue::MasterKey;

/// How long to wait for what must come, even on a crowded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary of this very tree. Whoever has built it already names it in `OBOL_BINARY`; else it is built, which takes no time
/// where it is there, but Cargo half a second to find out, for each test.
pub fn obol() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("OBOL_BINARY") {
        Some(named) => {
            let named = PathBuf::from(named);
            assert!(named.is_file(), "OBOL_BINARY names {}, which is not there", named.display());
            named
        }
        None => built(&["--package", "obol", "--bin", "obol"]).join("obol"),
    })
}

/// An example of this tree, from the same build as the binary.
pub fn example(name: &str, what: &[&str]) -> PathBuf {
    let folder = match std::env::var_os("OBOL_BINARY") {
        Some(named) => Path::new(&named).parent().unwrap().to_owned(),
        None => built(&[what, &["--example", name]].concat()),
    };
    folder.join("examples").join(name)
}

/// The same binary, which can also speak to identity providers.
pub fn obol_with_people() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| example("obol-people", &["--package", "obol", "--features", "people"]))
}

/// Builds something of this tree; the folder of the profile that this test was built with.
fn built(what: &[&str]) -> PathBuf {
    // target/<profile>/deps/it-… → target/<profile>
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet"]).args(what);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    assert!(build.status().unwrap().success(), "cannot build {what:?}");
    folder
}

/// A command of the binary that sees none of this machine's own settings.
pub fn command(home: &Path) -> Command {
    command_of(obol(), home)
}

/// The same of this binary.
pub fn command_of(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).current_dir(home);
    command.stdin(Stdio::null());
    command
}

/// A command of the binary in which a write beyond a limit of the process fails, as on a full disk, instead of ending it:
/// a signal that is ignored stays so in whatever a shell becomes.
pub fn limitable(home: &Path) -> Command {
    let mut command = Command::new("/bin/bash");
    command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).current_dir(home);
    command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(obol()).stdin(Stdio::null());
    command
}

/// From here on this process cannot make a file longer than so many bytes; `None` lifts that.
pub fn limit_files(pid: u32, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(pid.try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Waits for a condition that must come true, or fails.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago.
///
/// Below the range that the system gives to clients, and with a beginning of its own for each process: a server that is
/// killed and started again must find its port free.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(31);
    let number = || FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
    let candidate = || u16::try_from(number()).unwrap();
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    core::iter::repeat_with(candidate).take(PORTS as usize).find(free).expect("no port is free")
}

/// A folder that can be a home: closed to others, with a runtime folder.
pub fn home() -> tempfile::TempDir {
    use std::os::unix::fs::DirBuilderExt;
    let home = tempfile::tempdir().unwrap();
    std::fs::DirBuilder::new().mode(0o700).create(home.path().join("run")).unwrap();
    home
}

/// Writes a file that others cannot read.
pub fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A folder with the paths of a store in it.
pub struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("tokens.redb")
    }

    pub fn master_key(&self) -> MasterKey {
        MasterKey::load_or_create(self.path("master.key")).unwrap()
    }
}
