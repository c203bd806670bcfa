//! A provider as its callers see it: every refusal beside the same request allowed.

mod audit;
mod closed;
mod order;
mod remembered;
mod work;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use obol_atp::{AgentId, AtpEndpoint, Body as _, RevokeBody, Secret, TokenBody};
use obol_clock::ManualClock;
use obol_secret::text::to_hex;
use obol_verify::{Clock as _, MemorySpentSet};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Barrier;
use tower::ServiceExt as _;

use crate::{AgentToken, Router, SecretBook, Store};

const E: &str = "https://api.example.com/v1/agent-tokens";
const START: u64 = 1_767_225_600;
const SECRET: &[u8] = b"the secret of the first agent";
const MASTER: &str = "the master credential of the ci";

fn agent() -> AgentId {
    AgentId::from_random([1; 16])
}

fn book() -> SecretBook {
    let hash = to_hex(&Sha256::digest(MASTER));
    let text = format!(
        r#"{{"obol_atp":1,"agents":[
        {{"agent_id":"{}","scopes":["read","once"],"secrets":[{{"secret":"the secret of the first agent"}}]}},
        {{"agent_id":"{}","status":"disabled","secrets":[{{"secret":"the secret of the other agent"}}]}}],
        "masters":[{{"name":"ci","sha256":"{hash}","scopes":["read","write"],"default_scopes":["read"],"max_tokens":2}},
        {{"name":"cd","sha256":"{}","scopes":["read"]}}]}}"#,
        agent(),
        AgentId::from_random([2; 16]),
        to_hex(&Sha256::digest("another master")),
    );
    SecretBook::parse(text.as_bytes()).unwrap()
}

struct World {
    clock: Arc<ManualClock>,
    router: Router,
    app: axum::Router,
}

impl World {
    fn new() -> Self {
        Self::with(Store::memory(), |builder| builder)
    }

    fn with(store: Store, set: impl FnOnce(crate::Builder) -> crate::Builder) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let spent = MemorySpentSet::unfenced(Arc::<ManualClock>::clone(&clock), 60);
        let builder = Router::builder(E.parse::<AtpEndpoint>().unwrap())
            .secrets(book())
            .scopes(["read", "write", "once"])
            .single_use(["once"])
            .store(store)
            .spent(Arc::new(spent))
            .clock(Arc::<ManualClock>::clone(&clock))
            .address_rate(0)
            .agent_rate(0);
        let router = set(builder).build().unwrap();
        let app = axum::Router::new()
            .route(
                "/data",
                axum::routing::get(|token: AgentToken| async move { token.id }).layer(router.require("read")),
            )
            .route("/once", axum::routing::get(|| async { "once" }).layer(router.require("once")))
            .merge(router.well_known())
            .nest("/v1/agent-tokens", router.clone().into());
        Self { clock, router, app }
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        authorization: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Value) {
        self.send(request(method, path, authorization, body)).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        read(self.app.clone().oneshot(request).await.unwrap()).await
    }

    /// Copies of one request, each by a task of its own, and all let go at one moment.
    async fn at_once(
        &self,
        copies: usize,
        (method, path, authorization): (&str, &str, &str),
        body: &[u8],
    ) -> Vec<(StatusCode, Value)> {
        let start = Arc::new(Barrier::new(copies));
        let calls: Vec<_> = (0..copies)
            .map(|_| {
                let (app, start) = (self.app.clone(), Arc::clone(&start));
                let request = request(method, path, authorization, body.to_vec());
                tokio::spawn(async move {
                    start.wait().await;
                    read(app.oneshot(request).await.unwrap()).await
                })
            })
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        answers
    }

    async fn ask(&self, body: &TokenBody<'_>, secret: &[u8]) -> (StatusCode, Value) {
        self.call("POST", "/v1/agent-tokens", "", body.signed_with(&Secret::of_any_length(secret))).await
    }

    async fn token(&self, scopes: &[&str]) -> String {
        let (status, answer) = self.ask(&self.body(scopes), SECRET).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn is_valid(&self, token: &str) -> bool {
        let (status, answer) =
            self.call("POST", "/v1/agent-tokens/verify", &format!("Bearer {token}"), "").await;
        assert_eq!(status, StatusCode::OK);
        answer["valid"] == true
    }

    fn body(&self, scopes: &[&str]) -> TokenBody<'static> {
        static NONCE: AtomicU64 = AtomicU64::new(0);
        TokenBody {
            agent_id: agent(),
            aud: Some(E.into()),
            nonce: Some(format!("nonce-{:08}", NONCE.fetch_add(1, Ordering::Relaxed)).into()),
            purpose: None,
            scopes: scopes.iter().map(|scope| (*scope).to_owned().into()).collect(),
            timestamp: self.clock.now() * 1_000,
        }
    }

    async fn master(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        body: &'static str,
    ) -> (StatusCode, Value) {
        self.call(method, &format!("/v1/agent-tokens{path}"), &format!("Bearer {credential}"), body).await
    }
}

