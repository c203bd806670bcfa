//! A provider, its agents, and requests to it.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use obol_atp::{AgentId, Secret, TokenBody};
use obol_atp_server::{Router, SecretBook, Store};
use obol_verify::{MemorySpentSet, NewFile, RedbSpentSetOptions, SpentSet, SystemClock};

use crate::Failure;

pub(crate) const E: &str = "https://api.example.com/v1/agent-tokens";
pub(crate) const PATH: &str = "/v1/agent-tokens";
pub(crate) const SECRET: &str = "a secret of an agent in a benchmark";

pub(crate) fn secret() -> Secret {
    Secret::of_any_length(SECRET.as_bytes())
}

/// A request of an agent of this number, signed now; no two are the same.
pub(crate) fn body(agent: u8) -> TokenBody<'static> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TokenBody {
        agent_id: AgentId::from_random([agent; 16]),
        aud: Some(E.into()),
        nonce: Some(format!("{:016}", NONCE.fetch_add(1, Ordering::Relaxed)).into()),
        purpose: None,
        scopes: vec!["read".into()],
        timestamp: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A provider; `folder` for one that keeps everything in files.
pub(crate) fn provider(endpoint: &str, folder: Option<&Path>) -> Result<Router, Failure> {
    let clock = Arc::new(SystemClock::new());
    let (store, spent): (_, Arc<dyn SpentSet>) = match folder {
        None => (Store::memory(), Arc::new(MemorySpentSet::unfenced(clock, 60))),
        Some(folder) => {
            let options = RedbSpentSetOptions::new(folder.join("spent.redb"));
            let spent = options.clock_skew(60).new_file(NewFile::Trusted).open(clock)?;
            (Store::open(&folder.join("tokens.redb"), &folder.join("key"))?, Arc::new(spent))
        }
    };
    let builder = Router::builder(endpoint.parse()?).secrets(SecretBook::shared(SECRET.as_bytes())?);
    let builder =
        builder.scopes(["read", "write"]).store(store).spent(spent).token_ttl(Duration::from_secs(3_600));
    Ok(builder.address_rate(0).agent_rate(0).build()?)
}

/// Its routes on loopback, with one guarded route and the same one bare.
pub(crate) async fn serve(router: Router) -> Result<SocketAddr, Failure> {
    let routes = axum::Router::new()
        .route("/bare", get(|| async { "rows" }))
        .route("/guarded", get(|| async { "rows" }).layer(router.require("read")))
        .nest(PATH, router.into());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}
