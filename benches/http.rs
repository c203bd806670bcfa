//! Requests over HTTP on loopback: `POST /v1/verify`, and one axum route with and without the layer. Every request
//! brings a token of its own, minted ahead.
//!
//! `cargo bench -p obol-benches --bench http`; with `-- --quick` a tenth of the requests. Server and clients share the
//! machine, so the figures are what both together can do; the ratio between the routes is the layer's cost.

#![allow(clippy::print_stdout, reason = "a benchmark talks to whoever runs it")]

use core::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use obol_benches::clients::{Failure, Measured, load};
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
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

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

/// Three rows, each beside the other load's figure where there is one.
fn record(measured: &Measured, what: &str, other: Option<(&str, &Measured)>) {
    let figures = |of: &Measured| [of.per_second, of.p50, of.p99];
    let named = [("", Unit::PerSecond), (", p50", Unit::Nanoseconds), (", p99", Unit::Nanoseconds)];
    let peers = other.map(|(name, other)| (name, figures(other)));
    for (place, ((suffix, unit), figure)) in named.into_iter().zip(figures(measured)).enumerate() {
        let row = Row::new("http", format!("{what}{suffix}"), unit, figure);
        let beside = peers.as_ref().and_then(|(name, peers)| Some((*name, *peers.get(place)?)));
        match beside {
            Some((name, peer)) => row.beside(name, peer).record(),
            None => row.record(),
        }
    }
    println!("{what}: {measured}");
}

fn measure(suite: Suite, requests: usize) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let site = runtime.block_on(Site::start(suite))?;
    let warm_up = requests / 100;
    let mut numbers = 0_u64..;
    let mut ask = |address, request: Bring<'_>| {
        let tokens = tokens(suite, &mut numbers, requests + warm_up);
        let mut requests = Vec::with_capacity(tokens.len());
        for token in &tokens {
            requests.push(request(token)?);
        }
        let measured = requests.split_off(warm_up);
        runtime.block_on(async {
            load(address, CONNECTIONS, requests).await?;
            Ok::<_, Failure>(load(address, CONNECTIONS, measured).await?.measured())
        })
    };
    let bare =
        ask(site.app, &|_| Ok(Request::get("/bare").header("host", "localhost").body(Full::default())?))?;
    let guarded = ask(site.app, &|token| {
        let request = Request::get("/guarded").header("host", "localhost");
        Ok(request.header("authorization", format!("TBAC {token}")).body(Full::default())?)
    })?;
    let verified = ask(site.service, &|token| {
        let body = serde_json::json!({"token": token, "tool": "search", "action": "read"}).to_string();
        let request = Request::post("/v1/verify").header("host", "localhost");
        Ok(request.header("content-type", "application/json").body(Full::from(body))?)
    })?;
    record(
        &guarded,
        &format!("axum route with the layer, suite {suite}"),
        Some(("the same route without it", &bare)),
    );
    record(&verified, &format!("POST /v1/verify, suite {suite}"), None);
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