fn request(method: &str, path: &str, authorization: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    request.body(body.into()).unwrap()
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()),
    )
}

#[tokio::test]
async fn a_signed_request_opens_the_api_until_its_token_ends() {
    let world = World::new();
    let (status, answer) = world.ask(&world.body(&["read"]), SECRET).await;
    assert_eq!((status, &answer["expires_in"]), (StatusCode::OK, &Value::from(3600)), "{answer}");
    assert_eq!(answer["expires_at"], Value::from((START + 3600) * 1000));
    let token = format!("Bearer {}", answer["token"].as_str().unwrap());
    let (status, id) = world.call("GET", "/data", &token, "").await;
    assert_eq!((status, &id), (StatusCode::OK, &answer["id"]));
    assert_eq!(world.call("GET", "/once", &token, "").await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.call("GET", "/data", "", "").await.0, StatusCode::UNAUTHORIZED);
    world.clock.advance(3_599);
    assert_eq!(world.call("GET", "/data", &token, "").await.0, StatusCode::OK);
    world.clock.advance(1);
    assert_eq!(world.call("GET", "/data", &token, "").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn every_refusal_has_its_code_and_a_control() {
    let world = World::new();
    let now = world.clock.now() * 1_000;
    let body = |change: fn(&mut TokenBody<'static>)| {
        let mut body = world.body(&["read"]);
        change(&mut body);
        body
    };
    let other: &[u8] = b"the secret of the other agent";
    for (name, body, secret, expected) in [
        ("control", body(|_| {}), SECRET, "200"),
        ("control: no aud", body(|body| body.aud = None), SECRET, "200"),
        ("wrong secret", body(|_| {}), other, "invalid_signature"),
        (
            "unknown agent",
            body(|body| body.agent_id = AgentId::from_random([9; 16])),
            SECRET,
            "invalid_signature",
        ),
        ("relay", body(|body| body.aud = Some("https://evil.example/t".into())), SECRET, "wrong_audience"),
        (
            "aud of another case",
            body(|body| body.aud = Some(E.to_uppercase().into())),
            SECRET,
            "wrong_audience",
        ),
        ("old", TokenBody { timestamp: now - 300_001, ..body(|_| {}) }, SECRET, "stale_timestamp"),
        ("control: nearly old", TokenBody { timestamp: now - 300_000, ..body(|_| {}) }, SECRET, "200"),
        ("ahead", TokenBody { timestamp: now + 60_001, ..body(|_| {}) }, SECRET, "stale_timestamp"),
        ("disabled", body(|body| body.agent_id = AgentId::from_random([2; 16])), other, "agent_disabled"),
        ("above the ceiling", body(|body| body.scopes = vec!["write".into()]), SECRET, "invalid_scope"),
        (
            "one of two above",
            body(|body| body.scopes = vec!["read".into(), "write".into()]),
            SECRET,
            "invalid_scope",
        ),
        ("another case", body(|body| body.scopes = vec!["READ".into()]), SECRET, "invalid_scope"),
        ("a prefix", body(|body| body.scopes = vec!["rea".into()]), SECRET, "invalid_scope"),
        ("none", body(|body| body.scopes = vec![]), SECRET, "invalid_scope"),
    ] {
        let (status, answer) = world.ask(&body, secret).await;
        let code = answer["error"].as_str().unwrap_or(if status == StatusCode::OK { "200" } else { "?" });
        assert_eq!(code, expected, "{name}");
    }
}

#[tokio::test]
async fn unknown_agents_and_wrong_secrets_are_answered_in_the_same_bytes() {
    let world = World::new();
    let wrong = world.ask(&world.body(&["read"]), b"some other secret").await;
    let unknown = TokenBody { agent_id: AgentId::from_random([9; 16]), ..world.body(&["read"]) };
    assert_eq!(world.ask(&unknown, SECRET).await, wrong);
}

#[tokio::test]
async fn malformed_bodies_are_answered_as_in_the_vectors() {
    let world = World::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/atp/malformed.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for case in &cases {
        let text = case["text"].as_str().unwrap().to_owned();
        let (status, answer) = world.call("POST", "/v1/agent-tokens", "", text).await;
        assert_eq!(
            (Value::from(status.as_u16()), &answer["error"]),
            (case["status"].clone(), &case["error"]),
            "{}",
            case["name"]
        );
    }
    assert!(cases.len() > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_copies_one_gets_a_token() {
    let world = World::new();
    let text = world.body(&["read"]).signed_with(&Secret::of_any_length(SECRET));
    let here = ("POST", "/v1/agent-tokens", "");
    let mut issued = 0;
    for answer in world.at_once(64, here, &text).await {
        match answer.0 {
            StatusCode::OK => issued += 1,
            status => {
                assert_eq!((status, &answer.1["error"]), (StatusCode::UNAUTHORIZED, &"replayed".into()));
            }
        }
    }
    assert_eq!(issued, 1);
    // The clock steps back, and the copy is as fresh as ever: its mark is still looked for.
    world.clock.set(START - 30);
    for answer in world.at_once(8, here, &text).await {
        assert_eq!((answer.0, &answer.1["error"]), (StatusCode::UNAUTHORIZED, &"replayed".into()));
    }
    world.token(&["read"]).await;
    // It was far ahead once, where marks end, and came back.
    world.clock.set(START + 5_000);
    world.token(&["read"]).await;
    world.clock.set(START);
    let (_, answer) = world.call("POST", "/v1/agent-tokens", "", text).await;
    assert!(answer["error"] == "replayed" || answer["error"] == "unavailable", "{answer}");
}

async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut done = Vec::new();
    for one in all {
        done.push(one.await);
    }
    done
}

#[tokio::test]
async fn only_its_own_agent_ends_a_token() {
    let world = World::new();
    let token = world.token(&["read"]).await;
    let revoke = |agent_id, secret: &'static [u8]| {
        let body = RevokeBody {
            agent_id,
            aud: Some(E.into()),
            nonce: None,
            timestamp: world.clock.now() * 1_000 + u64::from(secret[0]),
            token: token.as_str().into(),
        };
        assert_eq!(body.aud(), Some(E));
        body.signed_with(&Secret::of_any_length(secret))
    };
    let path = "/v1/agent-tokens/revoke";
    let (_, before) = world
        .call("POST", path, "", revoke(AgentId::from_random([2; 16]), b"the secret of the other agent"))
        .await;
    assert_eq!(before, serde_json::json!({"revoked": true}));
    assert!(world.is_valid(&token).await, "another agent's revocation has no effect");
    assert_eq!(
        world.call("POST", "/v1/agent-tokens", "", revoke(agent(), SECRET)).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        world.call("POST", path, "", revoke(agent(), SECRET)).await.1,
        before,
        "the answer tells nothing"
    );
    assert!(!world.is_valid(&token).await);
    let own = world.token(&["read"]).await;
    assert_eq!(world.call("POST", path, &format!("Bearer {own}"), "").await.0, StatusCode::OK);
    assert!(!world.is_valid(&own).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_use_token_opens_once() {
    let world = World::new();
    let token = format!("Bearer {}", world.token(&["once", "read"]).await);
    let calls = world.at_once(64, ("GET", "/once", &token), b"").await;
    assert_eq!(calls.iter().filter(|(status, _)| *status == StatusCode::OK).count(), 1);
    let other = format!("Bearer {}", world.token(&["once"]).await);
    let spend = || world.call("POST", "/v1/agent-tokens/verify", &other, r#"{"spend":true}"#);
    assert_eq!(
        (spend().await.1["valid"].clone(), spend().await.1["valid"].clone()),
        (true.into(), false.into())
    );
}

#[tokio::test]
async fn tokens_end_with_the_secret_they_came_from() {
    let world = World::new();
    let token = world.token(&["read"]).await;
    assert!(world.is_valid(&token).await);
    let text = format!(
        r#"{{"obol_atp":1,"shared":[{{"secret":"a shared secret!"}}],"agents":[{{"agent_id":"{}","tokens_after":{START}}}]}}"#,
        agent()
    );
    world.router.reload(SecretBook::parse(text.as_bytes()).unwrap()).unwrap();
    assert!(!world.is_valid(&token).await);
}

#[tokio::test]
async fn a_master_issues_rotates_and_revokes_what_is_its_own() {
    let world = World::new();
    let issue = r#"{"scopes":[],"ttl_seconds":60,"agent_id":"agentdom"}"#;
    let (status, first) = world.master("POST", "/issue", MASTER, issue).await;
    assert_eq!(
        (status, &first["expires_in"], &first["scopes"]),
        (StatusCode::OK, &600.into(), &serde_json::json!(["read"])),
        "{first}"
    );
    let id = first["id"].as_str().unwrap();
    let text = |answer: &Value| answer["token"].as_str().unwrap().to_owned();
    world.clock.advance(100);
    let (status, second) = world.master("POST", &format!("/{id}/rotate"), MASTER, "").await;
    assert_eq!((status, &second["id"]), (StatusCode::OK, &first["id"]));
    assert_eq!(world.master("POST", &format!("/{id}/rotate"), MASTER, "").await.1, second, "again, the same");
    assert!(world.is_valid(&text(&first)).await && world.is_valid(&text(&second)).await);
    world.clock.advance(30);
    assert!(!world.is_valid(&text(&first)).await && world.is_valid(&text(&second)).await);
    assert_eq!(
        world.master("POST", &format!("/{id}/rotate"), "another master", "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        world.master("DELETE", &format!("/{id}"), "another master", "").await.0,
        StatusCode::NO_CONTENT
    );
    assert!(world.is_valid(&text(&second)).await, "another master's deletion has no effect");
    for _ in 0..2 {
        assert_eq!(world.master("DELETE", &format!("/{id}"), MASTER, "").await.0, StatusCode::NO_CONTENT);
    }
    assert!(!world.is_valid(&text(&second)).await);
}

#[tokio::test]
async fn a_master_is_good_for_nothing_else_and_bounded() {
    let world = World::new();
    let issue = r#"{"scopes":["read"],"agent_id":"a"}"#;
    let (_, first) = world.master("POST", "/issue", MASTER, issue).await;
    for (path, body, expected) in
        [("/issue", r#"{"scopes":["once"]}"#, StatusCode::BAD_REQUEST), ("", issue, StatusCode::BAD_REQUEST)]
    {
        assert_eq!(world.master("POST", path, MASTER, body).await.0, expected, "{path}");
    }
    assert!(!world.is_valid(MASTER).await);
    assert_eq!(world.call("GET", "/data", &format!("Bearer {MASTER}"), "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.master("POST", "/issue", "no master", issue).await.1["error"], "invalid_master");
    for _ in 0..2 {
        world.clock.advance(1);
        world.master("POST", "/issue", MASTER, issue).await;
    }
    assert!(!world.is_valid(first["token"].as_str().unwrap()).await, "the oldest of three made room");
    let (_, list) = world.master("GET", "", MASTER, "").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(world.master("GET", "", "another master", "").await.1, serde_json::json!([]));
    let signed_only = World::with(Store::memory(), |builder| builder.signed_only(true));
    assert_eq!(signed_only.master("POST", "/issue", MASTER, issue).await.0, StatusCode::NOT_FOUND);
    assert_eq!(signed_only.master("GET", "", MASTER, "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn revocations_and_rotations_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(&folder.path().join("tokens.redb"), &folder.path().join("key")).unwrap();
    let world = World::with(open(), |builder| builder);
    let issue = r#"{"scopes":["read"],"agent_id":"a"}"#;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let (_, answer) = world.master("POST", "/issue", MASTER, issue).await;
        tokens
            .push((answer["id"].as_str().unwrap().to_owned(), answer["token"].as_str().unwrap().to_owned()));
    }
    let signed = [world.token(&["read"]).await, world.token(&["read"]).await];
    world.master("POST", &format!("/{}/rotate", tokens[0].0), MASTER, "").await;
    world.master("DELETE", &format!("/{}", tokens[1].0), MASTER, "").await;
    world.call("POST", "/v1/agent-tokens/revoke", &format!("Bearer {}", signed[0]), "").await;
    drop(world);
    let world = World::with(open(), |builder| builder);
    world.clock.advance(40);
    for (token, expected) in
        [(&tokens[0].1, false), (&tokens[1].1, false), (&signed[0], false), (&signed[1], true)]
    {
        assert_eq!(world.is_valid(token).await, expected);
    }
    let bytes = std::fs::read(folder.path().join("tokens.redb")).unwrap();
    for (id, token) in &tokens {
        let found = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!found(token) && !found(MASTER), "no token and no master is in the file");
        assert!(found(id), "a row's name is its id");
    }
}

#[tokio::test]
async fn rates_hold_addresses_and_agents() {
    let world = World::with(Store::memory(), |builder| builder.agent_rate(1));
    let mut refused = 0;
    for _ in 0..14 {
        let (status, answer) = world.ask(&world.body(&["read"]), SECRET).await;
        refused +=
            u32::from(status == StatusCode::TOO_MANY_REQUESTS && answer["error"] == "too_many_requests");
    }
    assert!((3..=4).contains(&refused), "{refused}");
    let world = World::with(Store::memory(), |builder| builder.address_rate(2));
    let answers = futures((0..8).map(|_| world.call("POST", "/v1/agent-tokens/verify", "", ""))).await;
    assert!(answers.iter().filter(|(status, _)| *status == StatusCode::TOO_MANY_REQUESTS).count() >= 3);
}

#[tokio::test]
async fn the_document_leads_here_and_is_not_sent_twice() {
    let world = World::new();
    let request = |etag: Option<&str>| {
        let request = Request::get("/.well-known/agentdom.json");
        let request = etag
            .map_or(Request::get("/.well-known/agentdom.json"), |etag| request.header("if-none-match", etag));
        world.app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let first = request(None).await.unwrap();
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let (_, document) = read(first).await;
    assert_eq!(document["auth"]["agent_token_endpoint"], E);
    assert_eq!(document["auth"]["agent_tokens"]["issue"], format!("POST {E}/issue"));
    assert_eq!(request(Some(&etag)).await.unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn without_a_kept_spent_set_what_may_have_been_answered_before_is_refused() {
    let clock = Arc::new(ManualClock::new(START));
    let builder = Router::builder(E.parse().unwrap()).secrets(book()).scopes(["read"]).clock(Arc::<
        ManualClock,
    >::clone(
        &clock
    ));
    let router = builder.agent_rate(0).token_ttl(Duration::from_secs(60)).build().unwrap();
    let app: axum::Router = axum::Router::new().nest("/v1/agent-tokens", router.into());
    for (ahead_ms, expected) in [(0, 503), (4_900, 503), (6_000, 401)] {
        let body = TokenBody {
            agent_id: agent(),
            aud: None,
            nonce: None,
            purpose: None,
            scopes: vec!["read".into()],
            timestamp: START * 1_000 + ahead_ms,
        };
        let text = body.signed_with(&Secret::of_any_length(SECRET));
        let request = Request::post("/v1/agent-tokens")
            .header("content-type", "application/json")
            .body(Body::from(text))
            .unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status().as_u16(), expected, "{ahead_ms}");
    }
}
