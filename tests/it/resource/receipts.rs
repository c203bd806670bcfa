//! Retry receipts: a call that its caller named is carried out once, whatever is killed, and over several servers.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use obol_resource::{Gate, Receipts, SEALED_CONTENT_TYPE, SpentToken, TbacLayer, ToolCall};
use obol_secret::key::Key32;
use obol_token::ResponseKey;
use obol_verify::receipt::{Limits, MAX_ANSWER_BYTES, MemoryReceipts, ReceiptStore, RedbReceipts};
use obol_verify::{NewFile, SystemClock};
use obol_verify_redis::{RedisOptions, RedisReceipts};
use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::home::wait_until;
use obol_world::redis::RedisServer;
use obol_world::scope::{scope_json, scope_with};
use obol_world::server::Server;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::end_to_end::api;

const PATIENCE: Duration = Duration::from_secs(30);

/// What came back, if something did.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    fn has(&self, header: &str) -> bool {
        self.head.to_ascii_lowercase().contains(&format!("\r\n{header}:"))
    }
}

/// Sends a request with a token, and reads what comes until the connection ends.
fn send(to: SocketAddr, route: &str, token: &Forge, more: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!(
        "POST {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: TBAC {}\r\nContent-Length: {}\r\n",
        token.text(),
        body.len()
    );
    for (name, value) in more {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head, body: bytes.split_off(end + 4) })
}

fn token(number: u64) -> Forge {
    Forge::new(number, &scope_json())
}

/// An API in this process whose calls are named.
struct Api {
    _runtime: Runtime,
    address: SocketAddr,
    runs: Arc<AtomicUsize>,
    receipts: Receipts,
    tokens: AtomicUsize,
}

impl Api {
    fn new(limits: Limits) -> Self {
        let store = MemoryReceipts::new(limits, Arc::new(SystemClock::new()));
        let (receipts, runs) = (Receipts::new(Arc::new(store)), Arc::<AtomicUsize>::default());
        let runtime = Runtime::new().unwrap();
        let routes = routes(&receipts, {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
            }
        });
        let address = runtime.block_on(api::listen(routes));
        Self { _runtime: runtime, address, runs, receipts, tokens: AtomicUsize::new(0) }
    }

    /// A call with a fresh token.
    fn call(&self, route: &str, key: &str, body: &Value) -> Reply {
        let token = token(self.tokens.fetch_add(1, Ordering::SeqCst) as u64);
        let headers = [("Idempotency-Key", key), ("Content-Type", "application/json")];
        send(self.address, route, &token, &headers, body.to_string().as_bytes()).unwrap()
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// Routes behind the guard and receipts. `note` is told of each run.
fn routes(receipts: &Receipts, note: impl Fn() + Clone + Send + Sync + 'static) -> Router {
    let gate = Gate::new(Server::new().verifier.clone());
    let layer = TbacLayer::new(gate, ToolCall::new(TOOL).action("read")).json_arguments();
    let noting = |what: &'static str| {
        let note = note.clone();
        move |_token: SpentToken, headers: HeaderMap, body: Bytes| async move {
            assert!(!headers.contains_key("idempotency-key") && !headers.contains_key("authorization"));
            note();
            match what {
                "slow" => tokio::time::sleep(Duration::from_millis(400)).await,
                "stuck" => tokio::time::sleep(PATIENCE).await,
                "panics" => panic!("as asked"),
                _ => {}
            }
            let length = if what == "long" { 2 * MAX_ANSWER_BYTES } else { 1 };
            let answer = format!("{}{}", String::from_utf8_lossy(&body), ".".repeat(length));
            (StatusCode::CREATED, [(header::ETAG, "\"7\"")], answer).into_response()
        }
    };
    Router::new()
        .route("/pay", post(noting("pay")))
        .route("/slow", post(noting("slow")))
        .route("/stuck", post(noting("stuck")))
        .route("/panics", post(noting("panics")))
        .route("/long", post(noting("long")))
        .route_layer(receipts.layer())
        .route_layer(layer)
}

