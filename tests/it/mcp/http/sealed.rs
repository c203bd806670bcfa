//! Sealed calls over HTTP: who is in between reads neither arguments nor results, and a message that was sealed once is good once.

use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::json;

use super::attacks::{in_session, message, session};
use super::{Tap, guard, log_of, server, wrapped_url};
use crate::mcp::pipe::{Pipe, call, create_session, reason, seal_all};

/// A server that answers in this way, and a wrapped client whose calls are sealed.
fn nobody_in_between_reads_it(flags: &[&str]) {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    seal_all(home.path());
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = server(home.path(), flags);
    let guard = guard(home.path(), &server.url(), &["--spent", "memory"]);
    let tap = Tap::start(guard.port);
    let mut client = Pipe::start(home.path(), &wrapped_url(&tap.url()));
    client.initialize();
    client.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    for (id, a) in [(1, 417_301), (2, 417_302)] {
        let answer = client.call(id, "add", &json!({"a": a, "b": 1}));
        let text = format!("add {a} 1");
        assert_eq!(answer["result"]["content"][0]["text"], *text, "{answer} {}", log_of(home.path()));
    }
    client.finish();
    let ran = std::fs::read_to_string(home.path().join("seen")).unwrap();
    assert_eq!(ran, "add 417301 1\nadd 417302 1\n", "the server reads them");
    let calls = tap.calls();
    assert_eq!(calls.len(), 2);
    let asked: String = calls.iter().map(|(head, call)| format!("{head}{call}")).collect();
    let answered = String::from_utf8_lossy(&tap.answered.lock()).into_owned();
    for said in [&asked, &answered] {
        assert!(said.contains("\"enc\"") && !said.contains("4173"), "{said}");
    }

    let address = guard.address();
    let begun = session(address);
    let refused = |message_: &serde_json::Value| {
        let answer = in_session(address, &begun, &message_.to_string());
        reason(&message(&answer)).to_owned()
    };
    let (first, second) = (&calls[0].1, &calls[1].1);
    assert_eq!(refused(first), "TOKEN_REPLAYED");
    let mut crossed = first.clone();
    crossed["params"]["_meta"][obol_mcp::EXTENSION]["enc"] =
        second["params"]["_meta"][obol_mcp::EXTENSION]["enc"].clone();
    assert_ne!(refused(&crossed), "", "what was sealed for one token is not good with another");
    assert_eq!(std::fs::read_to_string(home.path().join("seen")).unwrap(), ran, "nothing ran again");
}

#[test]
fn sealed_calls_pass_over_http_to_a_server_that_answers_in_events() {
    nobody_in_between_reads_it(&[]);
}

#[test]
fn sealed_calls_pass_over_http_to_a_server_that_answers_in_json() {
    nobody_in_between_reads_it(&["json"]);
}

#[test]
fn a_call_in_the_clear_with_a_token_that_asks_for_a_seal_is_refused_and_burns_nothing() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    seal_all(home.path());
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = server(home.path(), &[]);
    let guard = guard(home.path(), &server.url(), &["--spent", "memory"]);
    let begun = session(guard.address());
    let mut clear = call(1, "add", &json!({"a": 1, "b": 1}));
    let token = crate::end_to_end::draw(&tqs, "add");
    clear["params"]["_meta"] = json!({obol_mcp::EXTENSION: {"token": token, "format": "opaque"}});
    for _ in 0..2 {
        let answer = in_session(guard.address(), &begun, &clear.to_string());
        assert_eq!(reason(&message(&answer)), "CHANNEL_ENCRYPTION_REQUIRED", "it was not spent");
    }
    assert!(!home.path().join("seen").exists(), "nothing ran");
}
