//! From a stranger's key to a session, and to its end.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use obol_authenticator::Registered;
use obol_world::authority::AsProcess;
use obol_world::home::{self, command};
use serde_json::json;

use super::{Agent, tools};
use crate::cli::{stderr, stdout};

#[test]
fn a_humans_yes_opens_sessions_by_policy_and_disabling_ends_them() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut agent = Agent::new(&service, home.path(), "builder");
    assert_eq!(agent.refused(), "NOT_REGISTERED");
    let (code, words) = agent.register();
    assert_eq!(agent.refused(), "PENDING_APPROVAL");

    let listed = service.told(&["registrations"]);
    assert_eq!(listed["registrations"][0]["wishes"]["name"], "builder");
    assert_eq!(listed["registrations"][0]["words"], words.as_str());
    assert!(!listed.to_string().contains(&code), "the code is in the agent's terminal alone");

    let approved = service.told(&["approve", &code.to_lowercase(), "--yes", "--days", "1"]);
    assert_eq!((&approved["state"], &approved["words"]), (&json!("active"), &json!(words)));
    let session = agent.open().unwrap();
    assert_eq!(tools(&session), ["search"]);
    assert_eq!(session.half.agent.iss, service.origin());
    let shown = service.told(&["agent", "show", "builder"]);
    assert_eq!(shown["sessions"][0]["sessionId"], session.half.session_id.to_string());

    let disabled = service.told(&["agent", "disable", "builder", "--reason", "a drill"]);
    assert_eq!((&disabled["matched"], &disabled["sessionsEnded"]), (&json!(true), &json!(1)));
    let server = &disabled["servers"][0];
    assert_eq!((&server["audience"], &server["confirmed"]), (&json!("https://api.example"), &json!(false)));
    assert_eq!(server["sessions"], 1);
    assert_eq!(disabled["next"], json!([format!("obol rs revoke {}", session.half.session_id)]));
    assert_eq!(agent.refused(), "SUSPENDED");
    assert_eq!(service.told(&["agent", "show", "builder"])["sessions"], json!([]));

    service.told(&["agent", "enable", "builder"]);
    agent.open().unwrap();
    let removed = service.operate(&["agent", "remove", "builder"]);
    assert!(
        stdout(&removed).contains("never return") && stdout(&removed).contains("api.example"),
        "{removed:?}"
    );
    assert_eq!(agent.refused(), "REVOKED");
    assert_eq!(agent.try_register(None).unwrap_err().code(), "REVOKED", "nor by registering again");
}

#[test]
fn a_restart_keeps_agents_sessions_and_what_was_ended() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let pin = service.pin();
    let (mut kept, _) = Agent::approved(&service, home.path(), "kept");
    let (mut ended, _) = Agent::approved(&service, home.path(), "ended");
    let (session, _) = (kept.open().unwrap(), ended.open().unwrap());
    service.told(&["agent", "disable", "ended"]);
    let mut waiting = Agent::new(&service, home.path(), "waiting");
    let (code, _) = waiting.register();
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    service.start_again();
    assert_eq!(service.pin(), pin, "agents have pinned it");
    assert_eq!(
        service.told(&["agent", "show", "kept"])["sessions"][0]["sessionId"],
        session.half.session_id.to_string()
    );
    let next = kept.open().unwrap();
    assert!(next.half.session_id > session.half.session_id, "numbers rise");
    assert_eq!(ended.refused(), "SUSPENDED");
    service.told(&["approve", &code, "--yes"]);
    waiting.open().unwrap();
    assert!(!service.told(&["agent", "show", "kept"])["agent"]["cloneSuspected"].as_bool().unwrap());
}

#[test]
fn who_denies_is_heard_and_who_blocks_is_left_alone() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut agent = Agent::new(&service, home.path(), "builder");
    let (code, _) = agent.register();
    assert_eq!(service.told(&["deny", &code])["wishes"]["name"], "builder");
    let again = service.operate(&["approve", &code, "--yes"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(stderr(&again).contains("register again"), "{again:?}");
    agent.register();
    let id = service.told(&["registrations"])["registrations"][0]["registrationId"].clone();
    let denied = service.operate(&["deny", id.as_str().unwrap(), "--block"]);
    assert!(stdout(&denied).contains("no more registrations are taken from 127.0.0.1"), "{denied:?}");
    assert_eq!(agent.try_register(None).unwrap_err().code(), "TOO_MANY_PENDING");
    assert_eq!(service.told(&["registrations"])["registrations"], json!([]));
}

#[test]
fn a_ticket_admits_as_many_agents_as_it_says_of_its_class() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let invite =
        |class: &str| service.operate(&["agent", "invite", "--class", class, "--role", "dev", "--max", "2"]);
    let made = invite("coding");
    assert!(stderr(&made).contains("not shown again"), "{made:?}");
    let ticket = stdout(&made).trim().to_owned();
    for name in ["one", "two"] {
        let mut agent = Agent::new(&service, home.path(), name);
        let registered = agent.try_register(Some(&ticket)).unwrap();
        assert!(matches!(registered, Registered::Active { .. }), "{registered:?}");
        assert_eq!(tools(&agent.open().unwrap()), ["search"]);
    }
    let mut third = Agent::new(&service, home.path(), "three");
    assert_eq!(third.try_register(Some(&ticket)).unwrap_err().code(), "INVITATION");
    let other = stdout(&invite("testing")).trim().to_owned();
    assert_eq!(third.try_register(Some(&other)).unwrap_err().code(), "INVITATION", "of another class");
    let root = service.operate(&["agent", "invite", "--class", "coding", "--role", "root"]);
    assert_eq!(root.status.code(), Some(3), "policy says no: {root:?}");
    let join = service.told(&["rs", "invite", "https://api.example", "--suites", "1,4"]);
    assert_eq!(join["ticket"].as_str().unwrap().len(), 43);
    assert_eq!(service.told(&["as", "status"])["resourceServers"], json!(["https://api.example"]));
}

