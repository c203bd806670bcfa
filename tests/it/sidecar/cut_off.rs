//! Cutting an agent off at the sidecar, as an operator does it: flush, hold, resume, deny, allow.

use core::time::Duration;
use std::path::Path;

use obol_ipc::control::FlushScope;
use obol_ipc::names::Reason;
use obol_ipc::refusal::ErrorCode;
use obol_world::halves::AgentSession;
use obol_world::home;
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::Value;

use super::{get, tool};
use crate::cli::{run, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(10);

/// Writes the sidecar's half of a session into a home; the file's name.
fn write_session(home: &Path, number: u64) -> String {
    let name = format!("session-{number}.json");
    home::write_private(
        &home.join(&name),
        &AgentSession::new(number, now(), &["search", "pay"]).agent_json().to_string(),
    );
    name
}

fn code(home: &Path, arguments: &[&str]) -> Option<i32> {
    run(home, arguments).status.code()
}

/// Starts a sidecar with session 1.
fn start(home: &Path) -> Tqs {
    let session = write_session(home, 1);
    Tqs::start(home, &["--session", &session, "--audit-log", "audit.jsonl"])
}

fn refused(tqs: &Tqs) -> ErrorCode {
    let error = tqs.client().dequeue_token(&tool("search"), Duration::ZERO).unwrap_err();
    error.refusal().unwrap().code()
}

#[test]
fn a_flush_that_matches_nothing_fails_and_lists_what_there_is() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    for (scope, lists) in [
        (["--tool", "serach"], "search"),
        (["--agent", "nobody-here"], "agent-1"),
        (["--session", "00000000000000ff"], "0000000000000001"),
    ] {
        let failed = run(home, &["flush", scope[0], scope[1], "--reason", "a drill"]);
        assert_eq!(failed.status.code(), Some(1), "{scope:?}");
        let said = stderr(&failed);
        assert!(said.contains(scope[1]) && said.contains(lists), "{said}");
    }
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    let second = write_session(home, 2);
    assert_eq!(code(home, &["session", "provision", &second]), Some(0), "a typing error holds nothing back");
    assert_eq!(code(home, &["flush", "--tool", "search", "--reason", "a drill"]), Some(0));
    assert_eq!(code(home, &["flush", "--agent", "agent-1", "--reason", "a drill"]), Some(0));
    let again = run(home, &["flush", "--session", "0000000000000001", "--reason", "a drill"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("was flushed before"), "{}", stderr(&again));
}

#[test]
fn a_flush_says_what_to_do_next_word_for_word() {
    let home = home::home();
    let home = home.path();
    let _tqs = start(home);
    let tool = stdout(&run(home, &["flush", "--tool", "pay", "--reason", "a drill"]));
    assert!(tool.lines().any(|line| line == "  obol policy deny pay"), "{tool}");
    let second = write_session(home, 2);
    assert_eq!(code(home, &["session", "provision", &second]), Some(0));
    let json = run(home, &["flush", "--agent", "agent-1", "--reason", "a drill", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let sessions = serde_json::json!(["0000000000000001", "0000000000000002"]);
    assert_eq!((&json["sessions"], &json["held"]), (&sessions, &Value::Bool(true)), "{json}");
    assert_eq!(json["next"][0], "obol rs revoke 0000000000000001 0000000000000002");
}

#[test]
fn after_a_flush_no_new_session_is_taken_until_resume_not_by_a_restart_or_a_reload() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    let flushed = run(home, &["flush", "--agent", "agent-1", "--reason", "hijacked"]);
    assert!(stdout(&flushed).contains("No new session is taken until `obol resume`"), "{flushed:?}");
    assert_eq!(refused(&tqs), ErrorCode::SessionFlushed);

    let second = write_session(home, 2);
    let held = run(home, &["session", "provision", &second]);
    assert_eq!(held.status.code(), Some(3), "{}", stderr(&held));
    for word in ["agent agent-1", "hijacked", "obol resume"] {
        assert!(stderr(&held).contains(word), "{word}: {}", stderr(&held));
    }
    assert!(
        stdout(&run(home, &["status"])).contains("no new session is taken since the flush of agent agent-1")
    );

    // A crash, and a start that names the next session.
    tqs.kill();
    let tqs = Tqs::start(home, &["--session", &second, "--audit-log", "audit.jsonl"]);
    tqs.wait_for_log("no new session is taken since");
    assert_eq!(refused(&tqs), ErrorCode::SessionFlushed);
    let reloaded = tqs.log().matches("settings were read again").count();
    tqs.signal("HUP");
    home::wait_until("the settings are read again", || {
        tqs.log().matches("settings were read again").count() > reloaded
            && tqs.log().matches("no new session is taken since").count() >= 2
    });
    assert_eq!(refused(&tqs), ErrorCode::SessionFlushed);
    assert_eq!(get(home, "/readyz").0, 503);

    let resumed = run(home, &["resume"]);
    assert!(stdout(&resumed).contains("hijacked"), "{}", stdout(&resumed));
    assert_eq!(refused(&tqs), ErrorCode::SessionFlushed, "what was flushed stays flushed");
    assert_eq!(code(home, &["session", "provision", "session-1.json"]), Some(2), "for good");
    assert_eq!(code(home, &["session", "provision", &second]), Some(0));
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    assert!(stdout(&run(home, &["resume"])).contains("No flush was holding"), "again");

    let log = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["event"] == "resume" && line["scope"] == "agent agent-1"), "{log}");
}