#[test]
fn a_call_is_carried_out_once_and_answered_alike_with_each_token() {
    let api = Api::new(Limits::default());
    let first = api.call("/pay", "order-1", &json!({"cents": 5}));
    assert_eq!((first.status, first.body.as_slice()), (201, &b"{\"cents\":5}."[..]));
    assert!(first.has("etag") && !first.has("idempotent-replayed"));
    let again = api.call("/pay", "order-1", &json!({"cents": 5}));
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert!(again.has("etag") && again.has("idempotent-replayed"));
    assert_eq!(api.runs(), 1);
    for (route, body) in
        [("/pay", json!({"cents": 6})), ("/pay?x", json!({"cents": 5})), ("/slow", json!({"cents": 5}))]
    {
        let other = api.call(route, "order-1", &body);
        assert_eq!((other.status, other.code()), (422, "KEY_REUSED".to_owned()), "{route} {body}");
    }
    // Without a key, and under another, it is another call.
    assert_eq!(api.call("/pay", "order-2", &json!({"cents": 5})).status, 201);
    let unnamed =
        send(api.address, "/pay", &token(90), &[("Content-Type", "application/json")], b"{}").unwrap();
    assert_eq!((unnamed.status, api.runs()), (201, 3));
    let metrics = api.receipts.metrics();
    for line in [
        "obol_receipts_total{outcome=\"fresh\"} 2",
        "{outcome=\"replayed\"} 1",
        "{outcome=\"reused\"} 3",
        "obol_receipts 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn a_token_is_spent_for_each_sending_and_a_stranger_gets_no_answer() {
    let api = Api::new(Limits::default());
    let headers = [("Idempotency-Key", "order-1"), ("Content-Type", "application/json")];
    assert_eq!(send(api.address, "/pay", &token(1), &headers, b"{}").unwrap().status, 201);
    let spent = send(api.address, "/pay", &token(1), &headers, b"{}").unwrap();
    assert_eq!((spent.status, spent.code()), (401, "TOKEN_REPLAYED".to_owned()));
    // Another agent's key of the same name is another key.
    let other = Forge::new(2, &scope_with(json!({"agent_instance_id": "agent-2"})));
    let answer = send(api.address, "/pay", &other, &headers, b"{}").unwrap();
    assert!(answer.status == 201 && !answer.has("idempotent-replayed"), "{answer:?}");
    assert_eq!(api.runs(), 2);
}

#[test]
fn while_it_runs_it_is_waited_for_and_it_runs_on_without_its_caller() {
    let api = Api::new(Limits::default());
    let headers = [("Idempotency-Key", "order-1"), ("Content-Type", "application/json")];
    std::thread::scope(|scope| {
        scope.spawn(|| api.call("/slow", "order-1", &json!({})));
        wait_until("it runs", || api.runs() == 1);
        let running = api.call("/slow", "order-1", &json!({}));
        assert_eq!((running.status, running.code()), (409, "CALL_RUNNING".to_owned()));
        assert!(running.has("retry-after"));
    });
    assert_eq!(api.call("/slow", "order-1", &json!({})).status, 201);

    // A caller that goes away before the answer.
    let mut stream = TcpStream::connect(api.address).unwrap();
    let gone = token(70);
    let head = format!(
        "POST /slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {}\r\nContent-Length: 0\r\nIdempotency-Key: order-2\r\n\r\n",
        gone.text()
    );
    stream.write_all(head.as_bytes()).unwrap();
    wait_until("it runs", || api.runs() == 2);
    drop(stream);
    wait_until("it is done", || {
        let number = 100 + api.tokens.fetch_add(1, Ordering::SeqCst) as u64;
        let answer =
            send(api.address, "/slow", &token(number), &[headers[1], ("Idempotency-Key", "order-2")], b"")
                .unwrap();
        assert!(matches!(answer.status, 201 | 409), "{answer:?}");
        answer.status == 201
    });
    assert_eq!(api.runs(), 2);
}

#[test]
fn what_panicked_or_took_too_long_is_never_carried_out_again() {
    let api = Api::new(Limits { running_secs: 1, ..Limits::default() });
    assert_eq!(api.call("/panics", "a", &json!({})).status, 500);
    let stuck = api.call("/stuck", "b", &json!({}));
    assert_eq!((stuck.status, stuck.code()), (409, "OUTCOME_UNKNOWN".to_owned()));
    for (route, key) in [("/panics", "a"), ("/stuck", "b")] {
        let again = api.call(route, key, &json!({}));
        assert_eq!((again.status, again.code()), (409, "OUTCOME_UNKNOWN".to_owned()));
        assert!(!again.has("retry-after"), "nothing is to be waited for");
    }
    assert_eq!(api.runs(), 2);
}

#[test]
fn an_answer_that_is_too_long_is_given_once_and_not_kept() {
    let api = Api::new(Limits::default());
    let first = api.call("/long", "a", &json!({}));
    assert_eq!((first.status, first.body.len()), (201, 2 + 2 * MAX_ANSWER_BYTES));
    let again = api.call("/long", "a", &json!({}));
    assert_eq!((again.status, again.code(), api.runs()), (409, "ANSWER_NOT_KEPT".to_owned(), 1));
}

#[test]
fn there_are_bounds_on_keys_and_on_receipts() {
    let api = Api::new(Limits { most: 2, ..Limits::default() });
    let longest = "k".repeat(255);
    for (key, status) in
        [("", 400), (&*"k".repeat(256), 400), ("two words", 400), ("caf\u{e9}", 400), (&*longest, 201)]
    {
        assert_eq!(api.call("/pay", key, &json!({})).status, status, "{key:?}");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    assert_eq!(send(api.address, "/pay", &token(80), &twice, b"").unwrap().status, 400);
    assert_eq!(api.call("/pay", "second", &json!({})).status, 201);
    let full = api.call("/pay", "third", &json!({}));
    assert_eq!((full.status, full.code()), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(api.call("/pay", "second", &json!({})).status, 201, "what is known is answered");
    assert_eq!(api.runs(), 2);
}

#[test]
fn a_sealed_call_is_answered_under_the_key_of_each_token() {
    let api = Api::new(Limits::default());
    let sealed_token = |number| {
        Forge::new(number, &scope_with(json!({"constraints": {"require_channel_encryption": true}})))
    };
    let mut plain = Vec::new();
    for number in [1, 2] {
        let token = sealed_token(number);
        let keys = obol_world::KEYS
            .material()
            .channel_keys(&token.jti(), &ResponseKey::from_bytes(token.response_key));
        let body = [&[9; 12][..], &keys.seal_request(&[9; 12], b"{\"cents\":5}").unwrap()].concat();
        let headers = [("Idempotency-Key", "order-1"), ("Content-Type", SEALED_CONTENT_TYPE)];
        let answer = send(api.address, "/pay", &token, &headers, &body).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        let (iv, sealed) = answer.body.split_at(12);
        plain.push(keys.open_response(iv.try_into().unwrap(), sealed).unwrap());
    }
    assert_eq!(plain[0], b"{\"cents\":5}.");
    assert_eq!((&plain[0], api.runs()), (&plain[1], 1));
}

/// What the child process below is told, as JSON.
const CHILD: &str = "OBOL_TEST_RECEIPTS";

/// The child: an API that keeps receipts in a file or in Redis and notes each run in a file, until somebody kills it.
#[test]
fn serves_named_calls_until_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |name: &str| told[name].as_str().map(str::to_owned);
    let (key, clock) = (Key32::from_bytes([7; 32]), Arc::new(SystemClock::new()));
    let limits = Limits { running_secs: 2, ..Limits::default() };
    let store: Arc<dyn ReceiptStore> = match (text("file"), text("redis")) {
        (Some(file), _) => Arc::new(RedbReceipts::open(file, &key, limits, NewFile::Trusted, clock).unwrap()),
        (None, Some(url)) => {
            let options = RedisOptions::new(&url, "receipts").unwrap().first_start();
            Arc::new(RedisReceipts::open(options, &key, limits, clock).unwrap())
        }
        (None, None) => panic!("no store"),
    };
    let runs = PathBuf::from(text("runs").unwrap());
    let note = move || {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&runs).unwrap();
        file.write_all(b"run\n").unwrap();
        file.sync_all().unwrap();
    };
    let routes = routes(&Receipts::new(store), note);
    Runtime::new().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening {}", listener.local_addr().unwrap()).unwrap();
        out.flush().unwrap();
        axum::serve(listener, routes).await.unwrap();
    });
}

