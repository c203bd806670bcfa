//! The authenticator's audit log: what is in it, that no session is opened without it, and that no secret is in it.

use core::time::Duration;
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use obol_authority::id::UserCode;
use obol_ipc::auth::AuthState;
use obol_secret::key::Key32;
use obol_world::home::{command, limit_files, limitable, wait_until};
use serde_json::{Value, json};

use super::{Authenticator, SERVER, World, anna, moment};
use crate::sidecar::ask;

fn log(home: &Path) -> PathBuf {
    home.join("auth-audit.jsonl")
}

fn start(world: &World) -> Authenticator {
    Authenticator::start(world.path(), &["--url", &world.pinned(), "--audit-log", "auth-audit.jsonl"])
}

pub(super) fn get(home: &Path, path: &str) -> (u16, String) {
    ask(UnixStream::connect(home.join("run/obol/auth-http.sock")).unwrap(), &format!("GET {path}"))
}

fn lines(home: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log(home)).unwrap_or_default();
    // The last one may be on its way.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of(home: &Path, event: &str) -> Vec<Value> {
    lines(home).into_iter().filter(|line| line["event"] == event).collect()
}

/// Waits for the line of this event with this number, from one.
fn nth(home: &Path, event: &str, number: usize) -> Value {
    wait_until(event, || of(home, event).len() >= number);
    of(home, event).swap_remove(number - 1)
}

/// What the command says about the log, all of it checked.
fn verify(home: &Path) -> (Option<i32>, Value) {
    let output = command(home)
        .args(["audit", "verify", "--authenticator", "--json"])
        .env("OBOL_AUTHENTICATOR__AUDIT_LOG", log(home))
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), report)
}

/// Every key of the identity's file, and of the agent's sessions as the service knows them, as hex.
fn secrets(world: &World) -> Vec<String> {
    let state = world.path().join(".local/state/obol/authenticator");
    let key = Key32::load(state.join("identity.key")).unwrap();
    let sealed = std::fs::read(state.join("agent.identity")).unwrap();
    let plain = obol_secret::seal::open(&key.derive("obol-identity-file-v1"), b"obol-identity-v1", &sealed);
    let identity: Value = serde_json::from_slice(&plain.unwrap()).unwrap();
    let mut found = Vec::new();
    for session in world.sessions() {
        if let Some(half) = world.authority().directory().half(session.id, SERVER).unwrap() {
            texts(&serde_json::from_slice(&half.to_json()).unwrap(), &mut found);
        }
    }
    let public = found.len();
    texts(&identity, &mut found);
    assert!(
        public >= 3 && found.len() >= public + 3,
        "keys of sessions and of the identity: {}",
        found.len()
    );
    found.push(std::fs::read_to_string(state.join("audit.key")).unwrap().trim().to_owned());
    found.push(std::fs::read_to_string(state.join("identity.key")).unwrap().trim().to_owned());
    found
}

/// All texts of 32 bytes in hex.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            into.push(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(values) => values.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

#[test]
fn what_an_agent_goes_through_is_in_its_log_and_no_secret_is() {
    let world = World::new(900);
    let home = world.path();
    let tqs = world.tqs();
    let authenticator = start(&world);
    let first = world.register().session.unwrap().session_id.to_string();
    let agent = world.agent().id.to_string();
    let registered = nth(home, "register", 1);
    let subject = world.agent().identity.subject();
    assert_eq!(registered["scope"], format!("builder {subject}"), "{registered}");
    assert_eq!(registered["reason"], "a human has to approve it");
    let approved = nth(home, "approve", 1);
    assert_eq!((&approved["decision"], &approved["agent"]), (&json!("allow"), &json!(agent)));
    assert_eq!(approved["expires_at"], world.agent().expires_at);
    let opened = nth(home, "session_open", 1);
    assert_eq!((&opened["session"], &opened["agent"]), (&json!(first), &json!(agent)), "{opened}");
    let scope = opened["scope"].as_str().unwrap();
    assert!(scope.starts_with("suite 4: ") && scope.contains(&format!("search at {SERVER}")), "{scope}");

    // The service ends a session, then the agent, and lets it in again.
    let ends = obol_authority::directory::EndScope::Session(world.status().session.unwrap().session_id);
    world.authority().end(&ends, "a test of ends", &anna(), moment()).unwrap();
    let ended = nth(home, "session_end", 1);
    assert_eq!((&ended["session"], &ended["reason"]), (&json!(first), &json!("a test of ends")), "{ended}");
    assert_eq!(ended["agent"], agent);
    let second = nth(home, "session_open", 2)["session"].clone();
    world.disable();
    let disabled = nth(home, "disable", 1);
    assert_eq!((&disabled["agent"], &disabled["scope"]), (&json!(agent), &json!("SUSPENDED")));
    assert_eq!(nth(home, "session_end", 2)["session"], second);
    world.enable();
    assert_eq!(nth(home, "enable", 1)["agent"], agent);
    let third = nth(home, "session_open", 3)["session"].clone();

    // It is written down before the sidecar has it.
    world.wait_for("the sidecar has it", |status| status.state == AuthState::Authenticated);

    // An operator flushes the sidecar: the service is told, and nothing is opened until both resume.
    assert!(world.obol(&["flush", "--all", "--reason", "a drill"]).status.success());
    assert_eq!(nth(home, "hold", 1)["reason"], "a drill");
    assert_eq!(nth(home, "flush_told", 1)["reason"], "a drill");
    let ended = nth(home, "session_end", 3);
    assert_eq!((&ended["session"], &ended["reason"]), (&third, &json!("flushed")), "{ended}");
    assert!(world.obol(&["resume"]).status.success());
    nth(home, "resume", 1);
    world.enable();
    let fourth = nth(home, "session_open", 4)["session"].clone();
    world.wait_for("a session again", |status| status.state == AuthState::Authenticated);

    // A session that is found after a restart is named once more, and not opened.
    let secrets = secrets(&world);
    authenticator.kill();
    let authenticator = start(&world);
    let found = nth(home, "session_open", 5);
    assert_eq!((&found["session"], &found["reason"]), (&fourth, &json!("the sidecar had it already")));
    assert_eq!(authenticator.terminate(), Some(0));
    drop(tqs);

    let (code, report) = verify(home);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!((&report["sealed"], &report["head_checked"]), (&json!(true), &json!(true)), "{report}");
    let text = std::fs::read_to_string(log(home)).unwrap();
    for secret in &secrets {
        assert!(!text.contains(&secret[32..]), "a secret is in the log");
    }
    // Whoever changes it is found out.
    std::fs::write(log(home), text.replacen("a drill", "a thief", 1)).unwrap();
    assert_eq!(verify(home).0, Some(1));
}

