//! The real daemon when its audit log cannot be written: a disk that is full for that one file.
//!
//! The log is made longer than the token store before, so that a limit on the length of files meets the log and not the store.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use obol_audit::{ChainKey, Entry, Event};
use obol_ipc::names::ToolName;
use obol_ipc::refusal::ErrorCode;
use obol_queue::MasterKey;
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, limit_files, limitable, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sidecar::get;

const PATIENCE: Duration = Duration::from_secs(30);
/// Room for a few lines more.
const ROOM: u64 = 8 << 10;

fn log(home: &Path) -> std::path::PathBuf {
    home.join("audit.jsonl")
}

fn length(home: &Path) -> u64 {
    fs::metadata(log(home)).unwrap().len()
}

fn start(home: &Path) -> Tqs {
    let mut command = limitable(home);
    command.args(["tqs", "--session", "session.json", "--audit-log", "audit.jsonl"]);
    Tqs::run(home, command)
}

/// Makes the log longer than the store may become, in the daemon's stead, between two runs of it.
fn outgrow_the_store(home: &Path) {
    const LINES: u64 = 4_000;
    let state = home.join(".local/state/obol");
    let key = MasterKey::load(state.join("master.key")).unwrap().derive("obol audit log");
    let options = obol_audit::LogOptions::new(log(home), state.join("tokens.redb.audit"));
    let audit = options.open(ChainKey::from_bytes(*key)).unwrap();
    let reason: Box<str> = "x".repeat(1_000).into();
    for _ in 0..LINES {
        audit.note(Entry { reason: Some(reason.clone()), ..Entry::new(Event::Renewal) });
    }
    drop(audit);
    let store = fs::metadata(state.join("tokens.redb")).unwrap().len();
    assert!(length(home) > store + (256 << 10), "{} beside a store of {store}", length(home));
}

/// Draws until it is refused; the tokens.
fn draw_until_refused(tqs: &Tqs) -> Vec<String> {
    let (mut client, search) = (tqs.client(), ToolName::new("search").unwrap());
    let mut drawn = Vec::new();
    loop {
        assert!(drawn.len() < 10_000, "the log never gets full");
        match client.dequeue_token(&search, PATIENCE) {
            Ok(token) => drawn.push(hash_of_jti(token.token.expose())),
            Err(error) => {
                let refusal = error.refusal().unwrap_or_else(|| panic!("{error:?}"));
                assert_eq!(refusal.code(), ErrorCode::Unavailable);
                assert!(refusal.message().contains("audit log"), "{}", refusal.message());
                return drawn;
            }
        }
    }
}

fn hash_of_jti(token: &str) -> String {
    let bytes = obol_token::text::from_base64url(token.as_bytes()).unwrap();
    let jti = obol_token::Envelope::parse(&bytes).unwrap().jti();
    Sha256::digest(jti.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The tokens that the log says were handed out.
fn written(home: &Path) -> Vec<String> {
    let text = fs::read_to_string(log(home)).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let hand_outs = lines.filter(|line| line["event"] == "hand_out");
    hand_outs.map(|line| line["jti_sha256"].as_str().unwrap().to_owned()).collect()
}

fn verify(home: &Path) -> Value {
    let output = command(home)
        .args(["audit", "verify", "--json"])
        .env("OBOL_TQS__AUDIT_LOG", log(home))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_not_ready(home: &Path, tqs: &Tqs) {
    let (status, body) = get(home, "/readyz");
    assert!(status == 503 && body.contains("audit log cannot be written"), "{status} {body}");
    let health = tqs.control().health().unwrap();
    assert!(!health.ready && health.reason.is_some_and(|reason| reason.contains("audit log")));
    let (_, metrics) = get(home, "/metrics");
    assert!(metrics.contains("\nobol_ready 0\n"), "{metrics}");
    assert!(metrics.contains("\nobol_not_ready{reason=\"audit_log\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nobol_audit_state{state=\"suspended\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("\nobol_audit_refused_total 0\n"), "{metrics}");
    assert_eq!(get(home, "/livez").0, 200);
}

#[test]
fn without_room_for_its_line_no_token_is_handed_out_and_with_room_all_goes_on() {
    let home = home::home();
    let home = home.path();
    let mut world = AgentSession::new(1, now(), &["search"]);
    world.grants[0]["ttl"] = 600.into();
    home::write_private(&home.join("session.json"), &world.agent_json().to_string());
    assert_eq!(start(home).terminate(), Some(0));
    outgrow_the_store(home);
    let tqs = start(home);

    limit_files(tqs.pid(), Some(length(home) + ROOM));
    let drawn = draw_until_refused(&tqs);
    assert!(!drawn.is_empty());
    assert_not_ready(home, &tqs);
    // Nobody else gets one either, however they ask, and an attack can be stopped all the same.
    for wait in [Duration::ZERO, Duration::from_millis(200)] {
        let refused = tqs.client().dequeue_token(&ToolName::new("search").unwrap(), wait).unwrap_err();
        assert_eq!(refused.refusal().unwrap().code(), ErrorCode::Unavailable);
    }
    let flushed = command(home).args(["flush", "--tool", "search", "--reason", "test"]).output().unwrap();
    assert!(flushed.status.success(), "{flushed:?}");

    // With room it goes on by itself, and each token that was handed out has its line.
    limit_files(tqs.pid(), None);
    wait_until("it is ready again", || get(home, "/readyz").0 == 200);
    tqs.client().dequeue_token(&ToolName::new("search").unwrap(), PATIENCE).unwrap();
    wait_until("the last line is there", || written(home).len() > drawn.len());
    assert_eq!(written(home)[..drawn.len()], drawn);

    // Full again, and no room comes while it runs. At least one line is there before.
    limit_files(tqs.pid(), Some(length(home) + ROOM));
    let first = tqs.client().dequeue_token(&ToolName::new("search").unwrap(), PATIENCE).unwrap();
    let mut more = vec![hash_of_jti(first.token.expose())];
    wait_until("its line is there", || written(home).contains(&more[0]));
    more.extend(draw_until_refused(&tqs));
    assert_not_ready(home, &tqs);
    assert_eq!(tqs.terminate(), Some(0));
    let tqs = start(home);
    assert_eq!(get(home, "/readyz").0, 200);
    let last = tqs.client().dequeue_token(&ToolName::new("search").unwrap(), PATIENCE).unwrap();
    let last = hash_of_jti(last.token.expose());
    assert_eq!(tqs.terminate(), Some(0));

    let report = verify(home);
    assert!(report["sealed"] == true && report["head_checked"] == true, "{report}");
    assert_eq!((&report["refused"], &report["unclean_starts"]), (&json!(3), &json!(1)), "{report}");
    let written = written(home);
    assert_eq!(written.last(), Some(&last));
    let distinct: BTreeSet<_> = written.iter().collect();
    assert_eq!(distinct.len(), written.len(), "no line is there twice");
    // What was handed out before the write that failed is there; lines of that one write were lost with the process.
    let kept = more.iter().filter(|token| distinct.contains(token)).count();
    assert_eq!(more[..kept].iter().filter(|token| distinct.contains(token)).count(), kept);
    assert!(kept > 0, "{} were handed out", more.len());
}
