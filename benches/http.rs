//! Requests over HTTP on loopback: `POST /v1/verify`, and one axum route with and without the layer. Every request
//! brings a token of its own, minted ahead.
//!
//! `cargo bench -p obol-benches --bench http`; with `-- --quick` a tenth of the requests. Server and clients share the
//! machine, so the figures are what both together can do; the ratio between the routes is the layer's cost.

#![allow(clippy::print_stdout, reason = "a benchmark talks to whoever runs it")]

use core::error::Error;
use core::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use obol_benches::rows::{self, Row, Unit};
use obol_probe::contract::Address;
use obol_resource::service::Options;
use obol_resource::{Gate, TbacLayer, ToolCall};
use obol_token::text::to_base64url;
use obol_token::{Audience, Nonces, Suite};
use obol_verify::{MemorySessionTable, MemorySpentSet, Session, Template, Verifier};
use obol_world::ManualClock;
use obol_world::mint::mint;
use obol_world::{AUDIENCE, KEYS, NOW, ORG};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

type Failure = Box<dyn Error + Send + Sync>;
/// The request that brings a token.
type Bring<'a> = &'a dyn Fn(&str) -> Result<Request<Full<Bytes>>, Failure>;

/// Requests in one measurement; a hundredth of them comes first and is not counted.
const REQUESTS: usize = 40_000;
/// Connections that are kept alive, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Tokens minted at a time, as a refiller does.
const BATCH: usize = 64;

fn main() -> Result<(), Failure> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let requests = if quick { REQUESTS / 10 } else { REQUESTS };
    rows::begin();
    for suite in [Suite::Tbac, Suite::AesGcm] {
        measure(suite, requests)?;
    }
    Ok(())
}

/// What a load came to.
struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
}

impl Measured {
    /// Three rows, each beside the other load's figure where there is one.
    fn record(&self, what: &str, other: Option<(&str, &Self)>) {
        let figures = |of: &Self| [of.per_second, of.p50, of.p99];
        let named = [("", Unit::PerSecond), (", p50", Unit::Nanoseconds), (", p99", Unit::Nanoseconds)];
        let peers = other.map(|(name, other)| (name, figures(other)));
        for (place, ((suffix, unit), measured)) in named.into_iter().zip(figures(self)).enumerate() {
            let row = Row::new("http", format!("{what}{suffix}"), unit, measured);
            let beside = peers.as_ref().and_then(|(name, peers)| Some((*name, *peers.get(place)?)));
            match beside {
                Some((name, peer)) => row.beside(name, peer).record(),
                None => row.record(),
            }
        }
        println!(
            "{what}: {:.0} requests/s, p50 {:.0} µs, p99 {:.0} µs",
            self.per_second,
            self.p50 / 1e3,
            self.p99 / 1e3
        );
    }
}

fn measure(suite: Suite, requests: usize) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let site = runtime.block_on(Site::start(suite))?;
    let warm_up = requests / 100;
    let mut numbers = 0_u64..;
    let mut load = |address, request: Bring<'_>| {
        let tokens = tokens(suite, &mut numbers, requests + warm_up);
        let mut requests = Vec::with_capacity(tokens.len());
        for token in &tokens {
            requests.push(request(token)?);
        }
        let measured = requests.split_off(warm_up);
        runtime.block_on(async {
            run(address, requests).await?;
            run(address, measured).await
        })
    };
    let bare =
        load(site.app, &|_| Ok(Request::get("/bare").header("host", "localhost").body(Full::default())?))?;
    let guarded = load(site.app, &|token| {
        let request = Request::get("/guarded").header("host", "localhost");
        Ok(request.header("authorization", format!("TBAC {token}")).body(Full::default())?)
    })?;
    let verified = load(site.service, &|token| {
        let body = serde_json::json!({"token": token, "tool": "search", "action": "read"}).to_string();
        let request = Request::post("/v1/verify").header("host", "localhost");
        Ok(request.header("content-type", "application/json").body(Full::from(body))?)
    })?;
    guarded.record(
        &format!("axum route with the layer, suite {suite}"),
        Some(("the same route without it", &bare)),
    );
    verified.record(&format!("POST /v1/verify, suite {suite}"), None);
    Ok(())
}

/// Fresh tokens, as text.
fn tokens(suite: Suite, numbers: &mut core::ops::RangeFrom<u64>, count: usize) -> Vec<String> {
    let session = KEYS.in_suite(suite).material();
    let mut tokens = Vec::with_capacity(count + BATCH);
    while tokens.len() < count {
        let first = numbers.start;
        numbers.start += BATCH as u64;
        tokens.extend(mint(&session, first, BATCH).iter().map(|token| to_base64url(token)));
    }
    tokens.truncate(count);
    tokens
}

/// The routes and the service, with one session and marks in memory.
struct Site {
    app: SocketAddr,
    service: SocketAddr,
}

impl Site {
    async fn start(suite: Suite) -> Result<Self, Failure> {
        let clock = Arc::new(ManualClock::new(NOW));
        let sessions = MemorySessionTable::new();
        sessions.add(Session::new(
            KEYS.in_suite(suite).material().with_nonces(Nonces::Derived),
            Audience::new(AUDIENCE).expect("an audience"),
            ORG,
        ))?;
        let spent = MemorySpentSet::unfenced(clock.clone(), 60);
        let verifier = Verifier::builder(
            Audience::new(AUDIENCE).expect("an audience"),
            Arc::new(sessions),
            Arc::new(spent),
        )
        .templates(Arc::new(Template::Any))
        .clock(clock)
        .build()?;
        let gate = Gate::new(verifier);
        let layer = TbacLayer::new(gate.clone(), ToolCall::new("search").action("read"));
        let routes = Router::new()
            .route("/bare", get(|| async { "rows" }))
            .route("/guarded", get(|| async { "rows" }).layer(layer));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let app = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let service = Options::new("127.0.0.1:0".parse()?).bind(gate).await?;
        let address = service.handle().addresses().iter().find_map(Address::tcp).ok_or("no address")?;
        tokio::spawn(service.run(core::future::pending()));
        Ok(Self { app, service: address })
    }
}

/// Sends all requests over [`CONNECTIONS`] connections, each as soon as the one before it is answered. Every answer
/// must be 200.
async fn run(address: SocketAddr, requests: Vec<Request<Full<Bytes>>>) -> Result<Measured, Failure> {
    let mut shares: Vec<Vec<_>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (share, request) in (0..CONNECTIONS).cycle().zip(requests) {
        shares.get_mut(share).ok_or("no such connection")?.push(request);
    }
    let mut clients = Vec::new();
    for share in shares {
        clients.push((connect(address).await?, share));
    }
    let started = Instant::now();
    let tasks: Vec<_> =
        clients.into_iter().map(|(client, share)| tokio::spawn(send_all(client, share))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let percentile = |of_100: usize| {
        let place = (times.len() * of_100 / 100).min(times.len().saturating_sub(1));
        times.get(place).map_or(f64::NAN, |nanoseconds| *nanoseconds as f64)
    };
    Ok(Measured { per_second: times.len() as f64 / took, p50: percentile(50), p99: percentile(99) })
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// How long each request took, in nanoseconds.
async fn send_all(
    mut client: SendRequest<Full<Bytes>>,
    requests: Vec<Request<Full<Bytes>>>,
) -> Result<Vec<u64>, Failure> {
    let mut times = Vec::with_capacity(requests.len());
    for request in requests {
        let started = Instant::now();
        client.ready().await?;
        let answer = client.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        times.push(u64::try_from(started.elapsed().as_nanos())?);
    }
    Ok(times)
}