#[test]
fn provisioning_with_resume_takes_the_session_and_a_wrong_one_lifts_nothing() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    assert_eq!(code(home, &["flush", "--all", "--reason", "hijacked"]), Some(0));
    assert_eq!(code(home, &["session", "provision", "--resume", "session-1.json"]), Some(2), "flushed");
    let second = write_session(home, 2);
    assert_eq!(code(home, &["session", "provision", &second]), Some(3), "still held back");
    assert_eq!(code(home, &["session", "provision", "--resume", &second]), Some(0));
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    let third = write_session(home, 3);
    assert_eq!(code(home, &["session", "provision", &third]), Some(0), "nothing is held back any more");
}

#[test]
fn a_flush_of_everything_holds_new_sessions_back_even_where_there_is_none() {
    let home = home::home();
    let home = home.path();
    let _tqs = Tqs::start(home, &[]);
    let failed = run(home, &["flush", "--all", "--reason", "hijacked"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("no new session is taken"), "{}", stderr(&failed));
    let session = write_session(home, 1);
    assert_eq!(code(home, &["session", "provision", &session]), Some(3));
}

#[test]
fn a_security_event_ends_sessions_and_lets_the_next_one_in() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    let kind = obol_ipc::names::EventKind::new("session-revoked").unwrap();
    let done = tqs.control().security_event(kind, FlushScope::All, Reason::new("test").unwrap()).unwrap();
    assert_eq!((done.sessions_ended, done.held), (1, false));
    let second = write_session(home, 2);
    assert_eq!(code(home, &["session", "provision", &second]), Some(0));
}

#[test]
fn the_operators_denial_lasts_and_what_either_list_denies_is_denied() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    assert_eq!(code(home, &["policy", "deny", "search"]), Some(0));
    assert_eq!(refused(&tqs), ErrorCode::PolicyDeny);
    // The other list is its owner's: neither clears the other's.
    tqs.control().policy(1, vec![]).unwrap();
    assert_eq!(refused(&tqs), ErrorCode::PolicyDeny);
    tqs.kill();
    let tqs = Tqs::start(home, &[]);
    assert_eq!(refused(&tqs), ErrorCode::PolicyDeny, "after a crash");
    tqs.control().policy(1, vec![tool("search"), tool("pay")]).unwrap();
    let allowed = run(home, &["policy", "allow", "search"]);
    assert!(allowed.status.success() && stdout(&allowed).contains("still denies it"), "{allowed:?}");
    assert_eq!(refused(&tqs), ErrorCode::PolicyDeny);
    let status = stdout(&run(home, &["status"]));
    assert!(status.lines().any(|line| line.starts_with("pay ") && line.ends_with("policy")), "{status}");
    tqs.control().policy(1, vec![]).unwrap();
    tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
}

#[test]
fn a_denial_that_matches_nothing_fails_and_is_stored_all_the_same() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    let denied = run(home, &["policy", "deny", "transfer"]);
    assert_eq!(denied.status.code(), Some(1));
    let said = stderr(&denied);
    assert!(said.contains("transfer is denied from now on") && said.contains("search"), "{said}");
    let mut world = AgentSession::new(2, now(), &["transfer"]);
    world.expires_at += 60;
    home::write_private(&home.join("later.json"), &world.agent_json().to_string());
    assert_eq!(code(home, &["session", "provision", "later.json"]), Some(0));
    let error = tqs.client().dequeue_token(&tool("transfer"), Duration::ZERO).unwrap_err();
    assert_eq!(error.refusal().unwrap().code(), ErrorCode::PolicyDeny);

    let unknown = run(home, &["policy", "allow", "tranfser"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("transfer"), "{}", stderr(&unknown));
    assert_eq!(code(home, &["policy", "allow", "transfer"]), Some(0));
    tqs.client().dequeue_token(&tool("transfer"), PATIENCE).unwrap();
}
