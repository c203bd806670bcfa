//! What a token costs a request: `obol-agent`'s `fetch`, and the client that it is made of without it, against the same server,
//! which ignores the header. Calls back to back, connections kept alive, the real sidecar.
//!
//! `cargo bench -p obol-benches --bench fetch`; with `-- --quick` a tenth of the calls. Both kinds take turns, in blocks, so that what
//! else the machine does falls on both.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::print_stdout, reason = "what it measures is what it prints")]

#[path = "ipc/daemon.rs"]
#[expect(dead_code, reason = "the other benchmark asks more of it")]
mod daemon;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::any;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use obol_agent::{Agent, Route};
use obol_benches::rows::{self, Row, Target, Unit};
use obol_world::AUDIENCE;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::daemon::Daemon;

const TOOL: &str = "search";
/// A suite whose tokens are minted fast.
const FAST: u8 = 2;
/// Tokens that are there before anything is measured. No more than half is drawn, so none is minted meanwhile.
const READY: u16 = 60_000;
/// The most connections to the server: one for each client of each caller, and as many again.
const MOST_CONNECTIONS: f64 = 12.0;
/// Calls of one kind that are not counted, and those of a block.
const WARM: usize = 500;
const BLOCK: usize = 500;
/// The most that a token may add, p50, in nanoseconds.
const MOST_ADDED: f64 = 60_000.0;

fn text(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a path of text").to_owned()
}

fn main() {
    // `cargo test --benches` runs this without it, and wants to know only that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let calls = if quick { 1_000 } else { usize::from(READY) / 6 };
    rows::begin();
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), FAST, &[TOOL], READY);
    daemon.wait_until_ready(u64::from(READY));
    let server = Server::start();
    for kind in Caller::ALL {
        let (plain, fetched) = kind.calls(&daemon, server.address, calls);
        record(kind, &plain, &fetched);
    }
    let connections = server.connections.load(Ordering::SeqCst);
    println!("{connections} connections of all clients together");
    #[expect(clippy::cast_precision_loss, reason = "there are a few")]
    let row = Row::new("fetch", "connections of all clients together", Unit::Count, connections as f64);
    row.wants(Target::AtMost(MOST_CONNECTIONS)).record();
}

/// Who calls. Waking a thread of another core is most of what a call costs, and how many are woken depends on this.
#[derive(Clone, Copy)]
enum Caller {
    /// A task of a runtime with several threads: a handler of a server, or what was spawned.
    Task,
    /// The future that such a runtime was started with, as `#[tokio::main]` does: on a thread that has no part in the I/O.
    Main,
    /// A runtime with one thread.
    OneThread,
}

impl Caller {
    const ALL: [Self; 3] = [Self::Task, Self::Main, Self::OneThread];

    const fn name(self) -> &'static str {
        match self {
            Self::Task => "a task",
            Self::Main => "the main future",
            Self::OneThread => "a runtime of one thread",
        }
    }

    /// Times of calls, in nanoseconds: without a token, and with one.
    fn calls(self, daemon: &Daemon, server: SocketAddr, calls: usize) -> (Vec<u64>, Vec<u64>) {
        let measure = measure(daemon.socket(), server, calls);
        let many = || Runtime::new().expect("a runtime");
        match self {
            Self::Task => many().block_on(async { tokio::spawn(measure).await.expect("an end") }),
            Self::Main => many().block_on(measure),
            Self::OneThread => {
                let one = tokio::runtime::Builder::new_current_thread().enable_all().build();
                one.expect("a runtime").block_on(measure)
            }
        }
    }
}

fn record(kind: Caller, plain: &[u64], fetched: &[u64]) {
    let name = kind.name();
    println!(
        "{name}: fetch p50 {:.1} µs, p99 {:.1} µs; without a token p50 {:.1} µs, p99 {:.1} µs",
        percentile(fetched, 50) / 1e3,
        percentile(fetched, 99) / 1e3,
        percentile(plain, 50) / 1e3,
        percentile(plain, 99) / 1e3,
    );
    let added = percentile(fetched, 50) - percentile(plain, 50);
    let row =
        Row::new("fetch", format!("what a token adds to a request of {name}, p50"), Unit::Nanoseconds, added);
    row.wants(Target::AtMost(MOST_ADDED)).record();
    let with = percentile(fetched, 50);
    let row = Row::new("fetch", format!("a request of {name} with a token, p50"), Unit::Nanoseconds, with);
    row.beside("the same client without", percentile(plain, 50)).record();
}

/// An HTTP server on threads of its own, which counts its connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let connections = Arc::<AtomicUsize>::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let counting = Counting { listener, connections: Arc::clone(&connections) };
        let routes = Router::new().fallback(any(async || "rain"));
        runtime.spawn(async move { axum::serve(counting, routes).await });
        Self { address, connections, _runtime: runtime }
    }
}

struct Counting {
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
}

impl axum::serve::Listener for Counting {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let accepted = axum::serve::Listener::accept(&mut self.listener).await;
        let _best_effort = accepted.0.set_nodelay(true);
        self.connections.fetch_add(1, Ordering::SeqCst);
        accepted
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn measure(socket: PathBuf, server: SocketAddr, calls: usize) -> (Vec<u64>, Vec<u64>) {
    let url = format!("http://{server}/v1/query?q=rain");
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let route: Route = serde_json::from_value(serde_json::json!({
        "audience": AUDIENCE, "tools": [TOOL], "url": format!("http://{server}"), "path": "/v1/**",
    }))
    .expect("a route");
    let agent = Agent::builder().socket(socket).routes([route]).connect().await.expect("a sidecar");
    let plain = || async {
        let request = Request::get(&url).body(Empty::new()).expect("a request");
        let answer = client.request(request).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "rain");
    };
    let fetched = || async {
        let request = Request::get(&url).body(()).expect("a request");
        let answer = agent.fetch(request).await.expect("an answer");
        assert_eq!(answer.into_body().collect_up_to(1 << 10).await.expect("a body"), "rain");
    };
    for _ in 0..WARM {
        plain().await;
        fetched().await;
    }
    let (mut without, mut with) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    while with.len() < calls {
        for _ in 0..BLOCK {
            without.push(timed(plain()).await);
        }
        for _ in 0..BLOCK {
            with.push(timed(fetched()).await);
        }
    }
    (without, with)
}

async fn timed(call: impl Future<Output = ()>) -> u64 {
    let began = Instant::now();
    call.await;
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call are few")]
fn percentile(times: &[u64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).map_or(0.0, |time| *time as f64)
}
