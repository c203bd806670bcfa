//! What the daemon closes itself to, and where its master key may come from.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use linux_keyutils::{KeyRing, KeyRingIdentifier};
use obol_world::home::{self, command, obol};
use obol_world::tqs::Tqs;

use crate::end_to_end::{self, Rs};
use crate::sidecar::{PATIENCE, start, start_as, tool};

const SIGABRT: i32 = 6;

#[test]
fn the_daemon_is_closed_to_others_on_every_thread_and_says_so() {
    let home = home::home();
    let tqs = start(home.path());
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    for (field, expected) in
        [("Umask", "0077"), ("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "4")]
    {
        let threads = tqs.status_of_threads(field);
        assert!(threads.len() >= 3, "the loop, the writer and the refiller");
        assert!(threads.iter().all(|value| value == expected), "{field}: {threads:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", tqs.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let line = hardening(&tqs.log());
    assert!(line.contains("form=\"one user\""), "{line}");
}

/// The one line of a log that says what is in force and what is missing, each measure in one of the two.
pub(crate) fn hardening(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| line.contains("hardening")).collect();
    let [line] = lines[..] else { panic!("not one line: {log}") };
    for measure in ["umask", "core dumps", "dumpable", "locked memory", "descriptors", "landlock", "seccomp"]
    {
        assert_eq!(line.matches(&format!("{measure}: ")).count(), 1, "{measure}: {line}");
    }
    let is_warning = line.contains("WARN");
    assert_eq!(is_warning, line.contains("missing="), "{line}");
    line.to_owned()
}

/// All threads of a process have these filters.
pub(crate) fn filters(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    let filters = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.map(|count| count.trim().to_owned())
    };
    threads.map(Result::unwrap).map(status).filter_map(filters).collect()
}

#[test]
fn the_resource_server_is_closed_on_every_thread_and_says_so() {
    let home = home::home();
    end_to_end::create_session(home.path());
    let rs = Rs::start(home.path(), &["--first-start"]);
    let threads = filters(rs.pid());
    assert!(threads.len() >= 3, "the runtime's and the spent set's: {threads:?}");
    assert!(threads.iter().all(|filters| filters == "4"), "{threads:?}");
    let log = fs::read_to_string(home.path().join("rs.log")).unwrap();
    let line = hardening(&log);
    assert!(line.contains("TCP, listening on 0"), "{line}");
}

#[test]
fn the_sandbox_can_be_switched_off_and_that_is_said_aloud() {
    let home = home::home();
    let tqs = start_as(home.path(), &["--no-sandbox"], |_| {});
    assert!(tqs.status_of_threads("Seccomp").iter().all(|value| value == "0"));
    assert!(tqs.log().contains("WARN") && tqs.log().contains("the sandbox is switched off"), "{}", tqs.log());
    drop(tqs);
    let home = home::home();
    let tqs = start_as(home.path(), &[], |command| {
        command.env("OBOL_TQS__SANDBOX", "false");
    });
    assert!(tqs.log().contains("the sandbox is switched off"));
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
    let home = home::home();
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
    let home = home::home();
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
    core::iter::repeat_n(digit, 64).collect()
}

#[test]
fn the_master_key_may_be_a_credential_of_the_service_manager() {
    let home = home::home();
    let folder = home.path().join("credentials");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("obol-master-key");
    let with_credentials = |command: &mut Command| {
        command.env("CREDENTIALS_DIRECTORY", &folder);
    };
    home::write_private(&file, &hex_key('a'));
    let tqs = start_as(home.path(), &[], with_credentials);
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    assert!(tqs.log().contains("a credential from the service manager"));
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
    let home = home::home();
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
    let home = home::home();
    let tqs = start_as(home.path(), &[], in_keyring);
    assert!(tqs.log().contains("WARN"), "{}", tqs.log());
    assert!(tqs.log().contains("keyring"), "{}", tqs.log());
    assert_eq!(fs::read_to_string(home.path().join(".local/state/obol/master.key")).unwrap().len(), 65);
    let _ = std::io::stdout().flush();
}
