//! Agents that are denied without end, and what that costs the sidecar's audit log and the other agents.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use obol_world::home;
use serde_json::{Value, json};

use crate::sidecar::{Raw, start_as};

const FLOOD: usize = 20_000;
/// Lines about denials at once, and more for each second that the test takes.
const BURST: usize = 1_000;
const EACH_SECOND: usize = 10;
/// The longest line about a denial: three names of 256 bytes, and the rest of the line.
const LINE_BYTES: usize = 1_400;

/// A request for a tool that nobody granted, with the longest names there are.
fn request() -> Vec<u8> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "dequeueToken",
        "params": {"tool": "!".repeat(256), "audience": "u".repeat(2_000)},
    })
    .to_string();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body.as_bytes()].concat()
}

fn lines(home: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn denials_without_end_cost_the_audit_log_a_bounded_amount_and_other_agents_nothing() {
    let home = home::home();
    let home = home.path();
    let tqs = start_as(home, &["--audit-log", "audit.jsonl"], |_| {});
    let size = || std::fs::metadata(home.join("audit.jsonl")).unwrap().len();
    let (mut greedy, mut other) = (Raw::greeted(home, "agent.sock"), Raw::greeted(home, "agent.sock"));
    let (before, began, burst) = (size(), Instant::now(), request().repeat(100));
    for _ in 0..FLOOD / 100 {
        greedy.0.write_all(&burst).unwrap();
        for _ in 0..100 {
            assert_eq!(greedy.receive().unwrap()["error"]["data"]["code"], "POLICY_DENY");
        }
        let drawn = other.call("dequeueToken", json!({"tool": "search", "waitMs": 10_000}));
        assert!(drawn["result"]["token"].is_string(), "{drawn}");
    }
    assert_eq!(tqs.terminate(), Some(0));
    let earned = EACH_SECOND * (1 + usize::try_from(began.elapsed().as_secs()).unwrap());
    let most = (BURST + earned) * LINE_BYTES + FLOOD / 100 * 1_000;
    assert!(size() - before < most as u64, "{} bytes, {most} were due", size() - before);

    let lines = lines(home);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("hand_out").len(), FLOOD / 100, "every hand-out has its line");
    let denials = of("denial");
    assert!(denials.len() >= BURST && denials.len() <= BURST + earned, "{} lines", denials.len());
    let audience = denials[0]["audience"].as_str().unwrap();
    assert_eq!((audience.len(), &denials[0]["cut"]), (256, &json!(true)), "a long name is cut and marked");
    let counted: u64 = of("denials").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(denials.len() as u64 + counted, FLOOD as u64, "none is forgotten");
}

#[test]
fn a_few_denials_have_a_line_each_with_whole_names() {
    let home = home::home();
    let home = home.path();
    let tqs = start_as(home, &["--audit-log", "audit.jsonl"], |_| {});
    let mut agent = Raw::greeted(home, "agent.sock");
    for _ in 0..50 {
        agent.call("dequeueToken", json!({"tool": "t".repeat(256)}));
    }
    assert_eq!(tqs.terminate(), Some(0));
    let lines = lines(home);
    let denials: Vec<_> = lines.iter().filter(|line| line["event"] == "denial").collect();
    assert_eq!(denials.len(), 50);
    assert!(denials.iter().all(|line| line["tool"] == json!("t".repeat(256)) && line.get("cut").is_none()));
    assert!(lines.iter().all(|line| line["event"] != "denials"));
}
