//! The store that providers share in a Redis: read in whole however much it is, and when Redis loses it, or somebody puts back what
//! it held before, nothing that was revoked or retired comes back to life.
//!
//! The providers run in this process, so that thousands of tokens can be had; their Redis is a real one.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use obol_atp::{AgentId, Secret, TokenBody};
use obol_atp_server::{Router, SecretBook, Store};
use obol_verify::{MemorySpentSet, SystemClock};
use obol_verify_redis::RedisOptions;
use obol_world::home::wait_until;
use obol_world::redis::RedisServer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::verify::shared_spent_set::evict_without_a_trace;

const E: &str = "https://api.example.com/v1/agent-tokens";
const SECRET: &str = "the secret of an agent that signs";
const OLDER: &str = "the secret that this agent had before";
const MASTER: &str = "the long-lived credential of the build server";
/// Rows in one reply of Redis.
const PAGE: usize = 2_000;
/// The most tokens of a master and one label.
const TOKENS_OF_A_LABEL: usize = 16;

fn agent() -> AgentId {
    AgentId::from_random([1; 16])
}

/// The operator's file, with these secrets of the agent, the newest first.
fn book(secrets: &[&str]) -> SecretBook {
    let hash: String = Sha256::digest(MASTER).iter().map(|byte| format!("{byte:02x}")).collect();
    let secrets: Vec<_> = secrets.iter().map(|secret| json!({"secret": secret})).collect();
    let file = json!({"obol_atp": 1, "agents": [{"agent_id": agent(), "secrets": secrets}],
        "masters": [{"name": "ci", "sha256": hash, "scopes": ["read"]}]});
    SecretBook::parse(file.to_string().as_bytes()).unwrap()
}

struct World {
    folder: tempfile::TempDir,
    redis: RedisServer,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), redis: RedisServer::start(arguments) }
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("atp.key")
    }

    fn provider(&self) -> Provider {
        self.provider_with(book(&[SECRET]))
    }

    /// One more provider. Which requests were answered is not shared here, so that a refusal comes from the store.
    fn provider_with(&self, book: SecretBook) -> Provider {
        let options = RedisOptions::new(&self.redis.url(), "atp").unwrap().clock_skew(60);
        let options = options.reply_timeout(Duration::from_secs(5)).first_start();
        let spent = MemorySpentSet::unfenced(Arc::new(SystemClock::new()), 60);
        let router = Router::builder(E.parse().unwrap())
            .secrets(book)
            .scopes(["read"])
            .store(Store::shared(options, &self.key()).unwrap())
            .spent(Arc::new(spent))
            .address_rate(0)
            .agent_rate(0)
            .build()
            .unwrap();
        let routes = axum::Router::new().nest("/v1/agent-tokens", router.clone().into());
        Provider { router, routes }
    }

    /// The key of the log, and that of the record beside it.
    fn keys(&self) -> (String, String) {
        let log = self.redis.ask(&["KEYS", "obol:atp:records:*:log"]);
        (log, "obol:atp:records".to_owned())
    }

    fn rows(&self) -> usize {
        self.redis.ask(&["ZCARD", &self.keys().0]).parse().unwrap()
    }
}

struct Provider {
    router: Router,
    routes: axum::Router,
}

