//! The resource server over real connections.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use obol_resource::Gate;
use obol_resource::service::{BindCause, Options};
use obol_world::ManualClock;
use obol_world::forge::Forge;
use obol_world::scope::{scope_json, scope_with};
use obol_world::server::Server;
use obol_world::{SESSION, TOOL};
use serde_json::json;
use tokio::runtime::Runtime;

use super::running::{Running, Site};
use super::{PATIENCE, fetch, post, refusal, send};

#[test]
fn a_guarded_route_lets_each_token_through_once() {
    let site = Site::new();
    let token = Forge::standard(1);
    let first = site.call("/search", &token);
    assert_eq!((first.status, first.text()), (200, &*format!("{TOOL} for {SESSION}")));
    let second = site.call("/search", &token);
    assert_eq!(second.problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));
    assert_eq!(
        second.json()["type"],
        "https://github.com/obol-tokens/obol/blob/main/docs/errors.md#token_replayed"
    );
    assert_eq!(second.header("cache-control"), Some("no-store"));
}

#[test]
fn a_token_for_another_tool_is_forbidden_and_not_burned() {
    let site = Site::new();
    let token = Forge::standard(1);
    let forbidden = refusal(403, "INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION");
    assert_eq!(site.call("/delete", &token).problem(), forbidden);
    assert_eq!(site.call("/search", &token).status, 200);
}

#[test]
fn the_call_may_follow_from_the_request() {
    let site = Site::new();
    let narrow = |number| Forge::new(number, &scope_with(json!({"resource": "docs/a"})));
    assert_eq!(site.call("/docs/b", &narrow(1)).problem().0, 403);
    assert_eq!(site.call("/docs/a", &narrow(1)).status, 200);
    assert_eq!(site.call("/docs/a/b", &narrow(2)).status, 200);
}

#[test]
fn requests_without_a_usable_token_are_told_what_is_missing() {
    let site = Site::new();
    let ask = |headers: &[(&str, &str)]| fetch(site.app, "/search", headers).problem();
    let absent = refusal(401, "TBAC_REQUIRED", "TOKEN_ABSENT");
    assert_eq!(ask(&[]), absent);
    assert_eq!(ask(&[("Authorization", "Bearer abc")]), absent);
    let malformed = refusal(401, "MALFORMED_TOKEN", "FRAMING_CHECK");
    for value in ["TBAC", "TBAC abc", "TBAC a+b/=", "TBAC \u{e9}"] {
        assert_eq!(ask(&[("Authorization", value)]), malformed, "{value}");
    }
    let token = format!("tbac {}", Forge::standard(1).text());
    let twice = [("Authorization", token.as_str()), ("authorization", token.as_str())];
    assert_eq!(ask(&twice), refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING"));
    assert_eq!(fetch(site.app, "/search", &[("authorization", &token)]).status, 200);
}

#[test]
fn a_route_without_the_layer_fails_closed() {
    let site = Site::new();
    let answer = site.call("/forgotten", &Forge::standard(1));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("GUARD_MISSING")));
}

#[test]
fn tokens_whose_limits_a_route_cannot_see_are_refused() {
    let site = Site::new();
    let limited = scope_with(json!({"constraints": {"allowed_parameters": {"q": "*"}}}));
    assert_eq!(site.call("/search", &Forge::new(1, &limited)).problem().0, 403);
    // The service is told the arguments.
    assert_eq!(site.verify(&Forge::new(1, &limited), json!({"arguments": {"q": "a/b"}})).problem().0, 403);
    assert_eq!(site.verify(&Forge::new(1, &limited), json!({"arguments": {"q": "rows"}})).status, 200);
}

#[test]
fn of_sixty_four_clients_with_one_token_exactly_one_is_served() {
    const CLIENTS: usize = 64;
    let site = Site::new();
    for (round, by_service) in [(1, false), (2, true), (3, false)] {
        let token = Forge::standard(round);
        let start = Barrier::new(CLIENTS);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        if by_service {
                            site.verify(&token, json!({})).status
                        } else {
                            site.call("/search", &token).status
                        }
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), CLIENTS - 1, "{statuses:?}");
    }
}

