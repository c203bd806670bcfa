//! An API in this process that takes tokens of sessions made by hand.

use core::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use obol_resource::Gate;
use obol_token::Audience;
use obol_verify::{MemorySessionTable, MemorySpentSet, SystemClock, Verifier, read_session_file};

/// Lets in what the sessions of `rs-sessions.json` in this home may do at `audience`.
pub(crate) fn gate(home: &Path, audience: &str) -> Gate {
    let clock = Arc::new(SystemClock::new());
    let sessions = MemorySessionTable::new();
    for session in read_session_file(&home.join("rs-sessions.json")).unwrap() {
        sessions.add(session).unwrap();
    }
    let spent = MemorySpentSet::unfenced(Arc::<SystemClock>::clone(&clock), 60);
    let verifier = Verifier::builder(Audience::new(audience).unwrap(), Arc::new(sessions), Arc::new(spent));
    Gate::new(verifier.clock(clock).build().unwrap())
}

/// Serves these routes on a free port, as long as the runtime lives.
pub(crate) async fn listen(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    address
}
