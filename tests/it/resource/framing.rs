//! Requests that are not quite what HTTP or the service expects.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use obol_resource::Gate;
use obol_world::TOOL;
use obol_world::forge::Forge;
use serde_json::json;

use super::running::Site;
use super::{PATIENCE, fetch, post, refusal, send};

#[test]
fn other_methods_spend_nothing() {
    let site = Site::new();
    let token = Forge::standard(1);
    let body = json!({"token": token.text(), "tool": TOOL}).to_string();
    for method in ["HEAD", "OPTIONS", "PUT", "GET", "TRACE", "VERIFY"] {
        let answer = send(
            site.service(),
            format!(
                "{method} /v1/verify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(site.server.spent.marks(), Some(0));
}

#[test]
fn huge_tokens_are_refused_as_such() {
    let site = Site::new();
    let malformed = refusal(401, "MALFORMED_TOKEN", "FRAMING_CHECK");
    let long = "A".repeat(50_000);
    let headers = [("Authorization", format!("TBAC {long}"))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(fetch(site.app, "/search", &headers).problem(), malformed);
    let body = json!({"token": "A".repeat(1_000_000), "tool": TOOL}).to_string();
    assert_eq!(post(site.service(), "/v1/verify", &body).problem(), malformed);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_spend_each_token_once() {
    let site = Site::new();
    let request = |number, more: &str| {
        let body = json!({"token": Forge::standard(number).text(), "tool": TOOL}).to_string();
        format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let requests = [request(1, ""), request(1, ""), request(2, "Connection: close\r\n")].concat();
    let answer = send(site.service(), requests);
    let all = format!("{}\r\n\r\n{}", answer.head, answer.text());
    let statuses: Vec<&str> = all.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "401", "200"]);
}

#[test]
fn a_request_of_two_lengths_is_read_as_neither() {
    let site = Site::new();
    let inner = json!({"token": Forge::standard(1).text(), "tool": TOOL}).to_string();
    let hidden = format!(
        "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let whole = hidden.len();
    for lengths in [
        format!("Content-Length: 0\r\nContent-Length: {whole}\r\n"),
        format!("Content-Length: {whole}, 0\r\n"),
        format!("Transfer-Encoding: identity\r\nContent-Length: {whole}\r\n"),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
    ] {
        let request = format!("POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n{hidden}");
        let answer = send(site.service(), request);
        assert_ne!(answer.status, 200, "{lengths}");
        assert_eq!(site.server.spent.marks(), Some(0), "the hidden request was served: {lengths}");
    }
}

#[test]
fn idle_connections_and_unread_answers_give_their_places_back() {
    let short = Duration::from_millis(200);
    let site = Site::configured(Gate::new, |options| {
        options.max_connections(2).header_timeout(short).write_timeout(short).body_timeout(PATIENCE)
    });
    // One that says nothing after its first request, and one that asks and asks, and never reads an answer.
    let mut idle = TcpStream::connect(site.service()).unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut greedy = TcpStream::connect(site.service()).unwrap();
    greedy.set_write_timeout(Some(PATIENCE)).unwrap();
    let questions = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let deadline = Instant::now() + PATIENCE;
    while greedy.write_all(&questions).is_ok() {
        assert!(Instant::now() < deadline, "the connection is kept for a peer that does not read");
    }
    let mut rest = Vec::new();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    idle.read_to_end(&mut rest).unwrap();
    assert_eq!(fetch(site.service(), "/livez", &[]).status, 200);
}