#[test]
fn the_service_answers_with_scope_and_names() {
    let site = Site::new();
    let token = Forge::standard(1);
    let answer = site.verify(&token, json!({"action": "read", "resource": "docs/a", "arguments": {}}));
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"ok": true, "session_id": SESSION.to_string(), "jti": token.jti().as_str(), "scope": scope_json()})
    );
    assert_eq!(site.verify(&token, json!({})).problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));
    let wrong = site.verify(&Forge::standard(2), json!({"action": "write"}));
    assert_eq!(wrong.problem(), refusal(403, "INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION"));
    let absent = post(site.service(), "/v1/verify", &json!({"tool": TOOL}).to_string());
    assert_eq!(absent.problem(), refusal(401, "TBAC_REQUIRED", "TOKEN_ABSENT"));
}

#[test]
fn malformed_requests_are_named_without_being_repeated() {
    let site = Site::new();
    let token = Forge::standard(1).text();
    for (body, about) in [
        ("".to_owned(), "the document"),
        ("{".to_owned(), "the document"),
        (json!({"token": token, "tool": TOOL, "extra": 1}).to_string(), "extra"),
        (json!({"token": token}).to_string(), "missing field `tool`"),
        (json!({"token": [token], "tool": TOOL}).to_string(), "token: expected a string"),
        (json!({"token": token, "tool": TOOL, "arguments": token}).to_string(), "arguments: expected a map"),
        (json!({"token": token, token.as_str(): 1}).to_string(), "(unknown field)"),
    ] {
        let answer = post(site.service(), "/v1/verify", &body);
        assert_eq!(answer.problem(), refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING"), "{body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(about), "{about}: {}", answer.text());
        assert!(!answer.text().contains(&token[..24]));
    }
    assert_eq!(site.server.spent.marks(), Some(0));
}

#[test]
fn bodies_and_headers_are_bounded_in_size() {
    let site = Site::new();
    let long = format!("{{\"tool\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(post(site.service(), "/v1/verify", &long).problem().0, 413);
    let endless =
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(100 << 10));
    assert_ne!(send(site.service(), &endless).status, 200);
    assert_eq!(fetch(site.service(), "/livez", &[]).status, 200);
}

#[test]
fn bodies_and_headers_are_bounded_in_time() {
    let short = Duration::from_millis(100);
    let unfinished =
        "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99\r\n\r\n{";
    let site = Site::configured(Gate::new, |options| options.header_timeout(PATIENCE).body_timeout(short));
    assert_eq!(send(site.service(), unfinished).problem().0, 408);
    let site = Site::configured(Gate::new, |options| options.header_timeout(short).body_timeout(PATIENCE));
    for unfinished in ["", "GET /livez HTTP/1.1\r\nHost"] {
        // The connection is closed; whether with words is up to the HTTP library.
        assert!(matches!(send(site.service(), unfinished).status, 0 | 408));
    }
}

#[test]
fn proxies_ask_with_headers() {
    let site = Site::new();
    let ask = |token: &Forge, headers: &[(&str, &str)]| {
        let authorization = format!("TBAC {}", token.text());
        let headers = [&[("Authorization", authorization.as_str())], headers].concat();
        fetch(site.service(), "/v1/authorize", &headers)
    };
    let token = Forge::standard(1);
    let call = [("X-Obol-Tool", TOOL), ("X-Obol-Action", "read"), ("X-Obol-Resource", "docs/a")];
    assert_eq!(ask(&token, &[("X-Obol-Tool", "delete")]).problem().0, 403);
    assert_eq!(ask(&token, &[("X-Obol-Tool", TOOL), ("X-Obol-Resource", "private")]).problem().0, 403);
    let allowed = ask(&token, &call);
    assert_eq!((allowed.status, allowed.header("x-obol-session-id")), (200, Some("00c0ffee00000001")));
    assert_eq!(ask(&token, &call).problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));
    let malformed = refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING");
    assert_eq!(ask(&Forge::standard(2), &[]).problem(), malformed);
    // The client's own header beside the proxy's.
    assert_eq!(
        ask(&Forge::standard(2), &[("X-Obol-Tool", TOOL), ("x-obol-tool", "delete")]).problem(),
        malformed
    );
    let absent = fetch(site.service(), "/v1/authorize", &call);
    assert_eq!(absent.problem(), refusal(401, "TBAC_REQUIRED", "TOKEN_ABSENT"));
    let posted = format!(
        "POST /v1/authorize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: TBAC {}\r\nX-Obol-Tool: \
         {TOOL}\r\nContent-Length: 0\r\n\r\n",
        Forge::standard(2).text()
    );
    assert_eq!(send(site.service(), &posted).status, 200);
}