#[test]
fn an_agent_that_no_human_lets_in_is_in_the_log_and_so_is_an_invitation() {
    let world = World::new(900);
    let home = world.path();
    let _tqs = world.tqs();
    let _authenticator = start(&world);
    let asked = world.obol_json(&["register", "--name", "builder", "--role", "dev", "--json"]);
    let code = UserCode::parse(asked["code"].as_str().unwrap()).unwrap();
    let review = world.authority().review(&code, moment()).unwrap();
    world.authority().deny(review.registration.id, false, &anna(), moment()).unwrap();
    let denied = nth(home, "approve", 1);
    assert_eq!((&denied["decision"], &denied["reason"]), (&json!("deny"), &json!("a human said no")));
    assert!(denied["scope"].as_str().unwrap().starts_with("IK:"), "{denied}");
    assert_eq!(of(home, "session_open").len(), 0);
}

#[test]
fn nothing_is_opened_that_cannot_be_written_down() {
    let world = World::new(900);
    let home = world.path();
    let _tqs = world.tqs();
    let mut command = limitable(home);
    command.args(["authenticator", "--url", &world.pinned(), "--audit-log", "auth-audit.jsonl"]);
    let authenticator = Authenticator::run(home, &mut command);
    world.register();
    nth(home, "session_open", 1);
    // The identity's file is smaller, and can be written all the same.
    let full = std::fs::metadata(log(home)).unwrap().len() + 100;
    let identity = home.join(".local/state/obol/authenticator/agent.identity");
    assert!(std::fs::metadata(identity).unwrap().len() < full);
    limit_files(authenticator.child.id(), Some(full));
    let opened = || world.authority().directory().last_session().unwrap();
    let mut refused = None;
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(2_500));
        let before = opened();
        let asked = world.obol(&["authenticate", "--json"]);
        if !asked.status.success() {
            assert_eq!(opened(), before, "the service was not even asked");
            refused = Some(asked);
            break;
        }
    }
    let refused = refused.expect("no session is opened unaudited");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("UNAVAILABLE") && told.contains("the audit log cannot be written"), "{told}");
    let (status, why) = get(home, "/readyz");
    assert!(status == 503 && why.contains("audit log"), "{status} {why}");
    let metrics = get(home, "/metrics").1;
    assert!(metrics.contains("\nobol_not_ready{reason=\"audit_log\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nobol_audit_state{state=\"suspended\"} 1\n"), "{metrics}");

    limit_files(authenticator.child.id(), None);
    wait_until("it goes on by itself", || world.obol(&["authenticate"]).status.success());
    wait_until("it is ready", || get(home, "/readyz").0 == 200);
    let ids = world.sessions().iter().map(|row| row.id.to_string()).collect::<BTreeSet<_>>();
    wait_until("every session that was opened is there", || {
        let written = of(home, "session_open");
        written.iter().map(|line| line["session"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
            == ids
    });
    assert_eq!(authenticator.terminate(), Some(0));
    assert_eq!(verify(home).0, Some(0));
}

#[test]
fn its_audit_key_is_not_made_anew_beside_its_log() {
    let world = World::new(900);
    let home = world.path();
    let pinned = world.pinned();
    let arguments = ["--url", &pinned, "--audit-log", "auth-audit.jsonl", "--audit-key", "audit.key"];
    let authenticator = Authenticator::start(home, &arguments);
    wait_until("its log begins", || !lines(home).is_empty());
    authenticator.kill();
    std::fs::rename(home.join("audit.key"), home.join("aside")).unwrap();
    for left in ["auth-audit.jsonl", "audit.key.audit"] {
        let again = command(home).arg("authenticator").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&again.stderr);
        assert_eq!(again.status.code(), Some(2), "{said}");
        assert!(said.contains(left) && !home.join("audit.key").exists(), "{said}");
        std::fs::remove_file(home.join(left)).unwrap();
    }
    // A key that was there while log and head are gone is said.
    std::fs::rename(home.join("aside"), home.join("audit.key")).unwrap();
    let authenticator = Authenticator::start(home, &arguments);
    let warning = "a new audit log begins beside an existing key";
    wait_until("it is said", || authenticator.log().contains(warning));
}
