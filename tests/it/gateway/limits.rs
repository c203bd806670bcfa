//! Bodies that are too long, and who is made to wait for none.

use super::{World, file};
use crate::resource::send;

/// A request with a token and these lines, and whatever comes behind its head.
fn post(world: &World, path: &str, token: &str, lines: &str, body: &str) -> crate::resource::Answer {
    send(
        world.at(),
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\n{lines}\r\n{body}"
        ),
    )
}

#[test]
fn a_body_over_its_limit_does_not_reach_the_api() {
    let world = World::start();
    let token = world.token("search");
    let longer = "Content-Length: 1001\r\n";
    assert_eq!(post(&world, "/saas/v1/files/a", &token, longer, "").status, 413);
    let fits = "a".repeat(1_000);
    let lines = "Content-Type: text/plain\r\nContent-Length: 1000\r\nConnection: close\r\n";
    let answer = post(&world, "/saas/v1/files/a", &token, lines, &fits);
    assert_eq!(answer.status, 200, "what was refused spent nothing: {} {}", answer.text(), world.log());
    assert!(world.seen.lock()[0].ends_with(&format!("\n{fits}")));

    // How long it is shows on the way: the token is spent then, and the API gets no end of it.
    let token = world.token("search");
    let chunks = format!("3e8\r\n{fits}\r\n1\r\nb\r\n0\r\n\r\n");
    let answer = post(&world, "/saas/v1/files/b", &token, "Transfer-Encoding: chunked\r\n", &chunks);
    assert_eq!(answer.problem().1, "UPSTREAM_FAILED", "{}", world.log());
    assert_eq!(world.ask("GET /saas/v1/search/a", &token, "", "").problem().1, "TOKEN_REPLAYED");
    assert_eq!(world.count(), 1);
}

#[test]
fn a_stranger_is_refused_before_a_body_is_waited_for() {
    let world = World::start();
    for path in ["/saas/v1/search/a", "/saas/v1/files/a"] {
        let lines = "Content-Type: application/json\r\nContent-Length: 100\r\n";
        assert_eq!(post(&world, path, "x", lines, "").status, 401, "{path}");
    }
    assert_eq!(world.count(), 0);
}

#[test]
fn an_api_that_does_not_answer_in_time_is_told_apart_and_asked_once() {
    let world = World::with(&[], |_, api| format!("timeout = 1\n{}", file(api)));
    let token = world.token("search");
    let late = world.ask("GET /saas/v1/search/slow", &token, "", "");
    assert_eq!(
        (late.status, late.json()["code"].as_str()),
        (504, Some("UPSTREAM_TIMEOUT")),
        "{}",
        world.log()
    );
    assert_eq!(world.ask("GET /saas/v1/search/a", &token, "", "").problem().1, "TOKEN_REPLAYED");
    assert_eq!(world.count(), 1);
    let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
    assert_eq!(answer.status, 200, "one that answers is in time: {}", answer.text());
}
