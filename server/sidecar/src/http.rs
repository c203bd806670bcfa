//! `/livez`, `/readyz` and `/metrics`, for this machine alone: a Unix socket of our own, or a loopback address.
//!
//! Whoever can reach a loopback address may be another user; nothing here says more than how many tokens of which tool
//! there are, and nothing here changes anything.

use core::fmt;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::io;
use std::path::Path;
use std::sync::Arc;

use obol_ipc::Endpoint;
use obol_probe::accept::{AnyStream, Listen};
use obol_probe::contract::{Address, BindError};
use obol_probe::health::{self, Loopback, Reach};
use obol_probe::stop::Stop;
use obol_queue::{DequeueError, Queue};

use crate::access::Access;
use crate::agent::why_no_session;
use crate::audit::Auditor;
use crate::counters::{Counters, Seen};
use crate::limits::Peers;
use crate::listener::{Listener, Peer};

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAddress {
    /// A Unix socket.
    Unix(Endpoint),
    /// A loopback address.
    Tcp(SocketAddr),
}

/// A bound listener.
#[derive(Debug)]
pub struct HttpListener(Socket);

#[derive(Debug)]
enum Socket {
    Unix(Listener),
    Tcp(Loopback),
}

impl HttpAddress {
    /// Whether the address may be served at all.
    ///
    /// # Errors
    ///
    /// [`BindError`] if other machines can reach it.
    pub fn check(&self) -> Result<(), BindError> {
        match self {
            Self::Tcp(address) => Loopback::check(*address),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Takes the address; a socket is for whom `access` tells. Must be called inside a
    /// tokio runtime, and before the sandbox is entered.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(&self, access: Access) -> Result<HttpListener, BindError> {
        let socket = match self {
            Self::Unix(endpoint) => Socket::Unix(Listener::bind(endpoint, access)?),
            Self::Tcp(address) => Socket::Tcp(Loopback::bind(*address)?),
        };
        Ok(HttpListener(socket))
    }
}

impl HttpListener {
    /// Where it listens, if that is a socket's path.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Socket::Unix(listener) => Some(listener.path()),
            Socket::Tcp(_) => None,
        }
    }

    /// Where it listens; `None` if the system does not say.
    pub fn address(&self) -> Option<Address> {
        match &self.0 {
            Socket::Unix(listener) => Some(Address::Unix(listener.path().to_owned())),
            Socket::Tcp(listener) => Some(Address::Tcp(listener.local_addr())),
        }
    }
}

impl Listen for HttpListener {
    type Stream = AnyStream;
    type Peer = Reach;

    async fn accept(&mut self) -> io::Result<(AnyStream, Reach)> {
        match &mut self.0 {
            Socket::Unix(listener) => loop {
                let (stream, peer) = listener.accept().await?;
                if let Peer::Served(_) = peer {
                    return Ok((Box::new(stream), Reach::OwnUser));
                }
            },
            Socket::Tcp(listener) => {
                let (stream, reach) = listener.accept().await?;
                Ok((Box::new(stream), reach))
            }
        }
    }
}

/// Why no token could be handed out now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotReady {
    /// For programs: one of [`NOT_READY`](crate::counters::NOT_READY).
    name: &'static str,
    /// For people.
    why: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What is known about the daemon.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) queue: Arc<Queue>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) counters: Arc<Counters>,
    /// How many sockets' paths are lost.
    pub(crate) lost: Arc<AtomicUsize>,
    pub(crate) stop: Stop,
    /// Without it nothing is handed out, where there is one.
    pub(crate) audit: Option<Auditor>,
    /// Lines of the log that were given up, where somebody counts.
    pub(crate) log_lines_dropped: Option<&'static AtomicU64>,
}

impl Health {
    /// Whether a token could be handed out now; the reason where none could.
    pub(crate) fn check(&self) -> Result<(), NotReady> {
        let not = |name, why| NotReady { name, why };
        if self.stop.is_said() {
            return Err(not("stopping", "stopping".to_owned()));
        }
        self.queue.health().map_err(|error| not("store", error.to_string()))?;
        if let Some(audit) = &self.audit {
            audit.health().map_err(|refusal| not("audit_log", refusal.message().to_owned()))?;
        }
        if self.lost.load(Ordering::Relaxed) > 0 {
            return Err(not("socket", "a socket was removed or replaced".to_owned()));
        }
        self.queue.session_info().map(drop).map_err(|error| {
            let name = match error {
                DequeueError::NoSession => "no_session",
                DequeueError::SessionEnded(_) => "session_ended",
                DequeueError::SessionFlushed => "session_flushed",
                DequeueError::Held => "sessions_held",
                DequeueError::Lapsed { .. } => "lease_over",
                _ => "store",
            };
            not(name, why_no_session(&error))
        })
    }
}

impl health::Health for Health {
    fn ready(&self) -> Result<(), String> {
        self.check().map_err(|not| not.to_string())
    }

    fn metrics(&self) -> String {
        let seen = Seen {
            not_ready: self.check().err().map(|not| not.name),
            audit: self.audit.as_ref().map(Auditor::seen),
            connections: self.peers.connections(),
            last_end: self.queue.last_end(),
            log_lines_dropped: self.log_lines_dropped.map(|lines| lines.load(Ordering::Relaxed)),
            tools: &self.queue.tools(),
        };
        self.counters.render(&seen)
    }
}
