//! The audit log of the real daemon: what is in it, that it survives a kill, and that tampering shows.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Output;

use obol_ipc::names::ToolName;
use obol_world::halves::AgentSession;
use obol_world::home::{self, command};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::Value;
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(20);

fn tool(name: &str) -> ToolName {
    ToolName::new(name).unwrap()
}

fn start(home: &Path) -> Tqs {
    if !home.join("session.json").exists() {
        let world = AgentSession::new(1, now(), &["search"]);
        home::write_private(&home.join("session.json"), &world.agent_json().to_string());
    }
    Tqs::start(home, &["--session", "session.json", "--audit-log", "audit.jsonl"])
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

fn verify(home: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let output = command(home)
        .args(["audit", "verify", "--json"])
        .args(more)
        .env("OBOL_TQS__AUDIT_LOG", home.join("audit.jsonl"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn lines(home: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A token's name as the log writes it.
fn hash_of_jti(token: &str) -> String {
    let bytes = obol_token::text::from_base64url(token.as_bytes()).unwrap();
    let jti = obol_token::Envelope::parse(&bytes).unwrap().jti();
    Sha256::digest(jti.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_former_name_of_the_flag_is_taken_for_now_and_warned_of() {
    let home = home::home();
    let tqs = Tqs::start(home.path(), &["--audit", "audit.jsonl"]);
    tqs.wait_for_log("--audit is now called --audit-log");
    assert!(!lines(home.path()).is_empty(), "it is written");
    assert_eq!(tqs.terminate(), Some(0));
    let tqs = Tqs::start(home.path(), &["--audit-log", "audit.jsonl"]);
    assert_eq!(tqs.log().matches("is now called").count(), 1, "the first one's: {}", tqs.log());
    assert_eq!(tqs.terminate(), Some(0));
    let both = run(home.path(), &["tqs", "--audit", "a.jsonl", "--audit-log", "b.jsonl"]);
    assert_eq!(both.status.code(), Some(2));
    let help = run(home.path(), &["tqs", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--audit-log <FILE>") && !help.contains("--audit <FILE>"), "{help}");
}

#[test]
fn every_deed_has_its_line_and_no_secret_is_in_any() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    let mut client = tqs.client();
    let drawn = client.dequeue_token(&tool("search"), PATIENCE).unwrap();
    let token = drawn.token.expose().to_owned();
    client.dequeue_token(&tool("pay"), Duration::ZERO).unwrap_err();
    tqs.control().policy(1, vec![tool("search")]).unwrap();
    client.dequeue_token(&tool("search"), Duration::ZERO).unwrap_err();
    let flushed = run(home, &["flush", "--all", "--reason", "the agent was hijacked"]);
    assert!(flushed.status.success(), "{flushed:?}");
    client.dequeue_token(&tool("search"), Duration::ZERO).unwrap_err();
    let again = run(home, &["session", "provision", "session.json"]);
    assert!(!again.status.success());
    assert_eq!(tqs.terminate(), Some(0));

    let lines = lines(home);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let hand_outs = of("hand_out");
    assert_eq!(hand_outs.len(), 1);
    assert_eq!(hand_outs[0]["jti_sha256"], hash_of_jti(&token));
    assert_eq!(hand_outs[0]["tool"], "search");
    assert_eq!(hand_outs[0]["client"], "obol-tests/1");
    assert!(hand_outs[0]["agent"].as_str().is_some_and(|agent| !agent.is_empty()));
    assert!(hand_outs[0]["request"].as_str().unwrap().contains('.'));
    let codes: Vec<_> = of("denial").iter().map(|line| line["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["POLICY_DENY", "POLICY_DENY", "SESSION_FLUSHED"]);
    assert_eq!(of("flush")[0]["reason"], "the agent was hijacked");
    assert_eq!(of("flush")[0]["sessions_ended"], 1);
    assert_eq!(of("policy")[0]["epoch"], 1);
    assert!(of("renewal")[0]["tokens"].as_u64().unwrap() > 0);
    assert_eq!(of("session_start").iter().filter(|line| line["decision"] == "allow").count(), 1);
    assert_eq!(of("session_start").iter().filter(|line| line["decision"] == "deny").count(), 1);
    assert_eq!(of("session_end")[0]["reason"], "flushed");
    assert_eq!(lines.last().unwrap()["event"], "stop");

    let text = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    let session = std::fs::read_to_string(home.join("session.json")).unwrap();
    let session: Value = serde_json::from_str(&session).unwrap();
    for secret in ["K_session", "verifier_secret", "mutual_auth"] {
        assert!(!text.contains(session["resource_servers"][0][secret].as_str().unwrap()), "{secret}");
    }
    let key = std::fs::read_to_string(home.join(".local/state/obol/master.key")).unwrap();
    assert!(!text.contains(key.trim()) && !text.contains(&token[..40]) && !text.contains(&token[100..140]));
    let (code, report) = verify(home, &[]);
    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!((&report["sealed"], &report["head_checked"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn tampering_is_named_by_the_command_and_by_its_exit_code() {
    let home = home::home();
    let home = home.path();
    let tqs = start(home);
    for _ in 0..5 {
        tqs.client().dequeue_token(&tool("search"), PATIENCE).unwrap();
    }
    assert_eq!(tqs.terminate(), Some(0));
    let path = home.join("audit.jsonl");
    let honest = std::fs::read_to_string(&path).unwrap();
    let number = 1 + honest.lines().position(|line| line.contains("hand_out")).unwrap();
    std::fs::write(&path, honest.replacen("hand_out", "handed", 1)).unwrap();
    let (code, report) = verify(home, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        (&report["problems"][0]["kind"], &report["problems"][0]["line"]),
        (&"changed".into(), &number.into())
    );
    let text = run(home, &["audit", "verify", "audit.jsonl"]);
    assert_eq!(text.status.code(), Some(1));
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.contains(&format!("audit.jsonl:{number}: changed")), "{said}");

    // Cut off at the end: only the note beside the store knows.
    let cut: String = honest.lines().take(4).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, cut).unwrap();
    assert_eq!(verify(home, &["audit.jsonl"]).0, Some(0));
    let (code, report) = verify(home, &[]);
    assert_eq!((code, &report["problems"][0]["kind"]), (Some(1), &"truncated".into()));

    assert_eq!(run(home, &["audit", "verify"]).status.code(), Some(2), "no file");
    assert_eq!(run(home, &["audit", "verify", "none.jsonl"]).status.code(), Some(2));
    assert_eq!(run(home, &["audit", "verify", "session.json"]).status.code(), Some(2), "no log");
    let other = ["audit", "verify", "audit.jsonl", "--master-key", "none.key"];
    assert_eq!(run(home, &other).status.code(), Some(2));
}

#[test]
fn a_kill_at_any_moment_leaves_a_chain_that_holds() {
    const LIVES: u64 = 8;
    let home = home::home();
    let home = home.path();
    let mut by_life = Vec::new();
    for life in 0..LIVES {
        let tqs = start(home);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let mut client = tqs.client();
                std::thread::spawn(move || {
                    let mut drawn = Vec::new();
                    while let Ok(token) = client.dequeue_token(&tool("search"), PATIENCE) {
                        drawn.push(hash_of_jti(token.token.expose()));
                    }
                    drawn
                })
            })
            .collect();
        // No moment is better than another; these are spread over writes, syncs and naps.
        std::thread::sleep(Duration::from_millis(40 + life * 37));
        tqs.kill();
        by_life.push(threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>());
    }
    let (code, report) = verify(home, &[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["starts"], LIVES);
    assert_eq!(report["unclean_starts"], LIVES - 1);

    let names: Vec<_> =
        lines(home).iter().filter_map(|line| line["jti_sha256"].as_str().map(str::to_owned)).collect();
    let written: HashSet<_> = names.iter().collect();
    assert_eq!(written.len(), names.len(), "a hand-out is written once");
    let place: HashMap<_, _> = names.iter().enumerate().map(|(place, name)| (name, place)).collect();
    let mut all = 0;
    for drawn in by_life.iter().flatten() {
        // What a kill can take are the last lines, not written yet; none in between, and none out of order.
        let there = drawn.iter().take_while(|name| place.contains_key(name)).count();
        assert!(drawn[there..].iter().all(|name| !place.contains_key(name)), "a line in between is missing");
        assert!(drawn[..there].is_sorted_by_key(|name| place[name]));
        all += there;
    }
    assert!(all > 0, "something was handed out");
}
