//! The service on a socket: bounded, and drained before it stops.

use core::fmt;
use core::future::Future;
use core::pin::pin;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Router, middleware};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::patience::{Patience, WRITE_TIMEOUT};
use super::{MAX_IN_FLIGHT, ServiceState, refuse_foreign_names, router};
use crate::bodies::BODY_TIMEOUT;
use crate::guard::Guard;

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a request's headers may take to arrive, also the first byte of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read before a request's headers must be complete, in bytes. The longest token takes 43,800.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long requests under way may take when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Why the service did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The address can be reached from other machines, and nobody said that this is wanted.
    Remote(SocketAddr),
    /// The system does not give the address.
    Io(SocketAddr, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => write!(
                f,
                "{address} is no loopback address: tokens would cross the network in the clear. Put a TLS proxy in \
                 front, or allow it explicitly"
            ),
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Remote(_) => None,
        }
    }
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

    /// The most connections at a time.
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
    /// [`BindError::Remote`] if other machines can reach it and nobody said that this is wanted.
    pub fn check(&self) -> Result<(), BindError> {
        if self.listen.ip().is_loopback() || self.allow_remote {
            return Ok(());
        }
        Err(BindError::Remote(self.listen))
    }

    /// Takes the address. Connections are accepted from here on, and served once the service runs.
    pub async fn bind(self, guard: Guard) -> Result<Service, BindError> {
        self.check()?;
        let failed = |error| BindError::Io(self.listen, error);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let state =
            ServiceState::new(guard).max_in_flight(self.max_in_flight).body_timeout(self.body_timeout);
        let mut router = router(state);
        if local_addr.ip().is_loopback() {
            router = router.layer(middleware::from_fn(refuse_foreign_names));
        }
        Ok(Service { router, listener, local_addr, options: self })
    }
}

/// The service, with its address.
#[derive(Debug)]
pub struct Service {
    router: Router,
    listener: TcpListener,
    local_addr: SocketAddr,
    options: Options,
}

impl Service {
    /// The address, with the port that the system chose where none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(self.options.max_connections));
        let graceful = GracefulShutdown::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let next = tokio::select! {
                () = &mut shutdown => break,
                next = accept(&self.listener, &connections) => next,
            };
            match next {
                Some((stream, peer, permit)) => self.serve(stream, peer, permit, &graceful),
                None => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(self.listener);
        if tokio::time::timeout(self.options.drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still under way when the service stopped");
        }
    }

    /// Runs on the current runtime until the handle stops it.
    pub fn spawn(self) -> Handle {
        let local_addr = self.local_addr;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(self.run(async {
            // A handle that is dropped stops the service as well.
            let _ = stopped.await;
        }));
        Handle { local_addr, stop, task }
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        graceful: &GracefulShutdown,
    ) {
        // Answers are small, and a caller waits for each.
        let _best_effort = stream.set_nodelay(true);
        let stream = Patience::new(stream, self.options.write_timeout);
        let router = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
}

/// The next connection once there is room for it; `None` if the system cannot give it now.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

/// A service that runs on its own. Dropping it stops the service without waiting.
#[derive(Debug)]
pub struct Handle {
    local_addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Handle {
    /// The address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the service and waits until it is drained.
    pub async fn stop(self) {
        drop(self.stop);
        // A service that panicked has stopped as well.
        let _ = self.task.await;
    }
}
