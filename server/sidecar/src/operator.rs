//! An operator's socket for any daemon: its own user's and root's alone, with whatever protocol its operator speaks.

use core::sync::atomic::AtomicUsize;
use std::path::Path;
use std::sync::Arc;

use obol_ipc::names::PeerName;
use obol_ipc::{Endpoint, Protocol};
use obol_probe::contract::BindError;
use obol_probe::stop::Stop;

use crate::access::Access;
use crate::connection::Answerer;
use crate::limits::{PeerLimits, Peers};
use crate::listener::Listener;
use crate::socket_server::{DRAIN_TIMEOUT, MAX_CONTROL_CONNECTIONS, SocketServer};

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

    /// The same in a folder that may be the agents' too, beside a socket with this access: they reach the folder, and not this.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing that was there before was touched.
    pub fn bind_beside(endpoint: &Endpoint, agents: &Access) -> Result<Self, BindError> {
        Listener::bind(endpoint, agents.own_user_beside()).map(Self)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Serves until the word to stop is said, then answers what was received. `server` is what it calls itself.
    pub async fn serve<P: Protocol, A: Answerer<P>>(self, answerer: Arc<A>, server: PeerName, stop: &Stop) {
        let peers = Peers::new(PeerLimits::unmetered(MAX_CONTROL_CONNECTIONS));
        let lost = Arc::new(AtomicUsize::new(0));
        let _said_in_the_log =
            SocketServer::<P, A>::new(self.0, answerer, peers, server, lost).serve(stop, DRAIN_TIMEOUT).await;
    }
}
