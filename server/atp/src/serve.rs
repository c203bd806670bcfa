//! The provider as a process: bounded connections, with TLS or on loopback alone, drained before it stops.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Weak};

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::{AnyStream, Connections, Permit};
use obol_probe::contract::{Address, Ended};
use obol_probe::health::{self, Health, Loopback, LoopbackError};
use obol_probe::http::{Bounds, serve};
use obol_probe::stop::Stop;
use obol_probe::tls::greet;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tower::ServiceExt as _;

use crate::builder::BuildError;
use crate::router::{Peer, Router};
use crate::secrets::SecretBook;

pub use obol_probe::tls::{Certificate, CertificateError, TLS12_AND_13};

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests under way may take when the service stops, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often what has ended is forgotten.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds {
    header_timeout: Duration::from_secs(10),
    // A token has 7 KiB at most.
    max_header_bytes: 32 << 10,
    // Answers are small, so this is what bounds a peer that reads none of them.
    life: Some(Duration::from_secs(300)),
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
                "{address} can be reached by other machines, and without TLS secrets and tokens cross the network in the clear; \
                 give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that does TLS"
            ),
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Loopback(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BindError {}

impl From<LoopbackError> for BindError {
    fn from(error: LoopbackError) -> Self {
        Self::Loopback(error)
    }
}

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
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(self, router: Router) -> Result<Service, BindError> {
        if !self.listen.ip().is_loopback() && self.certificate.is_none() && !self.allow_remote {
            return Err(BindError::Remote(self.listen));
        }
        let http = self.http.map(Loopback::bind).transpose()?;
        let failed = |error| BindError::Io(self.listen, error);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let health_addr = http.as_ref().map(Loopback::local_addr).transpose().map_err(failed)?;
        let addresses = [local_addr].into_iter().chain(health_addr).map(Address::Tcp).collect();
        let routes =
            axum::Router::new().merge(router.well_known()).nest(router.path(), router.clone().into());
        let (router, stop) = (Arc::new(router), Stop::new());
        Ok(Service { router, routes, listener, http, addresses, stop, options: self })
    }
}

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    router: Arc<Router>,
    routes: axum::Router,
    listener: TcpListener,
    http: Option<Loopback>,
    addresses: Arc<[Address]>,
    stop: Stop,
    options: Options,
}

/// Steers a provider from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The store ends with the service, whoever still has a handle.
    router: Weak<Router>,
    certificate: Option<Arc<Certificate>>,
    addresses: Arc<[Address]>,
    stop: Stop,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Takes another list of who may ask; tokens of agents and masters that are gone end with it.
    ///
    /// # Errors
    /// [`BuildError`] if a secret is also a JWT key; the list stays as it was.
    pub fn reload(&self, secrets: SecretBook) -> Result<(), BuildError> {
        self.router.upgrade().map_or(Ok(()), |router| router.reload(secrets))
    }

    /// Reads the certificate again, where there is one.
    ///
    /// # Errors
    /// [`CertificateError`] names the file that cannot be used; the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<(), CertificateError> {
        self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.reload())
    }

    /// Where it listens: for agents, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether tokens can be issued now.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        self.router.upgrade().map_or_else(|| Err("stopped".to_owned()), |router| router.ready())
    }
}

impl Health for Router {
    fn ready(&self) -> Result<(), String> {
        match self.not_ready() {
            None => Ok(()),
            Some(reason) => Err(reason.to_owned()),
        }
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}

impl Service {
    /// A handle to steer this provider with.
    pub fn handle(&self) -> Handle {
        Handle {
            router: Arc::downgrade(&self.router),
            certificate: self.options.certificate.clone(),
            addresses: Arc::clone(&self.addresses),
            stop: self.stop.clone(),
        }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Ended {
        let (http, stop, router) = (self.http.take(), self.stop.clone(), Arc::clone(&self.router));
        let watched = async {
            if let Some(http) = http {
                health::serve(http, router, &stop).await;
            }
        };
        tokio::join!(self.serve(shutdown), watched).0
    }

    async fn serve(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { router, routes, mut listener, stop, options, .. } = self;
        let mut connections = Connections::at_most(options.max_connections);
        let mut shutdown = pin!(shutdown);
        let mut maintain = tokio::time::interval(MAINTAIN_EVERY);
        maintain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (stream, peer, permit) = tokio::select! {
                () = &mut shutdown => break,
                () = stop.said() => break,
                _ = maintain.tick() => {
                    router.maintain().await;
                    continue;
                }
                next = connections.next(&mut listener) => next,
            };
            admit(&mut connections, permit, stream, peer, &routes, &options, &stop);
        }
        drop(listener);
        stop.say();
        Ended { cut_off: connections.drain(options.drain_timeout).await }
    }
}

fn admit(
    connections: &mut Connections,
    permit: Permit,
    stream: TcpStream,
    peer: SocketAddr,
    routes: &axum::Router,
    options: &Options,
    stop: &Stop,
) {
    let (routes, stop) = (routes.clone(), stop.clone());
    let certificate = options.certificate.clone();
    connections.spawn(permit, async move {
        if let Some(stream) = greet(certificate.as_deref(), stream, HANDSHAKE_TIMEOUT).await {
            connection(stream, peer, routes, &stop).await;
        }
    });
}

async fn connection(stream: AnyStream, peer: SocketAddr, routes: axum::Router, stop: &Stop) {
    let routes = routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.map(Body::new)
    });
    serve(stream, TowerToHyperService::new(routes), BOUNDS, stop).await;
}
