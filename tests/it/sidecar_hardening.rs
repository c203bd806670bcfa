//! What the daemon closes itself to, and where its master key may come from.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use linux_keyutils::{KeyRing, KeyRingIdentifier};
use obol_sandbox::{Measure, Sandbox};

use crate::process::{self, Tqs, command, obol};
use crate::sidecar::{PATIENCE, start, start_as, tool};

const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;
/// Tells a copy of this test program what to try in the sandbox.
const PROBE: &str = "OBOL_TEST_SANDBOX_PROBE";
const FOLDER: &str = "OBOL_TEST_SANDBOX_FOLDER";

#[test]
fn the_daemon_is_closed_to_others_on_every_thread_and_says_so() {
    let home = process::home();
    let tqs = start(home.path());
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    for (field, expected) in
        [("Umask", "0077"), ("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "2")]
    {
        let threads = tqs.status_of_threads(field);
        assert!(threads.len() >= 3, "the loop, the writer and the refiller");
        assert!(threads.iter().all(|value| value == expected), "{field}: {threads:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", tqs.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let log = tqs.log();
    for measure in ["umask", "core dumps", "dumpable", "locked memory", "descriptors", "landlock", "seccomp"]
    {
        assert!(log.contains(&format!("measure=\"{measure}\"")), "{measure} is not in the log: {log}");
    }
}

#[test]
fn the_sandbox_can_be_switched_off_and_that_is_said_aloud() {
    let home = process::home();
    let tqs = start_as(home.path(), &["--no-sandbox"], |_| {});
    assert!(tqs.status_of_threads("Seccomp").iter().all(|value| value == "0"));
    assert!(tqs.log().contains("WARN") && tqs.log().contains("the sandbox is switched off"), "{}", tqs.log());
    drop(tqs);
    let home = process::home();
    let tqs = start_as(home.path(), &[], |command| {
        command.env("OBOL_TQS__SANDBOX", "false");
    });
    assert!(tqs.log().contains("the sandbox is switched off"));
}

#[test]
fn what_the_sandbox_denies_is_denied_and_what_the_daemon_needs_is_not() {
    if let Some(probe) = std::env::var_os(PROBE) {
        return try_in_the_sandbox(probe.to_str().unwrap());
    }
    for probe in ["needed", "read", "write", "tcp", "root", "thread"] {
        let ended = run_probe(probe);
        assert!(ended.success(), "{probe}: {ended}");
    }
    assert_eq!(run_probe("exec").signal(), Some(SIGSYS), "who runs a program is ended");
    // The control: without a sandbox the same things work, so it is the sandbox that denies them.
    for probe in ["read", "write", "root", "thread"] {
        assert!(!run_probe(&format!("control-{probe}")).success(), "{probe} is denied to everybody here");
    }
    assert!(run_probe("control-exec").success());
}

fn run_probe(probe: &str) -> ExitStatus {
    let folder = tempfile::tempdir().unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sidecar_hardening::what_the_sandbox_denies_is_denied_and_what_the_daemon_needs_is_not",
        ])
        .arg("--test-threads=1")
        .env(PROBE, probe)
        .env(FOLDER, folder.path())
        .output()
        .unwrap()
        .status
}

fn try_in_the_sandbox(probe: &str) {
    let folder = std::env::var_os(FOLDER).map(std::path::PathBuf::from).unwrap();
    let (mine, others) = (folder.join("mine"), folder.join("others"));
    for folder in [&mine, &others] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("there"), "text").unwrap();
    }
    let probe = match probe.strip_prefix("control-") {
        Some(probe) => probe,
        None => {
            let measures = Sandbox::new().write(&mine).read(others.join("nothing here")).enter();
            assert!(measures.iter().all(Measure::is_on), "{measures:?}");
            probe
        }
    };
    let denied = |outcome: std::io::Result<()>| {
        assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    };
    match probe {
        "needed" => {
            fs::write(mine.join("new"), "text").unwrap();
            assert_eq!(fs::read_to_string(mine.join("there")).unwrap(), "text");
            fs::File::open(&mine).unwrap().sync_all().unwrap();
            let _socket = std::os::unix::net::UnixListener::bind(mine.join("socket")).unwrap();
            std::os::unix::net::UnixStream::connect(mine.join("socket")).unwrap();
            fs::remove_file(mine.join("socket")).unwrap();
            std::thread::spawn(|| ()).join().unwrap();
        }
        "read" => denied(fs::read(others.join("there")).map(drop)),
        "write" => denied(fs::write(others.join("new"), "text")),
        "thread" => std::thread::spawn(move || denied(fs::read("/etc/passwd").map(drop))).join().unwrap(),
        "tcp" => denied(TcpStream::connect("127.0.0.1:9").map(drop)),
        "root" => denied(rustix::process::chroot("/").map_err(Into::into)),
        "exec" => panic!("not executed: {}", Command::new("/bin/true").exec()),
        other => panic!("no such probe: {other}"),
    }
}

