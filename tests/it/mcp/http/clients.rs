//! Clients and servers as they are published: each call takes a token of its own, and nothing else is different.

use std::ffi::OsString;
use std::path::Path;

use obol_mcp::EXTENSION;
use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::{Tap, guard, log_of, server, wrapped_url};
use crate::mcp::pipe::create_session;
use crate::mcp::reference::{call, client_of_python, client_of_typescript, is_refused, start, text};

const TOOLS: [&str; 6] = ["--tool", "add", "--tool", "pay", "--tool", "slow"];

type Client<'a> = &'a dyn Fn(Vec<OsString>) -> Vec<OsString>;

fn tokens(calls: &[(String, Value)]) -> Vec<String> {
    let token = |call: &Value| call["params"]["_meta"][EXTENSION]["token"].as_str().map(str::to_owned);
    let mut tokens: Vec<String> = calls.iter().filter_map(|(_, call)| token(call)).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

/// One client: bare, and with both in between. `rounds` is how often a call that asks back is sent.
fn same_with_tokens(home: &Path, client: Client<'_>, flags: &[&str], rounds: usize) {
    let server = server(home, flags);
    let seen = home.join("seen");
    let (mut bare, version) = start(home, &client(vec![server.url().into()]));
    let tools = bare.ask(&json!({}));
    let added = call(&mut bare, "add", &json!({"a": 1, "b": 2}));
    assert_eq!(text(&added), "add 1 2");
    let asked = call(&mut bare, "pay", &json!({"cents": 5}));
    bare.finish();
    std::fs::remove_file(&seen).unwrap();

    let guard = guard(home, &server.url(), &["--spent", "memory"]);
    let tap = Tap::start(guard.port);
    let (mut wrapped, same) = start(home, &client(wrapped_url(&tap.url())));
    assert_eq!(same, version);
    assert_eq!(wrapped.ask(&json!({})), tools, "the list says the same");
    assert_eq!(call(&mut wrapped, "add", &json!({"a": 1, "b": 2})), added);
    assert_eq!(call(&mut wrapped, "add", &json!({"a": 1, "b": 2})), added, "and once more");
    assert_eq!(text(&call(&mut wrapped, "slow", &json!({"n": 3}))), "slow 3");
    let calls = tap.calls();
    assert_eq!((calls.len(), tokens(&calls).len()), (3, 3), "{calls:?}");
    assert_eq!(call(&mut wrapped, "pay", &json!({"cents": 5})), asked);
    let calls = tap.calls();
    assert_eq!(
        (calls.len(), tokens(&calls).len()),
        (3 + rounds, 3 + rounds),
        "each round takes one: {calls:?}"
    );
    wrapped.finish();
    let ran = "add 1 2\nadd 1 2\nslow 3\n".to_owned();
    let ran = if asked["isError"] == true { ran } else { format!("{ran}pay 5 True\n") };
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), ran, "{}", log_of(home));
}

fn with_session(test: impl FnOnce(&Path)) {
    let home = home::home();
    create_session(home.path(), &TOOLS);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    test(home.path());
}

#[test]
fn a_python_client_of_2026_calls_a_guarded_server_over_http() {
    with_session(|home| {
        same_with_tokens(home, &|server| client_of_python("auto", server), &[], 2);
    });
}

#[test]
fn a_python_client_of_2025_calls_a_guarded_server_over_http() {
    with_session(|home| same_with_tokens(home, &|server| client_of_python("legacy", server), &[], 1));
}

#[test]
fn a_typescript_client_calls_a_guarded_server_over_http() {
    with_session(|home| same_with_tokens(home, &client_of_typescript, &[], 1));
}

#[test]
fn a_python_client_calls_a_guarded_server_that_answers_in_json() {
    with_session(|home| {
        same_with_tokens(home, &|server| client_of_python("auto", server), &["json"], 2);
    });
}

#[test]
fn a_tool_without_a_grant_is_refused_and_a_client_without_a_wrapper_as_well() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = server(home.path(), &[]);
    let guard = guard(home.path(), &server.url(), &["--spent", "memory"]);
    for mode in ["auto", "legacy"] {
        let (mut wrapped, _) = start(home.path(), &client_of_python(mode, wrapped_url(&guard.url())));
        assert!(is_refused(&call(&mut wrapped, "slow", &json!({"n": 1}))), "{mode}");
        assert_eq!(text(&call(&mut wrapped, "add", &json!({"a": 1, "b": 2}))), "add 1 2", "{mode}");
        wrapped.finish();
        let (mut bare, _) = start(home.path(), &client_of_python(mode, vec![guard.url().into()]));
        assert!(is_refused(&call(&mut bare, "add", &json!({"a": 1, "b": 2}))), "{mode}");
        bare.finish();
    }
    assert_eq!(std::fs::read_to_string(home.path().join("seen")).unwrap(), "add 1 2\nadd 1 2\n");
}

#[test]
fn a_wrapped_client_works_with_a_server_over_http_that_knows_nothing_and_draws_nothing() {
    let home = home::home();
    let server = server(home.path(), &[]);
    let tap = Tap::start(server.port);
    for mode in ["auto", "legacy"] {
        let (mut wrapped, _) = start(home.path(), &client_of_python(mode, wrapped_url(&tap.url())));
        assert_eq!(text(&call(&mut wrapped, "add", &json!({"a": 1, "b": 2}))), "add 1 2", "{mode}");
        wrapped.finish();
    }
    assert_eq!((tap.calls().len(), tokens(&tap.calls()).len()), (2, 0));
}
