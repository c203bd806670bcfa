//! An operator's socket for any daemon: its own user's and root's alone, with whatever protocol its operator speaks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use obol_ipc::names::PeerName;
use obol_ipc::{Endpoint, Protocol};
use tokio::sync::watch;

use crate::access::Access;
use crate::connection::Answerer;
use crate::limits::{Limits, Peers};
use crate::listener::{BindError, Listener};
use crate::service::{Door, MAX_CONTROL_CONNECTIONS};

/// A bound socket.
#[derive(Debug)]
pub struct OperatorSocket(Listener);

impl OperatorSocket {
    /// Takes the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing that was there before was touched.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        Listener::bind(endpoint, Access::OwnUser).map(Self)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Serves until `stopping` says so, then answers what was received. `server` is what it calls itself.
    pub async fn serve<P: Protocol, A: Answerer<P>>(
        self,
        answerer: Arc<A>,
        server: PeerName,
        stopping: watch::Receiver<bool>,
    ) {
        let peers = Peers::new(Limits::unmetered(MAX_CONTROL_CONNECTIONS));
        let lost = Arc::new(AtomicUsize::new(0));
        Door::<P, A>::new(self.0, answerer, peers, server, lost).serve(stopping).await;
    }
}
