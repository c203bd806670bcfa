//! What is sent again, by somebody else, with another head, from a web page, or to somebody who has forgotten: refused, and each attack has
//! a control.

use core::net::SocketAddr;

use obol_mcp::EXTENSION;
use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};

use super::{Tap, guard, guard_at, server, wrapped_url};
use crate::mcp::pipe::{Pipe, call, create_session, reason};
use crate::resource::{Answer, send};

const JSON: &str = "application/json";
const MODERN: &str = "2026-07-28";

/// Posts a message with these headers.
fn post(address: SocketAddr, headers: &[(&str, &str)], body: &str) -> Answer {
    let usual =
        [("Host", "localhost"), ("Content-Type", JSON), ("Accept", "application/json, text/event-stream")];
    let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let usual = usual.iter().filter(|(name, _)| !is_given(name));
    let head: String = usual.chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    send(
        address,
        format!("POST /mcp HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"),
    )
}

/// The message in an answer, be it JSON or an event.
pub(super) fn message(answer: &Answer) -> Value {
    let text = answer.text();
    let from = text.find('{').unwrap_or_else(|| panic!("{} {text}", answer.status));
    let to = text.rfind('}').unwrap();
    serde_json::from_str(&text[from..=to]).unwrap()
}

fn hello() -> String {
    let client = json!({"name": "t", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
}

/// Begins a session of its own.
pub(super) fn session(address: SocketAddr) -> String {
    let answer = post(address, &[], &hello());
    let offered = &message(&answer)["result"]["capabilities"]["experimental"][EXTENSION]["version"];
    assert_eq!(offered, obol_mcp::VERSION);
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    assert_eq!(in_session(address, &session, &done).status, 202);
    session
}

pub(super) fn in_session(address: SocketAddr, session: &str, body: &str) -> Answer {
    post(address, &[("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-11-25")], body)
}

/// A request of 2026-07-28.
fn modern(method: &str, params: Value) -> String {
    let mut params = params;
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

fn ran(home: &std::path::Path) -> String {
    std::fs::read_to_string(home.join("seen")).unwrap_or_default()
}

/// Calls with tokens that were never spent: a wrapped client's, to an address that takes everything and passes nothing on.
fn stolen(home: &std::path::Path, url: &str) -> Vec<Value> {
    std::fs::write(home.join("open.toml"), "open = [\"add\", \"slow\"]\n").unwrap();
    let thief = guard(home, url, &["--spent", "memory", "--rules", "open.toml"]);
    let tap = Tap::start(thief.port);
    let mut client = Pipe::start(home, &wrapped_url(&tap.url()));
    client.initialize();
    client.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    for id in 1..=3 {
        client.call(id, "add", &json!({"a": id, "b": 2}));
    }
    client.finish();
    std::fs::remove_file(home.join("seen")).unwrap();
    tap.calls().into_iter().map(|(_, call)| call).collect()
}

#[test]
fn a_recorded_message_and_another_clients_token_are_refused_over_http() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add", "--tool", "slow", "--require-pop"]);
    let _tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    let server = server(home.path(), &[]);
    let calls = stolen(home.path(), &server.url());
    assert_eq!(calls.len(), 3);
    let mut guarded = guard(home.path(), &server.url(), &["--spent", "spent.redb"]);
    let address = guarded.address();
    // A second client, with a session of its own.
    let other = session(address);
    let refused = |message_: &Value| {
        let answer = in_session(address, &other, &message_.to_string());
        reason(&message(&answer)).to_owned()
    };
    let mut changed = calls[0].clone();
    changed["params"]["arguments"]["a"] = json!(100);
    assert_eq!(refused(&changed), "POP_FAILED", "other arguments");
    let mut changed = calls[0].clone();
    changed["params"]["name"] = json!("slow");
    assert_eq!(refused(&changed), "INSUFFICIENT_PRIVILEGE", "another tool");
    let mut own = call(9, "add", &json!({"a": 7, "b": 7}));
    own["params"]["_meta"] = calls[0]["params"]["_meta"].clone();
    assert_eq!(refused(&own), "POP_FAILED", "the second client's own call with the first one's token");
    assert_eq!(ran(home.path()), "", "none of them reached the server");

    let first = session(address);
    let answer = in_session(address, &first, &calls[0].to_string());
    assert_eq!(message(&answer)["result"]["content"][0]["text"], "add 1 2", "and none burned the token");
    for session in [&first, &other] {
        let again = in_session(address, session, &calls[0].to_string());
        assert_eq!(reason(&message(&again)), "TOKEN_REPLAYED");
    }
    guarded.kill();
    let guarded = guard(home.path(), &server.url(), &["--spent", "spent.redb"]);
    let begun = session(guarded.address());
    let again = in_session(guarded.address(), &begun, &calls[0].to_string());
    assert_eq!(reason(&message(&again)), "TOKEN_REPLAYED", "nor by a guard that is started anew");
    assert_eq!(ran(home.path()), "add 1 2\n");
}

#[test]
fn headers_that_say_something_else_than_the_message_are_refused() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    std::fs::write(home.path().join("open.toml"), "open = [\"add\", \"slow\"]\n").unwrap();
    let server = server(home.path(), &[]);
    let guard = guard(home.path(), &server.url(), &["--spent", "memory", "--rules", "open.toml"]);
    let called = modern("tools/call", json!({"name": "add", "arguments": {"a": 1, "b": 1}}));
    let good = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", "add")];
    for (at, wrong) in [
        (0, ("MCP-Protocol-Version", "2025-11-25")),
        (0, ("X-None", "1")),
        (1, ("Mcp-Method", "tools/list")),
        (1, ("X-None", "1")),
        (2, ("Mcp-Name", "slow")),
        (2, ("Mcp-Name", "Add")),
        (2, ("Mcp-Name", "=?base64?c2xvdw==?=")),
        (2, ("mcp_name", "add")),
        (2, ("X-None", "1")),
    ] {
        let mut headers = good;
        headers[at] = wrong;
        let answer = post(guard.address(), &headers, &called);
        assert_eq!((answer.status, &message(&answer)["error"]["code"]), (400, &json!(-32_020)), "{wrong:?}");
        assert_eq!(message(&answer)["id"], 1);
    }
    for twice in [("Mcp-Name", "slow"), ("Mcp-Name", "add"), ("MCP-Protocol-Version", "2025-11-25")] {
        let headers = [&good[..], &[twice]].concat();
        assert_eq!(post(guard.address(), &headers, &called).status, 400, "{twice:?}");
    }
    assert_eq!(ran(home.path()), "");
    let answer = post(guard.address(), &good, &called);
    assert_eq!(message(&answer)["result"]["content"][0]["text"], "add 1 1", "the control");
    assert_eq!(ran(home.path()), "add 1 1\n");
}

#[test]
fn a_web_page_and_what_is_no_message_reach_no_server() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let server = server(home.path(), &[]);
    let tap = Tap::start(server.port);
    let guard = guard(home.path(), &tap.url(), &["--spent", "memory"]);
    let address = guard.address();
    for (headers, status) in [
        (&[("Host", "evil.example")][..], 403),
        (&[("Origin", "http://evil.example")][..], 403),
        (&[("Origin", "null")][..], 403),
        (&[("Content-Type", "text/plain")][..], 415),
        (&[("Content-Encoding", "gzip")][..], 415),
        (&[("Mcp-Session-Id", "unheard-of")][..], 404),
    ] {
        assert_eq!(post(address, headers, &hello()).status, status, "{headers:?}");
    }
    for (line, status) in [
        ("GET /mcp HTTP/1.1", 405),
        ("DELETE /mcp HTTP/1.1", 400),
        ("PUT /mcp HTTP/1.1", 405),
        ("GET /other HTTP/1.1", 404),
        ("GET /mcp?a=b HTTP/1.1", 404),
        ("GET /mcp HTTP/1.1\r\nMcp-Session-Id: unheard-of", 404),
        ("DELETE /mcp HTTP/1.1\r\nMcp-Session-Id: unheard-of", 404),
    ] {
        let answer = send(address, format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert_eq!(answer.status, status, "{line}");
    }
    let long = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 99999999\r\n\r\n"
    );
    assert_eq!(send(address, long).status, 413);
    for body in ["", "no json", "[]", r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#] {
        let answer = post(address, &[], body);
        assert!([202, 400].contains(&answer.status) || message(&answer)["error"]["code"].is_i64(), "{body}");
    }
    assert!(tap.messages().is_empty(), "{:?}", tap.messages());
    session(address);
    assert_eq!(tap.messages().len(), 2, "the control");
}

