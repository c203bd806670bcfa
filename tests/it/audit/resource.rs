//! The audit log of a real `obol rs`: what is in it, what a flood of forgeries leaves there, and a disk that is full.

use core::time::Duration;
use std::path::Path;
use std::sync::{Arc, Mutex};

use obol_audit::ChainKey;
use obol_resource::{Gate, ToolCall};
use obol_verify::{Mark, SpendError, SpendTicket, Spender, SpentSet};
use obol_world::ManualClock;
use obol_world::forge::Forge;
use obol_world::home::{self, command, limit_files, wait_until};
use obol_world::http::Http;
use obol_world::rs::{RsProcess, write_sessions};
use obol_world::server::{Server, session};
use obol_world::{KEYS, NOW, SESSION, TOOL, now};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lines about refusals that a burst may leave, and more for each second that the test takes.
const BURST_UNPROVEN: usize = 100;
const FLOOD: u64 = 3_000;

fn start(home: &Path) -> RsProcess {
    write_sessions(home, now());
    RsProcess::start(home, &["--spent", "memory", "--first-start", "--audit-log", "audit.jsonl"])
}

fn fresh(number: u64) -> Forge {
    Forge::standard(number).with(|token| {
        token.issued_at = now();
        token.expires_at = token.issued_at + 60;
    })
}