#[test]
fn a_resource_does_not_lead_out_of_its_pattern() {
    let site = Site::new();
    let token = Forge::standard(1);
    let malformed = refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING");
    // To a proxy: the caller wrote that path, and must not bring about an error of the proxy's.
    let by_caller = refusal(403, "MALFORMED_REQUEST", "REQUEST_FRAMING");
    let authorization = format!("TBAC {}", token.text());
    for resource in [
        "docs/../private",
        "docs/%2e%2e/private",
        "docs/a/..%2f..%2Fprivate",
        "docs/.",
        "docs/..;/private",
        "docs/%252e%252e/private",
        "docs/%c0%ae%c0%ae/private",
        "docs/%u002e%u002e/private",
        "docs/..%00/private",
        "docs/a/..?x",
        "docs/a/..#x",
        "docs//private",
    ] {
        let headers =
            [("Authorization", authorization.as_str()), ("X-Obol-Tool", TOOL), ("X-Obol-Resource", resource)];
        assert_eq!(fetch(site.service(), "/v1/authorize", &headers).problem(), by_caller, "{resource}");
        assert_eq!(site.verify(&token, json!({"resource": resource})).problem(), malformed, "{resource}");
    }
    assert_eq!(site.call("/docs/../a", &token).problem(), malformed);
    assert_eq!(site.call("/docs/a", &token).status, 200, "and nothing of that burned the token");
}

#[test]
fn only_the_headers_of_the_contract_count() {
    let site = Site::new();
    let token = Forge::standard(1);
    let own = format!("TBAC {}", token.text());
    let others = format!("TBAC {}", Forge::standard(2).text());
    let malformed = refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING");
    let ask = |headers: &[(&str, &str)]| fetch(site.service(), "/v1/authorize", headers);
    for (first, second) in [(&own, &others), (&others, &own)] {
        let both = [("Authorization", first.as_str()), ("AUTHORIZATION", second), ("X-Obol-Tool", TOOL)];
        assert_eq!(ask(&both).problem(), refusal(401, "MALFORMED_REQUEST", "REQUEST_FRAMING"));
    }
    let joined = format!("{own}, {others}");
    let in_one = [("Authorization", joined.as_str()), ("X-Obol-Tool", TOOL)];
    assert_eq!(ask(&in_one).problem().1, "MALFORMED_TOKEN");
    let listed = [("Authorization", own.as_str()), ("X-Obol-Tool", "search, delete")];
    assert_eq!(ask(&listed).problem().1, "INSUFFICIENT_PRIVILEGE");
    // What a proxy or a client may send besides decides nothing, and does not stand in for what is missing.
    let stray = [
        ("Authorization", own.as_str()),
        ("X_Obol_Tool", TOOL),
        ("X-Original-URI", "/search"),
        ("X-Forwarded-Uri", "/search"),
        ("Proxy-Authorization", others.as_str()),
    ];
    assert_eq!(ask(&stray).problem(), malformed);
    let elsewhere =
        [("X-Obol-Tool", TOOL), ("Proxy-Authorization", others.as_str()), ("Cookie", own.as_str())];
    assert_eq!(ask(&elsewhere).problem().1, "TBAC_REQUIRED");
    assert_eq!(site.server.spent.marks(), Some(0));
    assert_eq!(ask(&[stray[0], ("X-Obol-Tool", TOOL), stray[2]]).status, 200);
}

