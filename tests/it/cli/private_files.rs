//! Private files as whole processes meet them: pipes, dead mounts, links, and files of other users.

use core::time::Duration;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use obol_ipc::names::ToolName;
use obol_world::home::{self, wait_until, write_private};
use obol_world::now;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::tqs::{Tqs, is_served, socket};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::json;

/// How long a daemon may take to end; a reload may have begun to wait for a file.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Somebody who is neither root nor the user of the tests.
const NOBODY: u32 = 65_534;

/// A session document that grants one tool.
fn session(number: u64, tool: &str) -> String {
    let key = "11".repeat(32);
    json!({
        "obol_session": 1, "session_id": format!("{number:016x}"), "suite": 1, "agent_instance_id": "agent-1",
        "org_id": "example", "iss": "auth", "sub": "key", "established_at": now() - 10, "expires_at": now() + 3_600,
        "policy_epoch": 1,
        "resource_servers": [{"aud": "https://api", "K_session": key, "verifier_secret": key, "mutual_auth": key,
                              "SEK_PK": key}],
        "grants": [{"tool": tool, "aud": "https://api", "action": "read", "resource": "**"}],
    })
    .to_string()
}

fn draws(tqs: &Tqs, tool: &str) -> bool {
    let patience = Duration::from_secs(2);
    tqs.try_client()
        .is_ok_and(|mut client| client.dequeue_token(&ToolName::new(tool).unwrap(), patience).is_ok())
}

fn ends_in_time(tqs: Tqs) {
    let start = Instant::now();
    assert_eq!(tqs.terminate(), Some(0));
    assert!(start.elapsed() < END_PATIENCE, "{:?}", start.elapsed());
}

fn replace_by_a_pipe(file: &Path) {
    fs::remove_file(file).unwrap();
    make_a_pipe(file);
}