/// A child process, killed when dropped.
struct Replica {
    child: Child,
    address: SocketAddr,
}

impl Replica {
    fn start(told: &Value) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "resource::receipts::serves_named_calls_until_killed",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, told.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = lines
            .filter_map(|line| line.split_once("listening ").map(|(_, address)| address.parse().unwrap()));
        let address = said.next().expect("the child listens");
        Self { child, address }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn runs(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn a_call_that_runs_when_its_server_is_killed_is_never_carried_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut unknown, mut done) = (0, 0);
    for round in 0..6_u64 {
        let runs_file = folder.path().join(format!("runs-{round}"));
        let told = json!({"file": folder.path().join("receipts.redb"), "runs": runs_file});
        let headers = [("Idempotency-Key", &*format!("order-{round}")), ("Content-Type", "application/json")];
        let mut first = Replica::start(&told);
        // The handler takes 400 ms: most are killed in the middle of it, the last ones after it.
        let kill_after = Duration::from_millis(round * 130);
        std::thread::scope(|scope| {
            let address = first.address;
            let call = scope.spawn(move || send(address, "/slow", &token(1), &headers, b"{}"));
            wait_until("it runs", || runs(&runs_file) == 1);
            std::thread::sleep(kill_after);
            first.kill();
            let _cut_off = call.join().unwrap();
        });
        let again = Replica::start(&told);
        for number in 2..4 {
            let answer = send(again.address, "/slow", &token(number), &headers, b"{}").unwrap();
            match (answer.status, answer.code().as_str()) {
                (409, "OUTCOME_UNKNOWN") => unknown += 1,
                (201, _) if answer.has("idempotent-replayed") => done += 1,
                _ => panic!("{answer:?}"),
            }
        }
        assert_eq!(runs(&runs_file), 1, "round {round}");
    }
    assert!(unknown > 0 && done > 0, "{unknown} unknown, {done} done: both have to be tried");
}