#[test]
fn what_matches_nothing_fails_and_lists_what_there_is() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    Agent::approved(&service, home.path(), "builder");
    for arguments in [
        &["agent", "disable", "bulider"][..],
        &["agent", "remove", "bulider"],
        &["agent", "enable", "bulider"],
        &["agent", "show", "bulider"],
        &["agent", "end-session", "00000000000000ff"],
    ] {
        let failed = service.operate(arguments);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let said = stderr(&failed);
        assert!(said.contains(arguments[2]) && said.contains("builder"), "{said}");
    }
    let tool = service.operate(&["agent", "disable", "--tool", "saerch"]);
    assert_eq!(tool.status.code(), Some(1), "{tool:?}");
    assert!(stderr(&tool).contains("denied anyway"), "{tool:?}");
    let allowed = service.operate(&["agent", "enable", "--tool", "search"]);
    assert!(!allowed.status.success() && stderr(&allowed).contains("saerch"), "{allowed:?}");
    assert_eq!(service.told(&["agent", "show", "builder"])["agent"]["state"], "active", "it was not touched");
}

#[test]
fn a_session_and_a_tool_end_by_themselves_too() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut agent = Agent::new(&service, home.path(), "builder").with_roles(&["dev", "clerk"]);
    let (code, _) = agent.register();
    service.told(&["approve", &code, "--yes"]);
    let session = agent.open().unwrap();
    assert_eq!(tools(&session), ["search", "pay"]);
    let ended = service.told(&["agent", "end-session", &session.half.session_id.to_string()]);
    assert_eq!(ended["servers"].as_array().unwrap().len(), 2, "{ended}");
    agent.open().unwrap();
    let denied = service.told(&["agent", "disable", "--tool", "pay"]);
    assert_eq!((&denied["matched"], &denied["sessionsEnded"]), (&json!(true), &json!(1)));
    assert_eq!(tools(&agent.open().unwrap()), ["search"]);
    assert_eq!(service.told(&["as", "status"])["deniedTools"], json!(["pay"]));
    service.told(&["agent", "enable", "--tool", "pay"]);
    assert_eq!(tools(&agent.open().unwrap()), ["search", "pay"]);
}

/// Runs a command on a terminal, and types this when it asks.
fn on_a_terminal(home: &std::path::Path, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let (input, output) = (OwnedFd::from(open()), OwnedFd::from(open()));
    let mut child = command(home)
        .args(arguments)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(OwnedFd::from(open())))
        .spawn()
        .unwrap();
    let mut terminal = std::fs::File::from(master);
    terminal.write_all(typed.as_bytes()).unwrap();
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    // Where nobody has the other end any more, reading fails.
    while let Ok(length @ 1..) = terminal.read(&mut part) {
        said.extend_from_slice(&part[..length]);
    }
    (child.wait().unwrap().code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn whoever_is_asked_sees_key_source_wishes_and_grants_and_only_a_yes_is_one() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut agent = Agent::new(&service, home.path(), "builder");
    let (code, words) = agent.register();
    let blind = service.operate(&["approve", &code]);
    assert_eq!(blind.status.code(), Some(2), "nobody can be asked: {blind:?}");
    for (typed, expected) in [("\n", 3), ("no\n", 3), ("y\n", 0)] {
        assert_eq!(agent.refused(), "PENDING_APPROVAL");
        let (status, said) = on_a_terminal(home.path(), &["approve", &code], typed);
        assert_eq!(status, Some(expected), "{said}");
        for shown in [
            &words,
            "127.0.0.1",
            "builder",
            "coding",
            "box",
            "anna",
            "search",
            "https://api.example",
            "[y/N]",
        ] {
            assert!(said.contains(shown), "{shown}: {said}");
        }
    }
    agent.open().unwrap();
    // The same key again: what is renewed is shown with what changed.
    agent.wishes.host = "another-box".to_owned();
    let (code, _) = agent.register();
    let (_, said) = on_a_terminal(home.path(), &["approve", &code, "--role", "root"], "y\n");
    assert!(said.contains("(was: box)") && said.contains("policy does not let you"), "{said}");
}