fn lines(home: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    // The last one may be on its way.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn hash_of_jti(token: &Forge) -> String {
    let digest = Sha256::digest(token.jti().as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What the command says about the log, all of it checked.
fn verify(home: &Path) -> Value {
    let output = command(home)
        .args(["audit", "verify", "--json"])
        .env("OBOL_RS__AUDIT_LOG", home.join("audit.jsonl"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for checked in ["ok", "sealed", "head_checked"] {
        assert_eq!(report[checked], true, "{report}");
    }
    report
}

#[test]
fn every_verification_has_its_line_and_nobody_is_blamed_for_a_forgery() {
    let home = home::home();
    let home = home.path();
    let mut rs = start(home);
    let mut http = Http::new(rs.port());
    let good = fresh(1);
    let mut stranger = fresh(2);
    stranger.bad_signature = true;
    assert_eq!(http.present(&good.text()).as_deref(), Some("OK"));
    assert_eq!(http.present(&good.text()).as_deref(), Some("TOKEN_REPLAYED"));
    let other = fresh(3);
    assert_eq!(http.present_for(&other.text(), "pay").as_deref(), Some("INSUFFICIENT_PRIVILEGE"));
    assert_eq!(http.present(&stranger.text()).as_deref(), Some("INVALID_SIGNATURE"));
    assert_eq!(http.present("rubbish").as_deref(), Some("MALFORMED_TOKEN"));
    assert_eq!(http.present(&other.text()).as_deref(), Some("OK"), "a refusal burns nothing");
    drop(http);
    assert_eq!(rs.terminate(), Some(0));

    let lines = lines(home);
    let session = format!("{:016x}", SESSION.as_u64());
    let spends = of(&lines, "spend");
    assert_eq!(spends.len(), 2);
    for (line, token) in spends.iter().zip([&good, &other]) {
        assert_eq!(line["jti_sha256"], hash_of_jti(token));
        assert_eq!((&line["decision"], &line["tool"]), (&json!("allow"), &json!(TOOL)));
        assert_eq!((&line["session"], &line["agent"]), (&json!(session), &json!("agent-1")));
    }
    let denials = of(&lines, "denial");
    let told: Vec<_> = denials
        .iter()
        .map(|line| (line["code"].as_str().unwrap(), line["check"].as_str().unwrap(), line["tool"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("TOKEN_REPLAYED", "REPLAY_CONSUME", Some(TOOL)),
            ("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION", Some("pay")),
            ("INVALID_SIGNATURE", "SCHNORR_VERIFICATION", Some(TOOL)),
            ("MALFORMED_TOKEN", "FRAMING_CHECK", Some(TOOL)),
        ]
    );
    for (line, token) in denials.iter().zip([&good, &other]) {
        // The session's agent is known from the token that was accepted before.
        assert_eq!((&line["session"], &line["agent"]), (&json!(session), &json!("agent-1")), "{line}");
        assert_eq!(line["jti_sha256"], hash_of_jti(token));
    }
    for line in &denials[2..] {
        assert!(line.get("session").is_none() && line.get("agent").is_none(), "{line}");
    }
    assert_eq!(denials[2]["jti_sha256"], hash_of_jti(&stranger));
    assert_eq!(lines.last().unwrap()["event"], "stop");

    let report = verify(home);
    assert_eq!((&report["spends"], &report["denials"]), (&json!(2), &json!(4)), "{report}");
    let text = std::fs::read_to_string(home.join("audit.jsonl")).unwrap();
    let key = std::fs::read_to_string(home.join(".local/state/obol/rs-audit.key")).unwrap();
    let keys = [KEYS.session_key, KEYS.verifier_secret, KEYS.mutual_auth];
    assert!(keys.iter().all(|key| !text.contains(&obol_token::text::to_hex(key))));
    assert!(
        !text.contains(key.trim())
            && !text.contains(&good.text()[..40])
            && !text.contains(good.jti().as_str())
    );

    // Whoever changes it is found out.
    std::fs::write(home.join("audit.jsonl"), text.replacen("TOKEN_REPLAYED", "TOKEN_ACCEPTED", 1)).unwrap();
    let mut checked = command(home);
    checked.args(["audit", "verify", "--rs"]).env("OBOL_RS__AUDIT_LOG", home.join("audit.jsonl"));
    assert_eq!(checked.output().unwrap().status.code(), Some(1));
}

#[test]
fn a_flood_of_forgeries_is_counted_and_hides_no_genuine_refusal() {
    let home = home::home();
    let home = home.path();
    let mut rs = start(home);
    let started = std::time::Instant::now();
    let mut http = Http::new(rs.port());
    let mut forged = fresh(0);
    forged.bad_signature = true;
    let forged = forged.text();
    let good = fresh(1);
    assert_eq!(http.present(&good.text()).as_deref(), Some("OK"));
    for n in 0..FLOOD {
        let (token, code) =
            if n % 2 == 0 { (&*forged, "INVALID_SIGNATURE") } else { ("rubbish", "MALFORMED_TOKEN") };
        assert_eq!(http.present(token).as_deref(), Some(code));
    }
    assert_eq!(http.present(&good.text()).as_deref(), Some("TOKEN_REPLAYED"));
    drop(http);
    let took = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    assert_eq!(rs.terminate(), Some(0));

    let lines = lines(home);
    let own_line = |code: &str| of(&lines, "denial").iter().filter(|line| line["code"] == code).count();
    let unproven = own_line("INVALID_SIGNATURE") + own_line("MALFORMED_TOKEN");
    assert!((BURST_UNPROVEN..=BURST_UNPROVEN + took).contains(&unproven), "{unproven} in {took} s");
    assert_eq!(own_line("TOKEN_REPLAYED"), 1);
    let counted: u64 = of(&lines, "denials").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(counted + unproven as u64, FLOOD, "none is forgotten");
    let report = verify(home);
    assert_eq!(report["denials"], FLOOD + 1);
}

#[test]
fn nothing_is_accepted_that_cannot_be_written_down_and_no_token_is_burned_by_it() {
    let home = home::home();
    let home = home.path();
    let mut rs = start(home);
    let mut http = Http::new(rs.port());
    let mut accepted = Vec::new();
    let mut present = |number: u64| {
        let token = fresh(number);
        let answer = http.present(&token.text()).unwrap();
        (token, answer)
    };
    let (token, answer) = present(0);
    assert_eq!(answer, "OK");
    accepted.push(hash_of_jti(&token));
    wait_until("the line is there", || of(&lines(home), "spend").len() == 1);

    let full = std::fs::metadata(home.join("audit.jsonl")).unwrap().len() + 4_096;
    limit_files(rs.pid(), Some(full));
    let mut refused = Vec::new();
    for number in 1.. {
        assert!(number < 10_000, "the log never gets full");
        let (token, answer) = present(number);
        match answer.as_str() {
            "OK" => accepted.push(hash_of_jti(&token)),
            "UNAVAILABLE" => refused.push(token),
            other => panic!("{other}"),
        }
        if refused.len() == 20 {
            break;
        }
    }
    let (status, body) = Http::new(rs.port()).get("/readyz").unwrap();
    assert!(status == 503 && body.contains("audit log"), "{status} {body}");
    assert_eq!(rs.metric("obol_ready"), 0);
    assert_eq!(rs.get("/livez"), 200);

    limit_files(rs.pid(), None);
    wait_until("it is ready again by itself", || rs.get("/readyz") == 200);
    let mut http = Http::new(rs.port());
    for token in refused {
        assert_eq!(http.present(&token.text()).as_deref(), Some("OK"), "a token was burned");
        accepted.push(hash_of_jti(&token));
    }
    drop(http);
    assert_eq!(rs.terminate(), Some(0));
    let lines = lines(home);
    let written: Vec<_> =
        of(&lines, "spend").iter().map(|line| line["jti_sha256"].as_str().unwrap().to_owned()).collect();
    assert_eq!(written, accepted);
    assert_eq!(verify(home)["refused"], 20);
}

/// Takes marks and never says that it has them.
#[derive(Debug, Default)]
pub(crate) struct Silent(pub(crate) Mutex<Vec<Spender>>);

impl SpentSet for Silent {
    fn is_spent(&self, _mark: &Mark) -> Result<bool, SpendError> {
        Ok(false)
    }

    fn spend_with(&self, _mark: Mark, _with: Option<Mark>) -> SpendTicket {
        let (sender, ticket) = SpendTicket::pending();
        self.0.lock().unwrap().push(sender);
        ticket
    }

    fn fence(&self) -> Option<u64> {
        None
    }

    fn keep_after_expiry(&self) -> u64 {
        u64::MAX
    }

    fn health(&self) -> Result<(), SpendError> {
        Ok(())
    }

    fn marks(&self) -> Option<usize> {
        None
    }
}

#[test]
fn a_token_whose_bearer_is_gone_before_the_answer_has_a_line_that_says_so() {
    let home = home::home();
    let home = home.path();
    let spent = Arc::new(Silent::default());
    let clock = Arc::new(ManualClock::new(NOW));
    let server = Server::with_spent_set(session(), clock, Arc::clone(&spent) as _, |builder| builder);
    let log = obol_audit::LogOptions::new(home.join("audit.jsonl"), home.join("head"));
    let log = Arc::new(log.open(ChainKey::from_bytes([7; 32])).unwrap());
    let gate = Gate::new(server.verifier.clone()).audited(log);
    let token = Forge::standard(1);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (text, call) = (token.text(), ToolCall::new(TOOL).action("read").resource("docs/a"));
        let answer = gate.admit(text.as_bytes(), &call);
        assert!(tokio::time::timeout(Duration::from_millis(100), answer).await.is_err());
    });
    assert_eq!(spent.0.lock().unwrap().len(), 1, "it was being spent");
    drop(gate);
    let lines = lines(home);
    assert_eq!(of(&lines, "spend").len(), 0);
    let denials = of(&lines, "denial");
    assert_eq!(denials.len(), 1, "{lines:?}");
    assert_eq!((&denials[0]["code"], &denials[0]["check"]), (&json!("UNAVAILABLE"), &json!("SPENT_SET")));
    assert_eq!(denials[0]["jti_sha256"], hash_of_jti(&token));
}