fn make_a_pipe(file: &Path) {
    mknodat(CWD, file, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// A daemon that is expected to end by itself, or to serve a socket; killed when dropped.
struct Started(Child);

impl Started {
    fn new(home: &Path, arguments: &[&str]) -> Self {
        Self(command(home, arguments).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it ends with, and what it says; it must end in time.
    fn ends(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < END_PATIENCE, "it waits for ever");
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap();
        (status.code(), said)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Ours by its handle; ended already is fine.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = home::command(home);
    command.args(arguments);
    command
}

/// A network mount that does not answer: a file system whose server is this process, which never does. Gone when dropped.
struct DeadMount {
    folder: PathBuf,
    _device: File,
}

impl DeadMount {
    /// `None` where only root could.
    fn over(folder: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: a mount that does not answer needs root and /dev/fuse");
            return None;
        }
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("dead", folder, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Some(Self { folder: folder.to_owned(), _device: device })
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        unmount(&self.folder, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_stops_neither_answers_nor_the_end() {
    let home = home::home();
    let place = |name: &str| home.path().join(name);
    for folder in ["a", "b"] {
        fs::create_dir(place(folder)).unwrap();
    }
    write_private(&place("a/obol.toml"), "[tqs]\nmax_ready = 30\n");
    write_private(&place("b/session.json"), &session(1, "search"));
    let tqs = Tqs::start(home.path(), &["--config", "a/obol.toml", "--session", "b/session.json"]);
    assert!(draws(&tqs, "search"));
    replace_by_a_pipe(&place("a/obol.toml"));
    replace_by_a_pipe(&place("b/session.json"));
    tqs.signal("HUP");
    tqs.wait_for_log("the previous settings stay in force");
    tqs.wait_for_log("the session was not provisioned");
    assert!(tqs.log().contains("a pipe (FIFO); it must be a regular file"), "{}", tqs.log());
    assert!(draws(&tqs, "search"));
    ends_in_time(tqs);
}

#[test]
fn a_pipe_in_the_place_of_the_servers_sessions_stops_neither_answers_nor_the_end() {
    let home = home::home();
    write_sessions(home.path(), now());
    let mut rs = RsProcess::start(home.path(), &["--spent", "memory", "--first-start"]);
    replace_by_a_pipe(&home.path().join("sessions.json"));
    let pid = rs.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait_until("the reload is given up", || {
        rs.log().contains("the sessions and templates stay as they were")
    });
    assert_eq!(rs.get("/readyz"), 200);
    let start = Instant::now();
    assert_eq!(rs.terminate(), Some(0));
    assert!(start.elapsed() < END_PATIENCE);
}

#[test]
fn a_mount_that_does_not_answer_stops_neither_answers_nor_the_end() {
    let home = home::home();
    let folder = home.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    write_private(&folder.join("session.json"), &session(1, "search"));
    let tqs = Tqs::start(home.path(), &["--session", "mounted/session.json"]);
    assert!(draws(&tqs, "search"));
    let Some(_mount) = DeadMount::over(&folder) else { return };
    tqs.signal("HUP");
    for _ in 0..3 {
        assert!(draws(&tqs, "search"));
    }
    tqs.wait_for_log("network mount");
    tqs.signal("HUP");
    ends_in_time(tqs);
    // Nor does a start wait for ever, and it says what is wrong.
    let start = Instant::now();
    let mut again = home::command(home.path());
    let output = again.args(["tqs", "--session", "mounted/session.json"]).output().unwrap();
    assert!(start.elapsed() < END_PATIENCE, "{:?}", start.elapsed());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("network mount"), "{message}");
}

#[test]
fn a_reload_sees_a_folder_that_was_swapped_behind_a_link_in_the_sandbox_too() {
    let home = home::home();
    let place = |name: &str| home.path().join("mounted").join(name);
    fs::create_dir(home.path().join("mounted")).unwrap();
    for (number, folder, tool) in [(1, "..1", "search"), (2, "..2", "pay")] {
        fs::create_dir(place(folder)).unwrap();
        write_private(&place(folder).join("session.json"), &session(number, tool));
    }
    symlink("..1", place("..data")).unwrap();
    symlink("..data/session.json", place("session.json")).unwrap();
    for named in ["mounted/session.json", "mounted/..data/session.json"] {
        let tqs = Tqs::start(home.path(), &["--session", named]);
        assert!(tqs.log().contains("landlock"), "{}", tqs.log());
        wait_until("the first session's tool", || draws(&tqs, "search"));
        symlink("..2", place("..tmp")).unwrap();
        fs::rename(place("..tmp"), place("..data")).unwrap();
        tqs.signal("HUP");
        wait_until("the second session's tool", || draws(&tqs, "pay"));
        assert_eq!(tqs.terminate(), Some(0));
        // As it was, with a store that has seen neither.
        fs::remove_dir_all(home.path().join(".local")).unwrap();
        symlink("..1", place("..tmp")).unwrap();
        fs::rename(place("..tmp"), place("..data")).unwrap();
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused_also_behind_a_link() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away; run this test as root");
        return;
    }
    let home = home::home();
    write_sessions(home.path(), now());
    let kept = ["--spent", "spent.redb", "--session-store", "kept.redb", "--session-key", "kept.key"];
    let arguments = [&kept[..], &["--first-start"]].concat();
    assert_eq!(RsProcess::start(home.path(), &arguments).terminate(), Some(0));
    for (option, name) in [
        ("--sessions", "sessions.json"),
        ("--spent", "spent.redb"),
        ("--session-store", "kept.redb"),
        ("--session-key", "kept.key"),
    ] {
        let theirs = home.path().join(format!("theirs-{name}"));
        fs::copy(home.path().join(name), &theirs).unwrap();
        fs::set_permissions(&theirs, Permissions::from_mode(0o600)).unwrap();
        chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
        let link = home.path().join(format!("link-{name}"));
        symlink(&theirs, &link).unwrap();
        for file in [&theirs, &link] {
            let mut command = home::command(home.path());
            command.args(["rs", "--listen", "127.0.0.1:0"]);
            for (flag, value) in [("--sessions", "sessions.json"), ("--spent", "spent.redb")]
                .into_iter()
                .chain([("--session-store", "kept.redb"), ("--session-key", "kept.key")])
            {
                command.arg(flag);
                if flag == option {
                    command.arg(file)
                } else {
                    command.arg(value)
                };
            }
            let output = command.output().unwrap();
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{option} {}", file.display());
            let named = message.contains("belongs to user 65534") || message.contains("symbolic link");
            assert!(named && message.contains(&file.display().to_string()), "{option}: {message}");
        }
    }
}

#[test]
fn a_pipe_in_the_place_of_a_lock_ends_a_start_with_words_and_nobody_waits() {
    let pin = format!("http://127.0.0.1:9#{}", "11".repeat(32));
    let tqs = ["tqs"];
    let kept = ["--sessions", "sessions.json", "--spent", "memory", "--first-start"];
    // The usual place would be done without.
    let control = "run/obol/rs-control.sock";
    let rs = [&["rs", "--listen", "127.0.0.1:0", "--rs-control-socket", control], &kept[..]].concat();
    let authenticator = ["authenticator", "--url", &pin];
    for (arguments, named, served) in [
        (&tqs[..], "run/obol/agent.sock.lock", "run/obol/agent.sock"),
        (&tqs, "run/obol/control.sock.lock", "run/obol/control.sock"),
        (&rs, "run/obol/rs-control.sock.lock", control),
        (&authenticator, "run/obol/auth.sock.lock", "run/obol/auth.sock"),
        (&authenticator, "run/obol/auth-control.sock.lock", "run/obol/auth-control.sock"),
        (&authenticator, ".local/state/obol/authenticator/agent.identity.lock", "run/obol/auth.sock"),
    ] {
        let home = home::home();
        write_sessions(home.path(), now());
        let lock = home.path().join(named);
        let folder = lock.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
        make_a_pipe(&lock);
        let (code, said) = Started::new(home.path(), arguments).ends();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains(&format!("{named} is a pipe (FIFO); it must be a regular file")), "{said}");
        // Nothing else was in the way.
        fs::remove_file(&lock).unwrap();
        let served = home.path().join(served);
        let _runs = Started::new(home.path(), arguments);
        wait_until("it serves its socket", || is_served(&served));
        assert!(lock.is_file());
    }
}

#[test]
fn a_pipe_in_the_place_of_a_running_daemons_lock_stops_neither_the_operator_nor_the_end() {
    let home = home::home();
    write_private(&home.path().join("session.json"), &session(1, "search"));
    let tqs = Tqs::start(home.path(), &["--session", "session.json"]);
    let agent = socket(home.path());
    let lock = agent.with_added_extension("lock");
    replace_by_a_pipe(&lock);
    fs::remove_file(&agent).unwrap();
    tqs.wait_for_log("the socket was removed or replaced");
    assert!(tqs.log().contains("a pipe (FIFO); it must be a regular file"), "{}", tqs.log());
    for arguments in [&["status"][..], &["flush", "--all", "--reason", "a test"]] {
        let (code, said) = Started::new(home.path(), arguments).ends();
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
    }
    // Without the pipe there is a socket again, at the next look.
    fs::remove_file(&lock).unwrap();
    wait_until("there is a new socket", || tqs.try_client().is_ok());
    replace_by_a_pipe(&lock);
    fs::remove_file(&agent).unwrap();
    wait_until("it is seen again", || tqs.log().matches("the socket was removed or replaced").count() == 2);
    ends_in_time(tqs);
}

#[test]
fn a_socket_that_takes_no_connection_is_in_use_and_nobody_waits_for_it() {
    let home = home::home();
    let agent = socket(home.path());
    fs::create_dir(agent.parent().unwrap()).unwrap();
    fs::set_permissions(agent.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    let address = SocketAddrUnix::new(&agent).unwrap();
    let new = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let full = new();
    rustix::net::bind(&full, &address).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let mut waiting = Vec::new();
    let refused = loop {
        let one = new();
        match rustix::net::connect(&one, &address) {
            Ok(()) => waiting.push(one),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Errno::AGAIN);
    let (code, said) = Started::new(home.path(), &["tqs"]).ends();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("is served by another process"), "{said}");
    // A dead one is taken away.
    drop((full, waiting));
    let tqs = Tqs::start(home.path(), &[]);
    assert_eq!(tqs.terminate(), Some(0));
}

#[test]
fn a_pipe_in_the_place_of_an_audit_log_ends_its_check_with_words() {
    let home = home::home();
    write_private(&home.path().join("session.json"), &session(1, "search"));
    let tqs = Tqs::start(home.path(), &["--session", "session.json", "--audit-log", "audit.jsonl"]);
    assert!(draws(&tqs, "search"));
    assert_eq!(tqs.terminate(), Some(0));
    let check = ["audit", "verify", "audit.jsonl"];
    let (code, said) = Started::new(home.path(), &check).ends();
    assert_eq!(code, Some(0), "{said}");
    replace_by_a_pipe(&home.path().join("audit.jsonl"));
    let (code, said) = Started::new(home.path(), &check).ends();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("audit.jsonl") && said.contains("a pipe (FIFO)"), "{said}");
}
