//! Wrapper and guard are killed in the middle of calls, and all that was recorded is sent again: no call runs twice.

use obol_mcp::EXTENSION;
use obol_world::home;
use obol_world::tqs::Tqs;
use serde_json::json;

use super::attacks::{in_session, message, session};
use super::{Tap, guard_at, server, wrapped_url};
use crate::mcp::pipe::{Pipe, call, create_session, reason};

const CALLS: u64 = 24;

#[test]
fn no_call_runs_twice_over_http_whoever_is_killed_and_whatever_is_sent_again() {
    let home = home::home();
    let home = home.path();
    create_session(home, &["--tool", "add"]);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let server = server(home, &[]);
    let durable = ["--spent", "spent.redb"];
    let mut guard = guard_at(home, home::free_port(), &server.url(), &durable);
    let tap = Tap::start(guard.port);
    for round in 0..4_u64 {
        let mut client = Pipe::start(home, &wrapped_url(&tap.url()));
        client.initialize();
        client.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        for n in 0..CALLS {
            let id = round * 1_000 + n;
            client.tell(&call(id, "add", &json!({"a": id, "b": 0})).to_string());
        }
        // Some have been answered for sure; of the others nobody knows.
        (0..4 + 3 * round).for_each(|_| drop(client.hear().unwrap()));
        if round % 2 == 0 {
            guard.kill();
            client.kill();
            guard = guard_at(home, guard.port, &server.url(), &durable);
        } else {
            client.kill();
        }
    }
    let begun = session(guard.address());
    let (mut replayed, mut ran) = (0, 0);
    for (_, recorded) in tap.calls() {
        assert!(recorded["params"]["_meta"][EXTENSION]["token"].is_string(), "{recorded}");
        let answer = message(&in_session(guard.address(), &begun, &recorded.to_string()));
        if answer["result"]["isError"] == true {
            assert_eq!(reason(&answer), "TOKEN_REPLAYED");
            replayed += 1;
        } else {
            ran += 1;
        }
    }
    assert!(replayed >= 34, "{replayed} were refused, and {ran} had not run yet");
    let seen = std::fs::read_to_string(home.join("seen")).unwrap();
    let mut once: Vec<&str> = seen.lines().collect();
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all, "a call ran twice: {seen}");
}
