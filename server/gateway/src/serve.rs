//! The gateway on a socket: bounded connections, with TLS or on loopback alone, drained before it stops.

use core::fmt;
use core::net::SocketAddr;
use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use hyper::service::service_fn;
use obol_probe::accept::{AnyStream, Connections, Permit};
use obol_probe::contract::{Address, Ended};
use obol_probe::health::{self, Health, Loopback, LoopbackError};
use obol_probe::http::{Bounds, serve};
use obol_probe::stop::Stop;
use obol_probe::tls::{Certificate, greet};
use obol_resource::service::Patience;
use tokio::net::{TcpListener, TcpStream};

use crate::framing::{MAX_HEAD_BYTES, Strict};
use crate::gateway::Gateway;

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's head may take to arrive, also after the request before it: as long as most proxies keep a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take when the service stops, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const BOUNDS: Bounds = Bounds {
    header_timeout: HEADER_TIMEOUT,
    // What takes a refused head's place has to fit as well.
    max_header_bytes: MAX_HEAD_BYTES + 1_024,
    life: None,
    keep_alive: true,
};

/// Why the service was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// Without TLS only loopback is served.
    Remote(SocketAddr),
    /// The address cannot be taken.
    Io(SocketAddr, io::Error),
    /// The address for those who watch the process cannot be taken.
    Loopback(LoopbackError),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => write!(
                f,
                "{address} can be reached by other machines, and without TLS tokens cross the network in the clear; give \
                 --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that does TLS"
            ),
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Loopback(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BindError {}

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    listen: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    allow_remote: bool,
    max_connections: usize,
    http: Option<SocketAddr>,
    drain_timeout: Duration,
}

impl Options {
    /// On this address, without TLS, if it is loopback.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            certificate: None,
            allow_remote: false,
            max_connections: MAX_CONNECTIONS,
            http: None,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// With TLS.
    #[must_use]
    pub fn certificate(mut self, certificate: Arc<Certificate>) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Takes an address that other machines can reach, also without TLS.
    #[must_use]
    pub fn allow_remote(mut self) -> Self {
        self.allow_remote = true;
        self
    }

    /// The most connections at a time; 4,096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`, on this loopback address.
    #[must_use]
    pub fn http_at(mut self, address: SocketAddr) -> Self {
        self.http = Some(address);
        self
    }

    /// How long requests under way may take when the service stops; 10 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Takes the addresses. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(self, gateway: Gateway) -> Result<Service, BindError> {
        if !self.listen.ip().is_loopback() && self.certificate.is_none() && !self.allow_remote {
            return Err(BindError::Remote(self.listen));
        }
        let http = self.http.map(Loopback::bind).transpose().map_err(BindError::Loopback)?;
        let failed = |error| BindError::Io(self.listen, error);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let watched = http.as_ref().map(Loopback::local_addr).transpose().map_err(failed)?;
        let addresses = [local].into_iter().chain(watched).map(Address::Tcp).collect();
        Ok(Service { gateway, listener, http, addresses, stop: Stop::new(), options: self })
    }
}

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    gateway: Gateway,
    listener: TcpListener,
    http: Option<Loopback>,
    addresses: Arc<[Address]>,
    stop: Stop,
    options: Options,
}

/// Steers a gateway from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    certificate: Option<Arc<Certificate>>,
    addresses: Arc<[Address]>,
    stop: Stop,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens: for agents, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Reads the certificate again, where there is one.
    ///
    /// # Errors
    ///
    /// The file that cannot be used, in words; the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<(), String> {
        let reloaded = self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.reload());
        reloaded.map_err(|error| error.to_string())
    }
}

impl Health for Gateway {
    fn ready(&self) -> Result<(), String> {
        self.gate().health().map_err(|denial| denial.detail.into_owned())
    }

    fn metrics(&self) -> String {
        self.gate().metrics()
    }
}

impl Service {
    /// A handle to steer this service with.
    pub fn handle(&self) -> Handle {
        let certificate = self.options.certificate.clone();
        Handle { certificate, addresses: Arc::clone(&self.addresses), stop: self.stop.clone() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { gateway, mut listener, http, stop, options, .. } = self;
        let watched = http.map(|listener| {
            let (health, stop) = (Arc::new(gateway.clone()), stop.clone());
            tokio::spawn(async move { health::serve(listener, health, &stop).await })
        });
        let renewals = tokio::spawn(gateway.clone().keep_renewed());
        let mut connections = Connections::at_most(options.max_connections);
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, peer, permit) = tokio::select! {
                () = &mut shutdown => break,
                () = stop.said() => break,
                next = connections.next(&mut listener) => next,
            };
            admit(&mut connections, permit, stream, peer, &gateway, &options, &stop);
        }
        drop(listener);
        stop.say();
        let ended = Ended { cut_off: connections.drain(options.drain_timeout).await };
        renewals.abort();
        if let Some(watched) = watched {
            let _panicked = watched.await;
        }
        ended
    }
}

fn admit(
    connections: &mut Connections,
    permit: Permit,
    stream: TcpStream,
    peer: SocketAddr,
    gateway: &Gateway,
    options: &Options,
    stop: &Stop,
) {
    let (gateway, stop, certificate) = (gateway.clone(), stop.clone(), options.certificate.clone());
    // Behind TLS the certificate's name says who is meant.
    let is_here = certificate.is_none() && options.listen.ip().is_loopback();
    connections.spawn(permit, async move {
        let greeted = greet(certificate.as_deref(), stream, HANDSHAKE_TIMEOUT).await;
        let Some(stream): Option<AnyStream> = greeted else { return };
        let stream = Strict::new(Patience::new(stream, WRITE_TIMEOUT));
        let service = service_fn(move |request| gateway.clone().answer(request, Some(peer), is_here));
        serve(stream, service, BOUNDS, &stop).await;
    });
}