#[test]
fn three_servers_on_one_redis_carry_a_call_out_once_also_when_one_is_killed() {
    let redis = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let runs_file = folder.path().join("runs");
    let told = json!({"redis": redis.url(), "runs": runs_file});
    let mut replicas: Vec<_> = (0..3).map(|_| Replica::start(&told)).collect();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    let call = |replica: usize, route: &str, key: &str, number: u64| {
        let headers = [("Idempotency-Key", key), ("Content-Type", "application/json")];
        send(addresses[replica], route, &token(number), &headers, b"{}")
    };
    // At the same moment at all three, several times each.
    for round in 0..4 {
        let key = format!("order-{round}");
        let answers: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..9)
                .map(|number| {
                    scope.spawn({
                        let (call, key) = (&call, &key);
                        move || call(number % 3, "/pay", key, 100 * round + number as u64).unwrap()
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert!(
            answers.iter().all(|answer| answer.status == 201 || answer.code() == "CALL_RUNNING"),
            "{answers:?}"
        );
        for replica in 0..3 {
            let answer = call(replica, "/pay", &key, 100 * round + 50 + replica as u64).unwrap();
            assert_eq!((answer.status, answer.has("idempotent-replayed")), (201, true), "{answer:?}");
        }
        assert_eq!(runs(&runs_file), usize::try_from(round).unwrap() + 1);
    }

    // One that is killed with the call running: the others wait for it, and then nobody knows.
    std::thread::scope(|scope| {
        scope.spawn(|| call(0, "/stuck", "order-x", 900));
        wait_until("it runs", || runs(&runs_file) == 5);
        replicas[0].kill();
    });
    let asked = call(1, "/stuck", "order-x", 901).unwrap();
    assert_eq!((asked.status, asked.code()), (409, "CALL_RUNNING".to_owned()));
    let mut number = 902;
    wait_until("nobody waits any more", || {
        number += 1;
        let asked = call(2, "/stuck", "order-x", number).unwrap();
        assert_eq!(asked.status, 409, "{asked:?}");
        asked.code() == "OUTCOME_UNKNOWN"
    });
    assert_eq!(runs(&runs_file), 5);
}

#[test]
fn what_may_have_been_lost_begins_nothing() {
    let redis = RedisServer::start(&[]);
    let open = |first_start: bool| {
        let options = RedisOptions::new(&redis.url(), "receipts").unwrap();
        let options = if first_start { options.first_start() } else { options };
        let (key, clock) = (Key32::from_bytes([7; 32]), Arc::new(SystemClock::new()));
        RedisReceipts::open(options, &key, Limits::default(), clock).unwrap()
    };
    let id = |key: &str| obol_verify::receipt::ReceiptId::new("org", "agent", key);
    let call = obol_verify::receipt::CallDigest::new(&[b"call"]);
    let store = open(true);
    assert_eq!(store.begin(&id("a"), &call), Ok(obol_verify::receipt::Begun::Fresh));
    redis.ask(&["FLUSHALL"]);
    // Once by whoever finds out that it is gone, and then for a lifetime.
    assert!((0..3).all(|_| store.begin(&id("a"), &call).is_err()));
    assert!(store.begin(&id("b"), &call).is_err() && store.health().is_err());

    let folder = tempfile::tempdir().unwrap();
    let open = |new_file| {
        let (key, clock) = (Key32::from_bytes([7; 32]), Arc::new(SystemClock::new()));
        RedbReceipts::open(folder.path().join("receipts.redb"), &key, Limits::default(), new_file, clock)
    };
    let store = open(NewFile::Fenced).unwrap();
    assert!(store.begin(&id("a"), &call).unwrap_err().to_string().contains("their file is new"));
    drop(store);
    let store = open(NewFile::Trusted).unwrap();
    assert!(store.begin(&id("a"), &call).is_err(), "the fence is the file's");
}