#[test]
fn an_opaque_guard_hides_which_cryptographic_check_failed() {
    let site = Site::with_gate(|verifier| Gate::new(verifier).opaque());
    let hidden = refusal(401, "AUTHORIZATION_FAILED", "CRYPTOGRAPHIC_VERIFICATION");
    assert_eq!(
        site.call("/search", &Forge::standard(1).with(|token| token.bad_signature = true)).problem(),
        hidden
    );
    assert_eq!(
        site.call("/search", &Forge::standard(1).with(|token| token.bad_tag = true)).problem(),
        hidden
    );
    assert_eq!(site.call("/search", &Forge::standard(1)).status, 200);
}

#[test]
fn watchers_see_life_readiness_and_counts() {
    let site = Site::new();
    assert_eq!(fetch(site.service(), "/livez", &[]).status, 200);
    assert_eq!(fetch(site.service(), "/readyz", &[]).status, 200);
    site.verify(&Forge::standard(1), json!({}));
    site.verify(&Forge::standard(1), json!({}));
    let answer = fetch(site.service(), "/metrics", &[]);
    let metrics = answer.text();
    for line in [
        "obol_verifications_total{code=\"OK\"} 1",
        "obol_verifications_total{code=\"TOKEN_REPLAYED\"} 1",
        "obol_verification_seconds_count 2",
        "obol_verification_seconds_bucket{le=\"+Inf\"} 2",
        "obol_spent_marks 1",
        "obol_ready 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let jti = Forge::standard(1).jti();
    assert!(!metrics.contains(jti.as_str()) && !metrics.contains(&SESSION.to_string()));
    let missing = fetch(site.service(), "/v2/verify", &[]);
    assert_eq!((missing.status, missing.json()["code"].as_str()), (404, Some("NOT_FOUND")));
    let wrong_method = fetch(site.service(), "/v1/verify", &[]);
    assert_eq!(wrong_method.json()["code"], "METHOD_NOT_ALLOWED");
    let named = fetch(site.service(), "/livez", &[("X-Request-Id", "abc-1")]);
    assert_eq!(named.header("x-request-id"), Some("abc-1"));
}

#[test]
fn a_server_that_cannot_spend_is_not_ready() {
    use obol_verify::{Mark, SpendError, SpendTicket, SpentSet};
    #[derive(Debug)]
    struct Broken;
    impl SpentSet for Broken {
        fn is_spent(&self, _mark: &Mark) -> Result<bool, SpendError> {
            Ok(false)
        }
        fn spend_with(&self, _mark: Mark, _with: Option<Mark>) -> SpendTicket {
            SpendTicket::ready(Err(SpendError::Unavailable("no disk".into())))
        }
        fn fence(&self) -> Option<u64> {
            None
        }
        fn keep_after_expiry(&self) -> u64 {
            u64::MAX
        }
        fn health(&self) -> Result<(), SpendError> {
            Err(SpendError::Unavailable("no disk".into()))
        }
        fn marks(&self) -> Option<usize> {
            None
        }
    }
    let clock = Arc::new(ManualClock::new(obol_world::NOW));
    let server =
        Server::with_spent_set(obol_world::server::session(), clock, Arc::new(Broken), |builder| builder);
    let runtime = Runtime::new().unwrap();
    let handle = runtime.block_on(async {
        let options = Options::new("127.0.0.1:0".parse().unwrap());
        Running::start(options.bind(Gate::new(server.verifier.clone())).await.unwrap())
    });
    let address = handle.local_addr();
    assert_eq!(fetch(address, "/livez", &[]).status, 200);
    let not_ready = fetch(address, "/readyz", &[]);
    assert_eq!((not_ready.status, not_ready.header("retry-after")), (503, Some("1")));
    let body = json!({"token": Forge::standard(1).text(), "tool": TOOL}).to_string();
    let refused = post(address, "/v1/verify", &body);
    assert_eq!(refused.problem(), refusal(503, "UNAVAILABLE", "SPENT_SET"));
    assert!(!refused.text().contains("no disk"), "the reason is for the log");
    assert_eq!(runtime.block_on(handle.stop()).cut_off, 0);
}

/// A service that serves one request at a time, at an address where nothing else on this machine listens: its port
/// must not be given to another once it is closed.
fn narrow_service(runtime: &Runtime, server: &Server) -> Running {
    runtime.block_on(async {
        let options = Options::new("127.0.7.1:0".parse().unwrap())
            .max_in_flight(1)
            .body_timeout(PATIENCE)
            .drain_timeout(PATIENCE);
        Running::start(options.bind(Gate::new(server.verifier.clone())).await.unwrap())
    })
}

/// Sends all but the end of a request, and returns once the service is busy with it: it asks for the body.
fn begin(address: SocketAddr, body: &str) -> TcpStream {
    let mut slow = TcpStream::connect(address).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    slow.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    slow.write_all(&body.as_bytes()[..10]).unwrap();
    slow
}

#[test]
fn too_many_requests_at_a_time_are_turned_away() {
    let runtime = Runtime::new().unwrap();
    let silent = Arc::new(crate::audit::resource::Silent(Mutex::default()));
    let clock = Arc::new(ManualClock::new(obol_world::NOW));
    let session = obol_world::server::session();
    let server = Server::with_spent_set(session, clock, Arc::clone(&silent) as Arc<_>, |builder| builder);
    let handle = narrow_service(&runtime, &server);
    let address = handle.local_addr();
    let body = |number| json!({"token": Forge::standard(number).text(), "tool": TOOL}).to_string();
    let waits = {
        let body = body(1);
        std::thread::spawn(move || post(address, "/v1/verify", &body).status)
    };
    let deadline = Instant::now() + PATIENCE;
    let asked = || loop {
        if let Some(spender) = silent.0.lock().unwrap().pop() {
            return spender;
        }
        assert!(Instant::now() < deadline, "nobody asks the spent set");
        std::thread::yield_now();
    };
    let spender = asked();
    let turned_away = post(address, "/v1/verify", &body(2));
    assert_eq!((turned_away.status, turned_away.json()["code"].as_str()), (503, Some("OVERLOADED")));
    assert_eq!(fetch(address, "/readyz", &[]).status, 200);
    spender.resolve(Ok(()));
    assert_eq!(waits.join().unwrap(), 200);
    // Its place is free again, and a request that is not all there takes none.
    let slow = begin(address, &body(3));
    let next = std::thread::spawn(move || post(address, "/v1/verify", &body(4)).status);
    asked().resolve(Ok(()));
    assert_eq!(next.join().unwrap(), 200);
    drop(slow);
    assert_eq!(runtime.block_on(handle.stop()).cut_off, 0);
}

#[test]
fn plain_http_to_other_machines_must_be_asked_for() {
    let runtime = Runtime::new().unwrap();
    let server = Server::new();
    let bind = |options: Options| runtime.block_on(options.bind(Gate::new(server.verifier.clone())));
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let refused = bind(Options::new(address.parse().unwrap())).unwrap_err();
        assert!(matches!(refused.cause(), BindCause::Remote(_)), "{refused}");
    }
    let service = bind(Options::new("0.0.0.0:0".parse().unwrap()).allow_remote()).unwrap();
    assert_ne!(service.handle().addresses()[0].tcp().unwrap().port(), 0);
}

#[test]
fn stopping_finishes_what_is_under_way_and_takes_nothing_new() {
    let (runtime, server) = (Runtime::new().unwrap(), Server::new());
    let handle = narrow_service(&runtime, &server);
    let address = handle.local_addr();
    let body = json!({"token": Forge::standard(1).text(), "tool": TOOL}).to_string();
    let mut slow = begin(address, &body);
    let stopping = runtime.spawn(handle.stop());
    slow.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(runtime.block_on(stopping).unwrap().cut_off, 0);
    assert!(TcpStream::connect(address).is_err());
}
