//! A socket for agents that another daemon serves beside the sidecar's own, with whatever protocol it speaks: for the same
//! users, by the same modes, with the same bounds.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use obol_ipc::Protocol;
use obol_ipc::names::PeerName;
use obol_probe::contract::BindError;
use obol_probe::stop::Stop;

use crate::connection::Answerer;
use crate::limits::{PeerLimits, Peers};
use crate::listener::Listener;
use crate::service::Socket;
use crate::socket_server::SocketServer;

/// A bound socket, whose peers are held to limits.
#[derive(Debug)]
pub struct AgentsSocket {
    listener: Listener,
    peers: Arc<Peers>,
    lost: Arc<AtomicUsize>,
}

/// How a socket is, while it is served.
#[derive(Clone, Debug)]
pub struct SocketHealth {
    peers: Arc<Peers>,
    lost: Arc<AtomicUsize>,
}

impl SocketHealth {
    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.peers.connections()
    }

    /// Whether the socket's path leads elsewhere, so that nobody new can connect.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) > 0
    }
}

impl AgentsSocket {
    /// Takes the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing that was there before was touched.
    pub fn bind(socket: Socket, limits: PeerLimits) -> Result<Self, BindError> {
        Ok(Self { listener: socket.take()?, peers: Peers::new(limits), lost: Arc::default() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// How it is, for whoever watches.
    pub fn health(&self) -> SocketHealth {
        SocketHealth { peers: Arc::clone(&self.peers), lost: Arc::clone(&self.lost) }
    }

    /// Serves until the word to stop is said, then gives what was received so long. `server` is what it calls itself. The
    /// answer is how many connections were cut off.
    pub async fn serve<P: Protocol, A: Answerer<P>>(
        self,
        answerer: Arc<A>,
        server: PeerName,
        stop: &Stop,
        drain_timeout: Duration,
    ) -> usize {
        let Self { listener, peers, lost } = self;
        SocketServer::<P, A>::new(listener, answerer, peers, server, lost).serve(stop, drain_timeout).await
    }
}
