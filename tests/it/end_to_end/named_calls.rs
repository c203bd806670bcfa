//! An agent's SDK, the sidecar and a resource server with retry receipts, each a process of its own: a call that its caller named is
//! carried out once, although its server is killed in the middle and the SDK sends it again.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use axum::routing::post;
use obol_agent::{Agent, CallOptions, Code, Error, Route};
use obol_resource::{Gate, Receipts, SpentToken, TbacLayer, ToolCall};
use obol_secret::key::Key32;
use obol_token::Audience;
use obol_verify::receipt::{Limits, RedbReceipts};
use obol_verify::{
    MemorySessionTable, MemorySpentSet, NewFile, SessionStore, SystemClock, Verifier, read_session_halves,
};
use obol_world::home::{self, free_port, wait_until};
use obol_world::now;
use obol_world::tqs::Tqs;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{AUDIENCE, create_session};

/// What the child process below is told, as JSON.
const CHILD: &str = "OBOL_TEST_NAMED_CALLS";

/// The child: an API whose handler notes each run in a file and then takes its time, until somebody kills it.
#[test]
fn serves_until_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let home = PathBuf::from(told["home"].as_str().unwrap());
    let clock = Arc::new(SystemClock::new());
    let sessions = Arc::new(MemorySessionTable::new());
    for half in read_session_halves(&home.join("rs-sessions.json")).unwrap() {
        SessionStore::add(&*sessions, &half, now()).unwrap();
    }
    let spent = Arc::new(MemorySpentSet::unfenced(Arc::<SystemClock>::clone(&clock), 60));
    let verifier = Verifier::builder(Audience::new(AUDIENCE).unwrap(), sessions, spent).build().unwrap();
    let runs = home.join("runs");
    let slow = async move |_token: SpentToken| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&runs).unwrap();
        file.write_all(b"run\n").unwrap();
        file.sync_all().unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        "paid"
    };
    let mut routes = Router::new().route("/pay", post(slow));
    if told["receipts"] == true {
        let key = Key32::from_bytes([7; 32]);
        let file = home.join("receipts.redb");
        let store = RedbReceipts::open(file, &key, Limits::default(), NewFile::Trusted, clock).unwrap();
        routes = routes.route_layer(Receipts::new(Arc::new(store)).layer());
    }
    let routes = routes.route_layer(TbacLayer::new(Gate::new(verifier), ToolCall::new("pay")));
    Runtime::new().unwrap().block_on(async {
        let address: SocketAddr = told["address"].as_str().unwrap().parse().unwrap();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        axum::serve(listener, routes).await.unwrap();
    });
}

/// The child process, killed when dropped.
struct Api(Child);

impl Api {
    fn start(told: &Value) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["end_to_end::named_calls::serves_until_killed", "--exact", "--test-threads=1"])
            .env(CHILD, told.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let api = Self(child);
        let address: SocketAddr = told["address"].as_str().unwrap().parse().unwrap();
        wait_until("the API listens", || std::net::TcpStream::connect(address).is_ok());
        api
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn runs(home: &Path) -> usize {
    std::fs::read_to_string(home.join("runs")).unwrap_or_default().lines().count()
}

/// A call under a key whose server is killed in the middle and started again at once: what it came to, and how often it ran. Then the
/// same once more.
fn killed_in_the_middle(receipts: bool) -> Vec<(Result<u16, Code>, usize)> {
    let home = home::home();
    let home = home.path();
    create_session(home);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let address = format!("127.0.0.1:{}", free_port());
    let told = json!({"home": home, "address": address, "receipts": receipts});
    let api = Api::start(&told);
    let runtime = Runtime::new().unwrap();
    let route: Route = serde_json::from_value(json!({
        "audience": AUDIENCE, "tools": ["pay"], "url": format!("http://{address}"), "method": "POST", "path": "/pay",
    }))
    .unwrap();
    let builder = Agent::builder().socket(home.join("run/obol/agent.sock")).routes([route]);
    let agent = runtime.block_on(builder.connect()).unwrap();
    let call = || {
        let (agent, url) = (agent.clone(), format!("http://{address}/pay"));
        async move {
            let options = CallOptions::new().idempotency_key("order-7421");
            let request = Request::post(url).body("").unwrap();
            let answer = agent.fetch_with(request, &options).await;
            answer.map(|answer| answer.status().as_u16()).map_err(|error: Error| error.code())
        }
    };
    let first = runtime.spawn(call());
    wait_until("it runs", || runs(home) == 1);
    drop(api);
    let _again = Api::start(&told);
    let first = (runtime.block_on(first).unwrap(), runs(home));
    vec![first, (runtime.block_on(call()), runs(home))]
}

#[test]
fn a_named_call_is_carried_out_once_although_its_server_is_killed_and_the_agent_sends_it_again() {
    let unknown = Err(Code::OutcomeUnknown);
    assert_eq!(killed_in_the_middle(true), [(unknown, 1), (unknown, 1)]);
    // Control: a server that keeps no receipts carries it out again.
    let (_, last) = killed_in_the_middle(false).pop().unwrap();
    assert!(last > 1, "{last}");
}
