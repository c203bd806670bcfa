//! The resource server of the demo: two routes, each guarded for its own tool.

use core::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_token::{Audience, SessionId};
use obol_verify::{CascadeLimits, MemorySessionTable, SystemClock, Verifier, parse_sessions};
use obol_verify::{NewFile, RedbSpentSetOptions};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::exit::{Failure, Outcome};

/// A running server; it ends with the runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) verifier: Verifier,
    sessions: Arc<MemorySessionTable>,
    _runtime: Runtime,
}

impl Server {
    /// Starts on a free port of loopback. Both clocks are this machine's, so no skew is allowed for: an expired token is
    /// refused at once.
    pub(crate) fn start(audience: &str, session_file: &[u8], spent: &Path) -> Outcome<Self> {
        let sessions = Arc::new(MemorySessionTable::new());
        let listed = parse_sessions(session_file).map_err(Failure::other)?;
        sessions.replace_all(listed).map_err(Failure::other)?;
        let clock = Arc::new(SystemClock::new());
        let spent = RedbSpentSetOptions::new(spent)
            .clock_skew(0)
            .new_file(NewFile::Trusted)
            .open(clock.clone())
            .map_err(Failure::other)?;
        let audience = Audience::new(audience).map_err(Failure::other)?;
        let verifier = Verifier::builder(audience, sessions.clone(), Arc::new(spent))
            .clock(clock)
            .limits(CascadeLimits { clock_skew: 0, ..CascadeLimits::default() })
            .build()
            .map_err(Failure::other)?;

        let app = routes(&Gate::new(verifier.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, verifier, sessions, _runtime: runtime })
    }

    /// Ends a session here; tokens of it that are on their way are refused from now on.
    pub(crate) fn revoke(&self, session: &str) -> bool {
        SessionId::parse(session).is_some_and(|id| self.sessions.revoke(id))
    }
}

fn routes(gate: &Gate) -> Router {
    let guarded = |tool: &str| TbacLayer::new(gate.clone(), ToolCall::new(tool).action("call"));
    Router::new()
        .route("/search", get(handler).layer(guarded("search")))
        .route("/pay", get(handler).layer(guarded("pay")))
        .route("/brief", get(handler).layer(guarded("brief")))
}

async fn handler(token: SpentToken) -> String {
    format!("{} by {}\n", token.scope().tool, token.scope().agent_instance_id)
}
