//! The first start, keys, signals, and what is left of the process.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;

use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, command, wait_until};
use serde_json::Value;

use super::Agent;
use crate::cli::{stderr, stdout};

#[test]
fn the_first_start_makes_keys_that_only_its_user_reads_and_shows_the_public_one() {
    let home = home::home();
    let before = command(home.path()).args(["as", "key"]).output().unwrap();
    assert_eq!(before.status.code(), Some(2), "{before:?}");
    assert!(stderr(&before).contains("its first start"), "{before:?}");
    let service = AsProcess::start(home.path());
    let state = home.path().join(".local/state/obol");
    for file in ["authority.redb", "as-master.key", "as-identity.key"] {
        let mode = fs::metadata(state.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let socket = fs::metadata(service.control_socket()).unwrap().permissions().mode();
    assert_eq!(socket & 0o777, 0o600);
    let key: Value = serde_json::from_slice(
        &service.operate(&["as", "key", "--json", "--origin", &service.origin()]).stdout,
    )
    .unwrap();
    let status = service.told(&["as", "status"]);
    assert_eq!((&status["pin"], &status["words"]), (&key["pin"], &key["words"]));
    assert!(service.log().contains(key["words"].as_str().unwrap()), "{}", service.log());
    assert_eq!(key["pin"], service.pin());
    let private = fs::read_to_string(state.join("as-identity.key")).unwrap();
    assert!(!service.log().contains(private.trim()) && !key.to_string().contains(private.trim()));
}

#[test]
fn neither_key_is_made_anew_beside_the_directory() {
    for key in ["as-master.key", "as-identity.key"] {
        let home = home::home();
        let mut service = AsProcess::start(home.path());
        assert_eq!(service.terminate(), Some(0));
        let path = home.path().join(".local/state/obol").join(key);
        fs::rename(&path, home.path().join("aside")).unwrap();
        for _ in 0..2 {
            let (code, said) = service.fails();
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains(key) && said.contains("put the key back"), "{said}");
            assert!(!path.exists());
        }
        fs::rename(home.path().join("aside"), &path).unwrap();
        service.start_again();
    }
}

#[test]
fn a_directory_is_not_begun_anew_beside_the_services_key() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    assert_eq!(service.terminate(), Some(0));
    let state = home.path().join(".local/state/obol");
    fs::rename(state.join("authority.redb"), home.path().join("aside")).unwrap();
    for emptied in [false, true] {
        if emptied {
            home::write_private(&state.join("authority.redb"), "");
        }
        let (code, said) = service.fails();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("authority.redb") && said.contains("Put the directory back"), "{said}");
    }
    // Whoever moves the key away as well starts over.
    fs::rename(state.join("as-identity.key"), home.path().join("old.key")).unwrap();
    service.start_again();
}

#[test]
fn a_directory_sealed_under_another_key_is_refused_untouched() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    Agent::approved(&service, home.path(), "builder");
    assert_eq!(service.terminate(), Some(0));
    let state = home.path().join(".local/state/obol");
    let before = fs::read(state.join("as-master.key")).unwrap();
    home::write_private(&state.join("as-master.key"), &"0".repeat(64));
    let (code, said) = service.fails();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("another master key"), "{said}");
    home::write_private(&state.join("as-master.key"), &String::from_utf8(before).unwrap());
    service.start_again();
    assert_eq!(service.told(&["agent", "show", "builder"])["agent"]["state"], "active");
}

#[test]
fn the_master_key_may_be_a_credential_of_the_service_manager() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let credentials = home.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    home::write_private(&credentials.join("obol-as-master-key"), &"5a".repeat(32));
    let service = AsProcess::unstarted(home.path(), &["--policy", "policy"]);
    let mut child = service.command().env("CREDENTIALS_DIRECTORY", &credentials).spawn().unwrap();
    wait_until("readiness", || service.get("/readyz") == 200);
    assert!(service.log().contains("a credential from the service manager"), "{}", service.log());
    assert!(!home.path().join(".local/state/obol/as-master.key").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_process_is_closed_to_others_and_says_so() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    service.wait_for_log("listening");
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "on every thread, which the first one stands for");
    for thread in fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
}

#[test]
fn a_hangup_reads_the_policy_again_and_a_bad_one_changes_nothing() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let epoch = || service.told(&["as", "status"])["policyEpoch"].as_u64().unwrap();
    assert_eq!(epoch(), 1);
    let more = POLICIES.replace("Role::\"dev\"", "Role::\"dave\"");
    write_policy(
        &home.path().join("policy"),
        CATALOGUE,
        &format!("{POLICIES}\n@id(\"x\") permit (principal, action"),
    );
    service.signal("HUP");
    service.wait_for_log("the policy stays as it was");
    assert_eq!(epoch(), 1);
    write_policy(&home.path().join("policy"), CATALOGUE, &more);
    service.signal("HUP");
    wait_until("the new policy", || epoch() == 2);
    service.signal("HUP");
    service.wait_for_log("is unchanged");
    assert_eq!(epoch(), 2, "the same again raises nothing");
}

#[test]
fn a_service_manager_hears_of_start_reload_and_end() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(home::PATIENCE)).unwrap();
    let hear = |what: &str| {
        let mut heard = [0; 256];
        loop {
            let length = manager.recv(&mut heard).unwrap();
            if String::from_utf8_lossy(&heard[..length]).starts_with(what) {
                return;
            }
        }
    };
    let service = AsProcess::unstarted(home.path(), &["--policy", "policy"]);
    let mut child =
        service.command().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").spawn().unwrap();
    hear("READY=1");
    hear("WATCHDOG=1");
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("HUP");
    hear("RELOADING=1");
    hear("READY=1");
    signal("TERM");
    hear("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn every_approval_session_and_end_is_in_the_audit_log_or_is_not_made() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let service =
        AsProcess::start_with(home.path(), &["--policy", "policy", "--audit-log", "as-audit.jsonl"]);
    let (mut agent, id) = Agent::approved(&service, home.path(), "builder");
    agent.open().unwrap();
    service.told(&["agent", "disable", "builder", "--reason", "a drill"]);
    service.told(&["policy", "history"]);
    let log = home.path().join("as-audit.jsonl");
    let written = || fs::read_to_string(&log).unwrap();
    wait_until("the line of the end", || written().contains("\"disable\""));
    let lines: Vec<Value> = written().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |event: &str| lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{event}"));
    assert_eq!(of("approve")["agent"], id.as_str());
    assert!(of("approve")["client"].as_str().unwrap().starts_with("local:"), "{}", of("approve"));
    assert_eq!(of("session_open")["agent"], id.as_str());
    assert_eq!(of("disable")["reason"], "a drill");
    assert_eq!(of("policy")["epoch"], 1);
    let key = home.path().join(".local/state/obol/as-audit.key");
    let verified = command(home.path())
        .args(["audit", "verify", "as-audit.jsonl", "--master-key"])
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}{}", stdout(&verified), stderr(&verified));
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b"{}\n").unwrap();
    let forged = command(home.path())
        .args(["audit", "verify", "as-audit.jsonl", "--master-key"])
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(forged.status.code(), Some(1), "the control");
}