#[test]
fn a_guard_that_was_started_again_knows_no_session_and_passes_nothing_on() {
    let home = home::home();
    create_session(home.path(), &["--tool", "add"]);
    let server = server(home.path(), &[]);
    let mut guarded = guard(home.path(), &server.url(), &["--spent", "memory"]);
    let port = guarded.port;
    let name = session(guarded.address());
    let list = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list"}).to_string();
    assert_eq!(in_session(guarded.address(), &name, &list).status, 200, "the control");
    guarded.kill();
    let guarded = guard_at(home.path(), port, &server.url(), &["--spent", "memory"]);
    assert_eq!(in_session(guarded.address(), &name, &list).status, 404);
    let stream = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\r\nMcp-Session-Id: {name}\r\nLast-Event-ID: 1\r\n\r\n"
    );
    assert_eq!(send(guarded.address(), stream).status, 404);
    let ended = format!(
        "DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nMcp-Session-Id: {name}\r\n\r\n"
    );
    assert_eq!(send(guarded.address(), &ended).status, 404);
    let begun = session(guarded.address());
    let ended = ended.replace(&name, &begun);
    assert_eq!(send(guarded.address(), &ended).status, 200, "the control");
    assert_eq!(in_session(guarded.address(), &begun, &list).status, 404, "what has ended is over");
}
