//! The service on a socket: bounded, and drained before it stops.

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, Weak};

use axum::extract::ConnectInfo;
use axum::{Router, middleware};
use http::Request;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::{Limits, Place, accept};
use obol_probe::contract::{Address, BindError, Ended};
use obol_probe::http::{Bounds, serve};
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::{MAX_IN_FLIGHT, ServiceState, refuse_foreign_names, router};
use crate::bodies::BODY_TIMEOUT;
use crate::gate::Gate;

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a request's headers may take to arrive, also the first byte of them.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read before a request's headers must be complete, in bytes. The longest token takes 43,800.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long the peer may leave an answer unread before the connection ends.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may take when the service stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct Options {
    listen: SocketAddr,
    allow_remote: bool,
    max_connections: usize,
    max_in_flight: usize,
    header_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    drain_timeout: Duration,
}

impl Options {
    /// Serves on this address, within the standard limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            allow_remote: false,
            max_connections: MAX_CONNECTIONS,
            max_in_flight: MAX_IN_FLIGHT,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// Serves other machines too, in plain HTTP. Whoever can read the network can then take tokens before they are
    /// spent; right only where something else encrypts it.
    #[must_use]
    pub fn allow_remote(mut self) -> Self {
        self.allow_remote = true;
        self
    }

    /// The most connections at once.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// The most requests that are verified at a time; more are answered 503.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How long a request's headers may take to arrive.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// How long a request's body may take to arrive.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// How long a peer may leave an answer unread.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// How long requests under way may take when the service stops.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Whether the address may be served at all.
    ///
    /// # Errors
    ///
    /// [`BindError`] if other machines can reach it and nobody said that this is wanted.
    pub fn check(&self) -> Result<(), BindError> {
        if self.listen.ip().is_loopback() || self.allow_remote {
            return Ok(());
        }
        let advice =
            "tokens would cross the network in the clear; put a TLS proxy in front, or allow it explicitly";
        Err(BindError::remote(self.listen, advice))
    }

    /// Takes the address. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub async fn bind(self, gate: Gate) -> Result<Service, BindError> {
        self.check()?;
        let failed = |error| BindError::io(Address::Tcp(self.listen), error);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let state =
            ServiceState::new(gate.clone()).max_in_flight(self.max_in_flight).body_timeout(self.body_timeout);
        let mut router = router(state);
        if local_addr.ip().is_loopback() {
            router = router.layer(middleware::from_fn(refuse_foreign_names));
        }
        let (gate, addresses) = (Arc::new(gate), Arc::new([Address::Tcp(local_addr)]));
        Ok(Service { router, gate, listener, addresses, stop: Stop::new(), options: self })
    }
}

/// The service, with its address; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    router: Router,
    gate: Arc<Gate>,
    listener: TcpListener,
    addresses: Arc<[Address; 1]>,
    stop: Stop,
    options: Options,
}

/// Steers a service from elsewhere, running or not. Dropping it does nothing. There is nothing to reload: sessions and
/// policy change in the tables that the gate was made of.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What tokens are spent in ends with the service, whoever still has a handle.
    gate: Weak<Gate>,
    addresses: Arc<[Address; 1]>,
    stop: Stop,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[Address] {
        &*self.addresses
    }

    /// Whether tokens can be verified and spent now.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        match self.gate.upgrade() {
            Some(gate) => gate.health().map_err(|denial| denial.detail.into_owned()),
            None => Err("stopped".to_owned()),
        }
    }
}

impl Service {
    /// A handle to steer this service with.
    pub fn handle(&self) -> Handle {
        Handle {
            gate: Arc::downgrade(&self.gate),
            addresses: Arc::clone(&self.addresses),
            stop: self.stop.clone(),
        }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { router, gate: _guard, listener, stop, options, .. } = self;
        let Options { max_connections, drain_timeout, .. } = options;
        let limits = Limits { max_connections, drain_timeout };
        let each = |stream, peer, place: Place<'_>| {
            place.serve(connection(stream, peer, router.clone(), options.clone(), stop.clone()));
        };
        accept(listener, limits, &stop, shutdown, each).await
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, options: Options, stop: Stop) {
    let stream = Patience::new(stream, options.write_timeout);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let bounds = Bounds {
        header_timeout: options.header_timeout,
        max_header_bytes: MAX_HEADER_BYTES,
        life: None,
        keep_alive: true,
    };
    serve(stream, TowerToHyperService::new(router), bounds, &stop).await;
}
