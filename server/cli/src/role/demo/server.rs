//! The resource server of the demo: four routes, each guarded for its own tool. It joins the Authentication Service once
//! and knows the sessions that it hears of from there, and no others.

use core::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use obol_handshake::{IdentityKey, SystemRandom};
use obol_probe::stop::Stop;
use obol_resource::provision::{Follower, Lease, LeasedTable, join};
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_session::clock::Clock as _;
use obol_token::{Audience, SessionId};
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use obol_verify::{CascadeLimits, MemorySessionTable, SessionTable as _, SystemClock, Verifier};
use obol_verify::{NewFile, RedbSpentSetOptions};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::authority::Authority;
use super::home::Home;
use crate::exit::{Failure, Outcome};

/// How long nothing needs to be heard from the service, in seconds.
const LEASE_SECS: u64 = 300;

/// A running server; it ends with the runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) verifier: Verifier,
    sessions: Arc<MemorySessionTable>,
    _runtime: Runtime,
}

impl Server {
    /// Joins, and starts on a free port of loopback. Both clocks are this machine's, so no skew is allowed for: an expired
    /// token is refused at once.
    pub(crate) fn start(audience: &str, authority: &Authority, home: &Home) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let clock = Arc::new(SystemClock::new());
        let sessions = Arc::new(MemorySessionTable::new());
        let spent = RedbSpentSetOptions::new(home.path().join("spent.redb"))
            .clock_skew(0)
            .new_file(NewFile::Trusted)
            .open(clock.clone())
            .map_err(Failure::other)?;
        let lease = Arc::new(Lease::new(LEASE_SECS, clock.clone()));
        let leased = LeasedTable::new(sessions.clone(), Arc::clone(&lease));
        let audience = Audience::new(audience).map_err(Failure::other)?;
        let service = Pinned::parse(&authority.pin).map_err(Failure::other)?;
        let mut uplink = Uplink::new(service, &UplinkOptions::new()).map_err(Failure::other)?;
        let key = IdentityKey::generate(&mut SystemRandom);
        let code = authority.operator.invite_server(audience.as_str())?;
        let joined = runtime.block_on(join(&mut uplink, &key, &code, clock.now()));
        joined.map_err(|error| Failure::other(format_args!("cannot join the service: {error}")))?;
        let follower = Follower::new(uplink, key, audience.clone(), sessions.clone(), lease, clock.clone());
        let verifier = Verifier::builder(audience, Arc::new(leased), Arc::new(spent))
            .clock(clock)
            .approvals(follower.approvals())
            .limits(CascadeLimits { clock_skew: 0, ..CascadeLimits::default() })
            .build()
            .map_err(Failure::other)?;
        runtime.spawn(follower.run(Stop::new()));

        let app = routes(&Gate::new(verifier.clone()));
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, verifier, sessions, _runtime: runtime })
    }

    /// Whether it has heard of this session.
    pub(crate) fn knows(&self, session: SessionId) -> bool {
        self.sessions.look_up(session).is_ok_and(|found| found.is_some())
    }
}

fn routes(gate: &Gate) -> Router {
    let guarded = |tool: &str| TbacLayer::new(gate.clone(), ToolCall::new(tool).action("call"));
    Router::new()
        .route("/search", get(handler).layer(guarded("search")))
        .route("/pay", get(handler).layer(guarded("pay")))
        .route("/brief", get(handler).layer(guarded("brief")))
        .route("/refund", get(handler).layer(guarded("refund")))
}

async fn handler(token: SpentToken) -> String {
    format!("{} by {}\n", token.scope().tool, token.scope().agent_instance_id)
}
