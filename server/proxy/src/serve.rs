//! The proxy on its sockets, and whom it is for.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use hyper::service::service_fn;
use obol_probe::accept::{Connections, Listen};
use obol_probe::contract::Ended;
use obol_probe::http::{Bounds, serve};
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use tokio::net::{TcpListener, TcpStream};

use crate::owner::{Caller, Owners};
use crate::proxy::Proxy;

/// The most connections of one socket at a time. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// The most that is read before a request's head must be complete, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long a request's head may take to arrive, also after the request before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection of somebody else's lasts: long enough to be told why it is not served.
const STRANGERS_LIFE: Duration = Duration::from_secs(2);
/// How long a program may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const BOUNDS: Bounds = Bounds {
    header_timeout: HEADER_TIMEOUT,
    max_header_bytes: MAX_HEADER_BYTES,
    life: None,
    keep_alive: true,
};

const STRANGERS: Bounds = Bounds {
    header_timeout: STRANGERS_LIFE,
    max_header_bytes: MAX_HEADER_BYTES,
    life: Some(STRANGERS_LIFE),
    keep_alive: false,
};

/// Whom a proxy is for, by a user's number.
pub type Admits = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// A loopback address whose connections are looked up.
pub struct Looked {
    listener: TcpListener,
    owners: Owners,
    admits: Admits,
}

impl core::fmt::Debug for Looked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Looked").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Looked {
    /// Takes the address. To be called within a runtime, and outside the sandbox.
    ///
    /// # Errors
    ///
    /// It is taken, other machines can reach it, or the kernel does not say whose connections are.
    pub fn bind(address: SocketAddr, owners: Owners, admits: Admits) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why =
                "other machines can reach it, and tokens would be drawn for them; name 127.0.0.1 or [::1]";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let looked = Self { listener: TcpListener::from_std(listener)?, owners, admits };
        looked.try_out()?;
        Ok(looked)
    }

    /// Whether the kernel tells the owner of a connection at all: a proxy that could serve nobody does not start.
    fn try_out(&self) -> io::Result<()> {
        let at = self.local_addr()?;
        let stream = std::net::TcpStream::connect(at)?;
        self.owners.of(stream.local_addr()?, at).map(drop).map_err(|error| {
            let why = format!("this system does not say whose connections are ({error}); use --unix");
            io::Error::new(io::ErrorKind::Unsupported, why)
        })
    }

    /// The address, with the port that the system chose where none was given.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Listen for Looked {
    type Stream = TcpStream;
    type Peer = Caller;

    async fn accept(&mut self) -> io::Result<(TcpStream, Caller)> {
        let (stream, peer) = self.listener.accept().await?;
        let _best_effort = stream.set_nodelay(true);
        let owner = stream.local_addr().and_then(|ours| self.owners.of(peer, ours));
        let caller = match owner {
            Ok(uid) if (self.admits)(uid) => Caller::Admitted { by_tcp: true },
            Ok(uid) => Caller::Stranger(uid),
            Err(error) => {
                tracing::debug!(%error, "a connection whose owner is not known");
                Caller::Unknown
            }
        };
        Ok((stream, caller))
    }
}

/// A listener that gives only connections of those whom the proxy is for.
#[derive(Debug)]
pub struct Admitted<L>(pub L);

impl<L: Listen> Listen for Admitted<L> {
    type Stream = L::Stream;
    type Peer = Caller;

    async fn accept(&mut self) -> io::Result<(L::Stream, Caller)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Caller::Admitted { by_tcp: false }))
    }
}

impl Proxy {
    /// Serves one listener until the word to stop is said, then lets requests under way finish, for a while.
    pub async fn serve<L: Listen<Peer = Caller>>(self, mut listener: L, stop: &Stop) -> Ended {
        let mut connections = Connections::at_most(MAX_CONNECTIONS);
        loop {
            let (stream, caller, permit) = tokio::select! {
                () = stop.said() => break,
                next = connections.next(&mut listener) => next,
            };
            let (stream, stop) = (Patience::new(stream, WRITE_TIMEOUT), stop.clone());
            let proxy = self.clone();
            // Who is not served hears why, once.
            let bounds = if matches!(caller, Caller::Admitted { .. }) { BOUNDS } else { STRANGERS };
            connections.spawn(permit, async move {
                let service = service_fn(move |request| proxy.clone().answer(request, caller));
                serve(stream, service, bounds, &stop).await;
            });
        }
        drop(listener);
        Ended { cut_off: connections.drain(DRAIN_TIMEOUT).await }
    }
}