impl Provider {
    async fn call(&self, method: &str, path: &str, bearer: &str, body: String) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(format!("/v1/agent-tokens{path}"));
        request = request.header("content-type", "application/json");
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let request = request.body(Body::from(body)).unwrap();
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Asks until it is answered: a provider that has to read everything again refuses meanwhile.
    async fn settled(&self, method: &str, path: &str, bearer: &str, body: impl Fn() -> String) -> Value {
        let mut last = Value::Null;
        for _ in 0..400 {
            let (status, answer) = self.call(method, path, bearer, body()).await;
            if status < 300 {
                return answer;
            }
            assert_eq!(status, 503, "{answer}");
            last = answer;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never answers: {last}");
    }

    /// A token of the master.
    async fn issue(&self, number: usize) -> String {
        let label = number / TOKENS_OF_A_LABEL;
        let body = || json!({"scopes": ["read"], "agent_id": format!("agent-{label}")}).to_string();
        text(&self.settled("POST", "/issue", MASTER, body).await, "token")
    }

    /// A token of the agent.
    async fn token(&self) -> String {
        text(&self.settled("POST", "", "", || signed(SECRET)).await, "token")
    }

    /// Whether this secret of the agent holds.
    async fn takes(&self, secret: &str) -> bool {
        for _ in 0..400 {
            match self.call("POST", "", "", signed(secret)).await {
                (503, _) => tokio::time::sleep(Duration::from_millis(50)).await,
                (status, answer) => {
                    assert!(status == 200 || answer["error"] == "invalid_signature", "{answer}");
                    return status == 200;
                }
            }
        }
        panic!("it never answers");
    }

    async fn revoke(&self, token: &str) {
        assert_eq!(self.settled("POST", "/revoke", token, String::new).await["revoked"], true);
    }

    /// Asked once; the status.
    async fn try_to_revoke(&self, token: &str) -> u16 {
        self.call("POST", "/revoke", token, String::new()).await.0
    }

    /// `None` where it refuses to tell.
    async fn is_valid(&self, token: &str) -> Option<bool> {
        let (status, answer) = self.call("POST", "/verify", token, String::new()).await;
        assert!(status == 200 || status == 503, "{status}: {answer}");
        (status == 200).then(|| answer["valid"] == true)
    }

    async fn is_surely_valid(&self, token: &str) -> bool {
        self.settled("POST", "/verify", token, String::new).await["valid"] == true
    }
}

fn signed(secret: &str) -> String {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let body = TokenBody {
        agent_id: agent(),
        aud: Some(E.into()),
        nonce: Some(format!("nonce-{:08}", NONCE.fetch_add(1, Ordering::Relaxed)).into()),
        purpose: None,
        scopes: vec!["read".into()],
        timestamp: u64::try_from(now).unwrap(),
    };
    String::from_utf8(body.signed_with(&Secret::of_any_length(secret.as_bytes()))).unwrap()
}

fn text(answer: &Value, member: &str) -> String {
    answer[member].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_knows_every_row_however_many_replies_they_take() {
    let world = World::new(&[]);
    let first = world.provider();
    let (mut tokens, mut rows) = (Vec::new(), world.rows());
    // What fits one reply, one more, and what fills two of them.
    for wanted in [PAGE, PAGE + 1, 2 * PAGE] {
        while rows < wanted {
            tokens.push(first.issue(tokens.len()).await);
            rows += 1;
        }
        assert_eq!(world.rows(), wanted);
        let newcomer = world.provider();
        for token in tokens.iter().step_by(97).chain(tokens.last()) {
            assert!(newcomer.is_surely_valid(token).await, "of {wanted} rows");
        }
    }
    let (early, late) = (10, PAGE + 100);
    for gone in [early, late] {
        first.revoke(&tokens[gone]).await;
    }
    // Another provider writes while these read one page after the other.
    let first = Arc::new(first);
    let writing = tokio::spawn({
        let (first, begin) = (Arc::clone(&first), tokens.len());
        async move {
            let mut more = Vec::new();
            for number in begin..begin + 50 {
                more.push(first.issue(number).await);
            }
            more
        }
    });
    let newcomers = [world.provider(), world.provider(), world.provider()];
    let more = writing.await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    for newcomer in &newcomers {
        for (number, token) in (early - 2..early + 3).chain(late - 2..late + 3).map(|one| (one, &tokens[one]))
        {
            let expected = ![early, late].contains(&number);
            assert_eq!(newcomer.is_surely_valid(token).await, expected, "token {number}");
        }
        for token in &more {
            assert!(newcomer.is_surely_valid(token).await, "written meanwhile");
        }
    }
    // One row of the second reply goes, and the count is set right.
    let (log, record) = world.keys();
    let count = (world.rows() - 1).to_string();
    let in_the_second = (PAGE + 500).to_string();
    assert_eq!(world.redis.ask(&["ZREMRANGEBYRANK", &log, &in_the_second, &in_the_second]), "1");
    world.redis.ask(&["HSET", &record, "count", &count]);
    let newcomer = world.provider();
    for token in [&tokens[0], &tokens[late + 1]] {
        assert!(!newcomer.is_surely_valid(token).await, "what does not add up is not believed at all");
    }
}

/// What happens to Redis, in a world whose state of before was copied.
type Harm = (&'static str, &'static [&'static str], fn(&mut World));

/// The names of the copies.
const COPIES: [&str; 2] = ["copy:log", "copy:record"];

const HARMS: &[Harm] = &[
    ("the log is evicted, and no counter tells", &[], |world| {
        let (log, _) = world.keys();
        assert_eq!(world.redis.ask(&["PEXPIRE", &log, "100000000"]), "1");
        evict(world, &log, "volatile-ttl");
        assert_eq!(world.redis.info("stats", "evicted_keys"), "0");
    }),
    ("the record is evicted", &[], |world| {
        let (_, record) = world.keys();
        assert_eq!(world.redis.ask(&["PEXPIRE", &record, "100000000"]), "1");
        evict(world, &record, "volatile-random");
    }),
    ("everything is evicted", &[], |world| {
        let (log, _) = world.keys();
        evict(world, &log, "allkeys-lru");
    }),
    ("it is flushed", &[], |world| drop(world.redis.ask(&["FLUSHALL"]))),
    ("the log is deleted", &[], |world| {
        let (log, _) = world.keys();
        assert_eq!(world.redis.ask(&["DEL", &log]), "1");
    }),
    ("it starts again, empty", &[], |world| {
        world.redis.kill();
        world.redis.start_again();
    }),
    ("it starts again with a copy of before", &["--appendonly", "yes", "--appendfsync", "always"], |world| {
        world.redis.kill();
        world.redis.restore_files();
        world.redis.start_again();
    }),
    ("the log and its record are put back as they were", &[], |world| {
        roll_back(world);
        // Who saw more notices at the next look, and who comes only then is not shown it.
        std::thread::sleep(Duration::from_millis(800));
    }),
    ("the log alone is put back", &[], |world| {
        let (log, _) = world.keys();
        assert_eq!(world.redis.ask(&["COPY", COPIES[0], &log, "REPLACE"]), "1");
    }),
];

/// Until a key is gone by a policy that takes it, with all counters as they were.
fn evict(world: &World, key: &str, policy: &str) {
    wait_until("it is evicted", || {
        evict_without_a_trace(&world.redis, policy);
        world.redis.ask(&["EXISTS", key]) == "0"
    });
}

fn take_copies(world: &World) {
    let (log, record) = world.keys();
    for (from, to) in [&log, &record].into_iter().zip(COPIES) {
        assert_eq!(world.redis.ask(&["COPY", from, to, "REPLACE"]), "1");
    }
    if world.redis.info("persistence", "aof_enabled") == "1" {
        world.redis.copy_files();
    }
}

fn roll_back(world: &World) {
    let (log, record) = world.keys();
    for (from, to) in COPIES.into_iter().zip([&log, &record]) {
        assert_eq!(world.redis.ask(&["COPY", from, to, "REPLACE"]), "1");
    }
}

/// Tokens of before, of which some were revoked after the copies were taken.
struct Tokens {
    live: Vec<String>,
    revoked: Vec<String>,
}

async fn tokens_and_copies(world: &World, provider: &Provider) -> Tokens {
    let mut tokens = Tokens { live: Vec::new(), revoked: Vec::new() };
    for list in [&mut tokens.live, &mut tokens.revoked] {
        list.extend([provider.token().await, provider.issue(0).await]);
    }
    for token in &tokens.revoked {
        assert!(provider.is_surely_valid(token).await, "control");
    }
    take_copies(world);
    for token in &tokens.revoked {
        provider.revoke(token).await;
        assert!(!provider.is_surely_valid(token).await);
    }
    tokens
}

/// Until both have answered that what was live is over, and that what was revoked never lives meanwhile.
async fn all_is_over(what: &str, tokens: &Tokens, providers: &[Provider]) {
    for _ in 0..400 {
        let mut over = true;
        for provider in providers {
            for token in &tokens.revoked {
                assert_ne!(provider.is_valid(token).await, Some(true), "{what}: it came back to life");
            }
            for token in &tokens.live {
                over &= provider.is_valid(token).await == Some(false);
            }
        }
        if over {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: what may have been revoked is believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_redis_loses_or_is_given_back_no_token_comes_back_to_life() {
    for (what, arguments, harm) in HARMS {
        let mut world = World::new(arguments);
        let mut providers = vec![world.provider()];
        let tokens = tokens_and_copies(&world, &providers[0]).await;
        harm(&mut world);
        // Whether this is answered or refused: it is over for good.
        let _answered_or_not = providers[0].try_to_revoke(&tokens.live[0]).await;
        providers.push(world.provider());
        all_is_over(what, &tokens, &providers).await;
        let new = providers[1].issue(0).await;
        for provider in &providers {
            let mut is_valid = false;
            for _ in 0..40 {
                is_valid |= provider.is_surely_valid(&new).await;
                tokio::time::sleep(Duration::from_millis(if is_valid { 0 } else { 50 })).await;
            }
            assert!(is_valid, "{what}: control, a token of after it is good");
        }
        drop(providers);
        let again = [world.provider()];
        all_is_over(what, &tokens, &again).await;
        assert!(again[0].is_surely_valid(&new).await, "{what}: control, after a restart of all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_harm_tokens_live_and_only_who_saw_nothing_can_be_shown_an_old_log() {
    let world = World::new(&[]);
    let provider = world.provider();
    let tokens = tokens_and_copies(&world, &provider).await;
    let newcomer = world.provider();
    for known in [&provider, &newcomer] {
        for (list, expected) in [(&tokens.live, true), (&tokens.revoked, false)] {
            for token in list {
                assert_eq!(known.is_surely_valid(token).await, expected, "control");
            }
        }
    }
    // The limit that docs/atp.md names: nobody is left who remembers.
    drop((provider, newcomer));
    roll_back(&world);
    assert!(world.provider().is_surely_valid(&tokens.revoked[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_evict_is_not_used() {
    let world = World::new(&[]);
    let provider = world.provider();
    let token = provider.token().await;
    assert_eq!(world.redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    for _ in 0..100 {
        if provider.is_valid(&token).await.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(provider.is_valid(&token).await, None, "what may be lost any moment is not built on");
    assert_eq!(provider.call("POST", "", "", signed(SECRET)).await.0, 503);
    let issue = json!({"scopes": ["read"]}).to_string();
    assert_eq!(provider.call("POST", "/issue", MASTER, issue).await.0, 503);
    assert_eq!(provider.try_to_revoke(&token).await, 503, "a revocation that may be lost is not confirmed");
    assert_eq!(world.redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    assert!(provider.is_surely_valid(&token).await, "control: nothing was lost");
    provider.revoke(&token).await;
    assert!(!provider.is_surely_valid(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_secret_stays_so_when_redis_forgot_it() {
    let mut world = World::new(&[]);
    let provider = world.provider_with(book(&[OLDER]));
    assert!(provider.takes(OLDER).await, "control");
    for secrets in [&[SECRET, OLDER][..], &[SECRET]] {
        provider.router.reload(book(secrets)).unwrap();
    }
    assert!(!provider.takes(OLDER).await && provider.takes(SECRET).await);
    world.redis.kill();
    world.redis.start_again();
    // By its next look, 200 ms later, it knows of the loss.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(provider.takes(SECRET).await, "what is in force is");
    provider.router.reload(book(&[OLDER])).unwrap();
    assert!(!provider.takes(OLDER).await, "an old copy of the file, after the loss");
    let newcomer = world.provider_with(book(&[OLDER]));
    assert!(!newcomer.takes(OLDER).await, "the others learn of it");
    drop((provider, newcomer));
    world.redis.kill();
    world.redis.start_again();
    let alone = world.provider_with(book(&[OLDER]));
    assert!(alone.takes(OLDER).await, "control: where nobody is left who knows it");
}
