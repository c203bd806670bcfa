//! A call through the gateway, and everything that is no call.

use super::{SECRET, World};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn the_api_gets_the_real_credential_and_nothing_that_the_agent_sent_of_its_own() {
    let world = World::start();
    let more = format!(
        "{JSON}Cookie: a=b\r\nX-Api-Key: mine\r\nX-Forwarded-For: 1.2.3.4\r\nX-Http-Method-Override: DELETE\r\n\
         Range: bytes=0-24\r\nIf-Range: \"v1\"\r\n"
    );
    let token = world.token("search");
    let answer = world.ask("POST /saas/v1/search/a?q=x", &token, &more, r#"{"n": 1}"#);
    assert_eq!(answer.status, 200, "{} {}", answer.text(), world.log());
    let seen = world.seen.lock().clone();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(seen.starts_with("post /v1/search/a?q=x http/1.1\r\n"), "{seen}");
    assert!(
        seen.contains(&format!("authorization: bearer {SECRET}\r\n")) && seen.ends_with(r#"{"n":1}"#),
        "{seen}"
    );
    // Of a piece that somebody may choose the gateway cannot see that a credential is in it.
    for gone in
        ["tbac", "cookie", "x-api-key", "x-forwarded-for", "x-http-method", "connection: close", "range"]
    {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
}

#[test]
fn a_hijacked_agent_finds_the_credential_nowhere() {
    let world = World::start();
    let token = world.token("search");
    let answer = world.ask("GET /saas/v1/search/a", &token, "", "");
    assert_eq!(answer.status, 200, "{}", world.log());
    assert!(answer.text().contains("authorization: bearer ***"), "the API did show it: {}", answer.text());
    let refused = world.ask("GET /saas/v1/search/401", &world.token("search"), "", "");
    assert_eq!(refused.problem().1, "CREDENTIAL_REFUSED");
    for answer in [&answer, &refused] {
        assert!(!answer.text().contains(SECRET));
        assert_eq!((answer.header("x-echo"), answer.header("set-cookie")), (None, None));
    }
    assert!(!world.log().contains(SECRET), "in the log");
    for file in ["apis/saas.credential", "apis/saas.toml"] {
        let bytes = std::fs::read(world.home().join(file)).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{file}");
    }
    let pid = world.child.as_ref().unwrap().id();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environment).contains(SECRET));
}

#[test]
fn a_token_is_good_for_one_request_of_its_tool_and_what_is_refused_does_not_reach_the_api() {
    let world = World::start();
    let token = world.token("search");
    for (line, code) in [
        ("POST /saas/v1/pay", "INSUFFICIENT_PRIVILEGE"),
        ("DELETE /saas/v1/search/a", "METHOD_NOT_ALLOWED"),
        ("GET /saas/v1/admin", "NOT_FOUND"),
        ("GET /other/v1/search/a", "NOT_FOUND"),
        ("GET /saas/v1/search/a?admin=1", "MALFORMED_REQUEST"),
        ("GET /saas/v1/search/../pay", "MALFORMED_REQUEST"),
        ("GET /saas/v1/search/%2e%2e/pay", "MALFORMED_REQUEST"),
        ("GET /saas/v1/search/a%2Fb", "MALFORMED_REQUEST"),
    ] {
        let answer = world.ask(line, &token, "", "");
        assert_eq!(answer.json()["code"], code, "{line}");
    }
    assert_eq!(world.ask("POST /saas/v1/search/a", &token, JSON, "[1]").status, 400, "not an object");
    assert_eq!(world.ask("GET /saas/v1/search/a", "x", "", "").status, 401);
    assert_eq!(world.count(), 0);
    assert_eq!(
        world.ask("GET /saas/v1/search/a", &token, "", "").status,
        200,
        "nothing was burned: {}",
        world.log()
    );
    assert_eq!(world.ask("GET /saas/v1/search/a", &token, "", "").problem().1, "TOKEN_REPLAYED");
    assert_eq!(world.count(), 1);
}

#[test]
fn a_gateway_that_is_killed_in_the_middle_of_a_call_runs_it_never_again() {
    let mut world = World::start();
    let token = world.token("search");
    let at = world.at();
    let request = format!(
        "GET /saas/v1/search/slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nConnection: close\r\n\r\n"
    );
    let sending = std::thread::spawn(move || crate::resource::send(at, request).status);
    obol_world::home::wait_until("the API has it", || world.count() == 1);
    world.kill();
    assert_eq!(sending.join().unwrap(), 0, "no answer");
    world.run(&[]);
    assert_eq!(world.ask("GET /saas/v1/search/a", &token, "", "").problem().1, "TOKEN_REPLAYED");
    assert_eq!(world.count(), 1);
}
