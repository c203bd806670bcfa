//! Nothing that stores keep names a tool, a person, an organisation or an audience in the clear.
//!
//! What may be read is listed in `docs/design.md`: numbers, times and random names. The search is shown to work by the
//! session files, which an operator wrote, and by the audit log, which is there to be read.

use core::time::Duration;
use std::path::{Path, PathBuf};

use obol_world::halves::AgentSession;
use obol_world::home::{self, write_private};
use obol_world::http::Http;
use obol_world::redis::RedisServer;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::tqs::Tqs;
use obol_world::{AUDIENCE, ORG, SESSION, now};

use super::tool;

const NAMES: [&str; 8] = [
    "wire-money",
    "delete-user",
    "denied_tools",
    "payroll.example",
    "carol@people.example",
    "agent-of-carol",
    "quiet-org",
    "people.example",
];

fn files_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect()
}

/// Which of the names stand in a file.
fn found<'a>(path: &Path, names: &[&'a str]) -> Vec<&'a str> {
    let bytes = std::fs::read(path).unwrap();
    let stands = |name: &&&str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    names.iter().filter(stands).copied().collect()
}

fn assert_nameless(files: &[PathBuf], names: &[&str], when: &str) {
    assert!(files.len() > 1, "{when}: {files:?}");
    for file in files {
        assert_eq!(found(file, names), Vec::<&str>::new(), "{when}: {}", file.display());
    }
}

fn session() -> String {
    let mut document = AgentSession::new(1, now(), &["wire-money", "delete-user"]).agent_json();
    document["agent_instance_id"] = "agent-of-carol".into();
    document["org_id"] = "quiet-org".into();
    document["iss"] = "https://people.example".into();
    document["sub"] = "carol@people.example".into();
    document["resource_servers"][0]["aud"] = "https://payroll.example/mcp".into();
    for grant in document["grants"].as_array_mut().unwrap() {
        grant["aud"] = "https://payroll.example/mcp".into();
    }
    document.to_string()
}

#[test]
fn the_sidecars_state_names_no_tool_no_person_no_audience_and_no_policy_old_or_new() {
    let home = home::home();
    let home = home.path();
    write_private(&home.join("session.json"), &session());
    let arguments = ["--session", "session.json", "--audit-log", "audit.jsonl"];
    let state = super::state(home);
    let tqs = Tqs::start(home, &arguments);
    tqs.client().dequeue_token(&tool("wire-money"), Duration::from_secs(20)).unwrap();
    let mut operator = tqs.control();
    operator.policy(1, vec![tool("delete-user")]).unwrap();
    operator.policy(2, vec![tool("wire-money")]).unwrap();
    tqs.kill();
    assert_nameless(&files_in(&state), &NAMES, "after a kill");

    let tqs = Tqs::start(home, &arguments);
    assert!(tqs.client().dequeue_token(&tool("wire-money"), Duration::ZERO).is_err(), "the policy holds");
    tqs.client().dequeue_token(&tool("delete-user"), Duration::from_secs(20)).unwrap();
    assert_eq!(tqs.terminate(), Some(0));
    assert_nameless(&files_in(&state), &NAMES, "after an orderly end");

    // What is there to be read is found.
    assert_eq!(found(&home.join("session.json"), &NAMES[3..]), &NAMES[3..]);
    assert_eq!(found(&home.join("audit.jsonl"), &NAMES[..2]), &NAMES[..2]);
}

#[test]
fn what_a_resource_server_keeps_names_no_organisation_and_no_audience() {
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let names = [AUDIENCE, ORG, "K_session", "policy_epoch"];
    for (sessions, spent) in [("kept.redb", "spent.redb"), (url.as_str(), url.as_str())] {
        let home = home::home();
        write_sessions(home.path(), now());
        let arguments =
            ["--session-store", sessions, "--session-key", "session.key", "--spent", spent, "--first-start"];
        let mut rs = RsProcess::start(home.path(), &arguments);
        let token = crate::resource::replicas::mint(u64::from(sessions == url), 1).pop().unwrap();
        assert_eq!(Http::new(rs.port()).present(&token).unwrap(), "OK");
        rs.kill();
        if sessions == url {
            assert_eq!(redis.ask(&["SAVE"]), "OK");
            assert_eq!(found(&redis.dump(), &names), Vec::<&str>::new());
            let number = format!("{:016x}", SESSION.as_u64());
            assert_eq!(found(&redis.dump(), &[&number]), [&number], "the session is in it");
        } else {
            assert_nameless(
                &["kept.redb", "spent.redb"].map(|name| home.path().join(name)),
                &names,
                "after a kill",
            );
        }
        assert_eq!(found(&home.path().join("sessions.json"), &names[..3]), &names[..3]);
    }
}