#[test]
fn a_crash_leaves_no_core_file_even_where_the_user_asks_for_them() {
    let run = |home: &Path, arguments: &[&std::ffi::OsStr]| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$@\"", "sh"])
            .args(arguments)
            .current_dir(home);
        shell.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
        shell
    };
    let home = process::home();
    let control =
        run(home.path(), &["sh".as_ref(), "-c".as_ref(), "kill -ABRT $$".as_ref()]).status().unwrap();
    if !control.core_dumped() {
        eprintln!(
            "NOTE: this machine dumps no cores even if asked (ulimit -Hc, core_pattern); less is shown"
        );
    }
    let tqs = Tqs::run(home.path(), run(home.path(), &[obol().as_os_str(), "tqs".as_ref()]));
    // Not SIGSEGV: the runtime catches that, to tell a stack overflow.
    tqs.signal("ABRT");
    let ended = tqs.wait_for_status();
    assert_eq!(ended.signal(), Some(SIGABRT));
    assert!(!ended.core_dumped());
}

#[test]
fn nobody_of_the_same_user_can_look_into_the_daemon() {
    let home = process::home();
    if fs::metadata(home.path()).unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can run the daemon as another user; run this test as root");
        return;
    }
    const NOBODY: u32 = 65_534;
    // Where that user can reach it, whatever the build folder's permissions are.
    let binary = home.path().join("obol");
    fs::copy(obol(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [home.path().to_owned(), home.path().join("run")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut daemon = Command::new(&binary);
    daemon.arg("tqs").env_clear().env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path().join("run"));
    daemon.current_dir(home.path()).uid(NOBODY).gid(NOBODY);
    let tqs = Tqs::spawn_command(&mut daemon, home.path());
    // Not asked whether it answers: a client does not talk to another user's daemon.
    tqs.wait_for_log("serving /livez");
    for file in ["environ", "maps", "mem"] {
        let path = format!("/proc/{}/{file}", tqs.pid());
        let mut look = Command::new("cat");
        let seen = look.arg(&path).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
        assert!(!seen.status.success() && seen.stdout.is_empty(), "{file} can be read: {seen:?}");
    }
    let mut control = Command::new("sh");
    let control =
        control.args(["-c", "cat /proc/$$/maps"]).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
    assert!(control.status.success(), "one's own ordinary process can be looked into");
}

fn hex_key(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

#[test]
fn the_master_key_may_be_a_credential_of_the_service_manager() {
    let home = process::home();
    let folder = home.path().join("credentials");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("obol-master-key");
    let with_credentials = |command: &mut Command| {
        command.env("CREDENTIALS_DIRECTORY", &folder);
    };
    process::write_private(&file, &hex_key('a'));
    let tqs = start_as(home.path(), &[], with_credentials);
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    assert!(tqs.log().contains("a credential of the service manager"));
    assert!(!home.path().join(".local/state/obol/master.key").exists(), "no key file beside it");
    drop(tqs);

    let refused = |text: &str, mode: u32, says: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut daemon = command(home.path());
        let output = daemon.arg("tqs").env("CREDENTIALS_DIRECTORY", &folder).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(says), "{message}");
        assert!(!message.contains(&hex_key('b')[..16]), "{message}");
    };
    refused(&hex_key('b'), 0o604, "must be closed to others");
    refused("too short", 0o400, "64 lower-case hex digits");
    refused(&hex_key('b'), 0o400, "");
}

#[test]
fn the_master_key_may_be_in_the_keyring_and_falls_back_to_a_file_where_it_is_not() {
    let home = process::home();
    let name = format!("obol-test-{}", std::process::id());
    let in_keyring = |command: &mut Command| {
        command.env("OBOL_TQS__KEYCHAIN", &name);
    };
    let file = home.path().join(".local/state/obol/master.key");
    let ring = KeyRing::from_special_id(KeyRingIdentifier::Session, false);
    let added = ring.and_then(|ring| ring.add_key(&name, &hex_key('c')));
    match added {
        Err(error) => eprintln!("SKIPPED IN PART: this system has no keyring to put a key into: {error}"),
        Ok(key) => {
            let tqs = start_as(home.path(), &[], in_keyring);
            assert!(tqs.log().contains("the master key is in the keyring"), "{}", tqs.log());
            assert!(!file.exists(), "no key file beside it");
            drop(tqs);
            key.invalidate().unwrap();
        }
    }
    let home = process::home();
    let tqs = start_as(home.path(), &[], in_keyring);
    assert!(tqs.log().contains("WARN"), "{}", tqs.log());
    assert!(tqs.log().contains("keyring"), "{}", tqs.log());
    assert_eq!(fs::read_to_string(home.path().join(".local/state/obol/master.key")).unwrap().len(), 65);
    let _ = std::io::stdout().flush();
}
