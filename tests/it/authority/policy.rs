//! `obol policy activate` and `history` against a service that runs.

use std::path::Path;

use obol_world::authority::{AsProcess, CATALOGUE, POLICIES, write_policy};
use obol_world::home;
use obol_world::rs::RsProcess;
use serde_json::{Value, json};

use super::captured::minted;
use super::stream::API;
use super::{Agent, tools};
use crate::cli::{stderr, stdout};

/// Writes a version of the policy by which a role may search, and gives its folder's name.
fn version(home: &Path, folder: &str, role: &str) -> String {
    let policies = POLICIES.replace("Role::\"dev\"", &format!("Role::\"{role}\""));
    write_policy(&home.join(folder), CATALOGUE, &policies);
    folder.to_owned()
}

#[test]
fn without_a_policy_nobody_gets_anything_until_one_is_activated() {
    let home = home::home();
    let mut service = AsProcess::start_with(home.path(), &[]);
    service.wait_for_log("no agent can be approved or granted anything");
    let mut agent = Agent::new(&service, home.path(), "builder");
    let (code, _) = agent.register();
    let refused = service.operate(&["approve", &code, "--yes"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(stderr(&refused).contains("obol policy activate"), "{refused:?}");
    assert_eq!(service.told(&["policy", "history"])["versions"], json!([]));

    version(home.path(), "policy", "dev");
    let active = service.operate(&["policy", "activate"]);
    assert!(stdout(&active).contains("in force: version 1"), "{active:?}");
    service.told(&["approve", &code, "--yes"]);
    assert_eq!(tools(&agent.open().unwrap()), ["search"]);
    // The service has the policy, and not the folder.
    std::fs::remove_dir_all(home.path().join("policy")).unwrap();
    service.kill();
    service.start_again();
    assert_eq!(tools(&agent.open().unwrap()), ["search"]);
}

#[test]
fn a_new_version_raises_the_epoch_and_so_does_the_way_back() {
    let home = home::home();
    let mut service = AsProcess::start(home.path());
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    assert_eq!(agent.open().unwrap().half.policy_epoch, 1);
    let other = version(home.path(), "other", "nobody");
    let weighed = service.told(&["policy", "activate", &other, "--dry-run"]);
    assert_eq!(weighed["impact"], json!({"agents": 1, "held": 1, "lost": 1, "narrowed": 1, "widened": 0}));
    let refused = service.operate(&["policy", "activate", &other]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(stderr(&refused).contains("takes away 1 of the 1 grants"), "{refused:?}");
    assert_eq!(agent.open().unwrap().half.policy_epoch, 1, "nothing was changed");

    let active = service.told(&["policy", "activate", &other, "--yes"]);
    assert_eq!((&active["version"]["version"], &active["version"]["epoch"]), (&json!(2), &json!(2)));
    assert_eq!(agent.refused(), "NO_GRANTS");
    // A restart changes nothing, although the folder that settings name has another version.
    service.kill();
    service.start_again();
    service.wait_for_log("the folder holds another version");
    assert_eq!(agent.refused(), "NO_GRANTS");
    let back = service.told(&["policy", "activate", "--back-to", "1"]);
    assert_eq!((&back["version"]["version"], &back["version"]["epoch"]), (&json!(3), &json!(3)));
    let session = agent.open().unwrap();
    assert_eq!((tools(&session), session.half.policy_epoch), (vec!["search"], 3));
    let again = service.operate(&["policy", "activate", "--back-to", "3"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(stderr(&again).contains("already in force"), "{again:?}");
    let history = service.told(&["policy", "history"]);
    let rows = history["versions"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["by"].as_str().unwrap().starts_with("local:")), "{history}");
    assert_eq!(rows[0]["digest"], rows[2]["digest"]);
    let unknown = service.operate(&["policy", "activate", "--back-to", "9"]);
    assert!(stderr(&unknown).contains("obol policy history"), "{unknown:?}");
}

#[test]
fn whoever_gets_less_loses_what_it_holds_and_whoever_does_not_keeps_it() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let rs = RsProcess::follow(home.path(), &service, API, &["--first-start"]);
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let before = agent.open().unwrap();
    assert_eq!(rs.present(&minted(&before, |_| {}), "search"), "OK", "{}", rs.log());
    // More rights for another role: nothing that this agent holds is touched.
    let wider = POLICIES.replace("Role::\"dev\"", "Role::\"other\"");
    let wider = format!("{POLICIES}\n{}", wider.replace("@id(\"", "@id(\"other-"));
    write_policy(&home.path().join("wider"), CATALOGUE, &wider);
    service.told(&["policy", "activate", "wider"]);
    assert_eq!(rs.present(&minted(&before, |_| {}), "search"), "OK", "{}", rs.log());
    // Nothing for its own: what was minted ahead is worth nothing, before its session would have ended.
    let ahead = minted(&before, |_| {});
    let other = version(home.path(), "other", "nobody");
    service.told(&["policy", "activate", &other, "--yes"]);
    home::wait_until("the server hears of it", || rs.present(&minted(&before, |_| {}), "search") != "OK");
    assert_eq!(rs.present(&ahead, "search"), "SESSION_EXPIRED", "{}", rs.log());
    assert_eq!(agent.refused(), "NO_GRANTS");
}

#[test]
fn a_version_that_is_looked_at_is_told_of_and_decides_nothing() {
    let home = home::home();
    write_policy(&home.path().join("policy"), CATALOGUE, POLICIES);
    let mut service =
        AsProcess::start_with(home.path(), &["--policy", "policy", "--audit-log", "as-audit.jsonl"]);
    let (mut agent, id) = Agent::approved(&service, home.path(), "builder");
    let other = version(home.path(), "other", "nobody");
    let said = service.operate(&["policy", "activate", &other, "--observe"]);
    assert!(stdout(&said).contains("it decides nothing"), "{said:?}");
    // Also after a restart.
    assert_eq!(service.terminate(), Some(0));
    service.start_again();
    let session = agent.open().unwrap();
    assert_eq!((tools(&session), session.half.policy_epoch), (vec!["search"], 1));
    let observed = || -> Vec<Value> {
        let log = std::fs::read_to_string(home.path().join("as-audit.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "observed").collect()
    };
    home::wait_until("the line about it", || !observed().is_empty());
    let line = observed().remove(0);
    assert_eq!(line["agent"], id.as_str());
    assert!(line["reason"].as_str().unwrap().contains("loses search"), "{line}");
    assert!(service.told(&["as", "status"])["observedPolicy"].is_string());
    service.told(&["policy", "activate", "--stop-observing"]);
    assert_eq!(service.told(&["as", "status"]).get("observedPolicy"), None);
    agent.open().unwrap();
    assert_eq!(observed().len(), 1, "the control");
}

#[test]
fn a_folder_that_is_not_a_policy_is_refused_before_it_is_sent() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    write_policy(&home.path().join("bad"), CATALOGUE, "@id(\"x\") permit (principal, action");
    for folder in ["bad", "nowhere"] {
        let failed = service.operate(&["policy", "activate", folder]);
        assert_eq!(failed.status.code(), Some(2), "{failed:?}");
        assert!(stderr(&failed).contains(folder), "{failed:?}");
    }
    // A long one arrives whole, in parts.
    let comment = format!("// {}\n", "ä€😀".repeat(40)).repeat(400);
    write_policy(&home.path().join("long"), CATALOGUE, &format!("{POLICIES}\n{comment}"));
    let active = service.told(&["policy", "activate", "long"]);
    assert_eq!(active["version"]["epoch"], 2);
}
