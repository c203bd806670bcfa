//! The service over HTTP: `Options`, then a bound `Service`, which runs until it is told to stop.
//!
//! Connections are bounded in number and in life, requests in size, time and number at work. Strangers leave nothing behind
//! but a counter of their source, and of those there is a bounded number.

mod counters;
mod error;
mod load;
mod problem;
mod routes;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tower::ServiceExt as _;

use self::counters::Counters;
pub use self::error::BindError;
pub use self::load::Rate;
use self::routes::{Peer, Shared};
use crate::authority::Authority;
pub use obol_probe::tls::{Certificate, TLS13};

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// The most connections that ask for health and metrics.
const MAX_PROBES: usize = 64;
/// How often one source may send a message of each kind.
const RATE: Rate = Rate { per_second: 20, burst: 40 };
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's headers may take, also the first byte of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read before headers are complete, in bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// How long a connection may live. Answers are small, so this is what bounds a peer that reads none of them.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long requests under way may take when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often what is over is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    listen: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    probes: Option<SocketAddr>,
    max_connections: usize,
    rate: Rate,
}

impl Options {
    /// On this address; without TLS it must be loopback.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, certificate: None, probes: None, max_connections: MAX_CONNECTIONS, rate: RATE }
    }

    /// With TLS.
    #[must_use]
    pub fn certificate(mut self, certificate: Arc<Certificate>) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Serves `/livez`, `/readyz` and `/metrics` on this address of loopback.
    #[must_use]
    pub fn probes(mut self, address: SocketAddr) -> Self {
        self.probes = Some(address);
        self
    }

    /// The most connections at a time; 4,096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How often one source may send a message of each kind; 20 a second, 40 at once. Many agents may share one address.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = rate;
        self
    }

    /// Takes the addresses. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(self, authority: Arc<Authority>) -> Result<Service, BindError> {
        if !self.listen.ip().is_loopback() && self.certificate.is_none() {
            return Err(BindError::Remote(self.listen));
        }
        if let Some(address) = self.probes.filter(|address| !address.ip().is_loopback()) {
            return Err(BindError::Probes(address));
        }
        let (public, local_addr) = bind(self.listen).await?;
        let (probes, probe_addr) = match self.probes {
            None => (None, None),
            Some(address) => {
                let (listener, address) = bind(address).await?;
                (Some(listener), Some(address))
            }
        };
        let counters = Arc::new(Counters::default());
        let shared = Shared::new(Arc::clone(&authority), Arc::clone(&counters), self.rate);
        Ok(Service {
            routes: routes::router(Arc::new(shared)),
            public,
            probes: probes.map(|listener| (listener, probe_routes(&authority, &counters))),
            authority,
            addresses: Addresses { public: local_addr, probes: probe_addr },
            stop: watch::Sender::new(false),
            options: self,
        })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |error| BindError::Io(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Where a service listens, with the ports that the system chose where none were given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// For agents and resource servers.
    pub public: SocketAddr,
    /// For health and metrics.
    pub probes: Option<SocketAddr>,
}

/// Speaks to a service that runs. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    authority: Arc<Authority>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
}

impl Handle {
    /// Ends the service, without waiting for it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Whether sessions can be opened and ended.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn health(&self) -> Result<(), String> {
        self.authority.health()
    }
}

/// The service, with its addresses.
#[derive(Debug)]
pub struct Service {
    authority: Arc<Authority>,
    routes: axum::Router,
    public: TcpListener,
    probes: Option<(TcpListener, axum::Router)>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    options: Options,
}

impl Service {
    /// What others speak to it with while it runs.
    pub fn handle(&self) -> Handle {
        Handle { authority: Arc::clone(&self.authority), addresses: self.addresses, stop: self.stop.clone() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut told = self.stop.subscribe();
        let forgetting = tokio::spawn(forget(Arc::clone(&self.authority)));
        let probes = self.probes.map(|(listener, routes)| {
            let stop = self.stop.subscribe();
            tokio::spawn(serve(listener, routes, None, MAX_PROBES, stop))
        });
        let public = serve(
            self.public,
            self.routes,
            self.options.certificate,
            self.options.max_connections,
            self.stop.subscribe(),
        );
        let stop = self.stop;
        let ending = async {
            let mut shutdown = pin!(shutdown);
            tokio::select! {
                () = &mut shutdown => {}
                () = stopped(&mut told) => {}
            }
            stop.send_replace(true);
        };
        tokio::join!(public, ending);
        forgetting.abort();
        if let Some(probes) = probes {
            let _panicked = probes.await;
        }
    }
}

/// Serves one address until it is told to stop.
async fn serve(
    listener: TcpListener,
    routes: axum::Router,
    certificate: Option<Arc<Certificate>>,
    max_connections: usize,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            next = accept(&listener, &places) => match next {
                Some((stream, peer, place)) => {
                    let acceptor = certificate.as_ref().map(|certificate| certificate.acceptor());
                    let (routes, watcher) = (routes.clone(), graceful.watcher());
                    tokio::spawn(async move {
                        greet(stream, peer, acceptor, routes, watcher).await;
                        drop(place);
                    });
                }
                None => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the service stopped");
    }
}

/// Waits until somebody says stop, or nobody is left who could.
async fn stopped(told: &mut watch::Receiver<bool>) {
    let _or_nobody_is_left = told.wait_for(|stop| *stop).await;
}

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    routes: axum::Router,
    watcher: Watcher,
) {
    // Answers are small, and a caller waits for each.
    let _best_effort = stream.set_nodelay(true);
    match acceptor {
        None => connection(stream, peer, routes, watcher).await,
        Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => connection(stream, peer, routes, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, routes: axum::Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.map(Body::new)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_LIFE, watcher.watch(served)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection had lived long enough"),
    }
}

/// The next connection once there is room for it; `None` if the system cannot give it now.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

fn probe_routes(authority: &Arc<Authority>, counters: &Arc<Counters>) -> axum::Router {
    let (ready, counted, counters) = (Arc::clone(authority), Arc::clone(authority), Arc::clone(counters));
    axum::Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match ready.health() {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }),
        )
        .route("/metrics", get(async move || counters.text(counted.health().is_ok())))
}

/// Forgets what is over, now and then.
async fn forget(authority: Arc<Authority>) {
    let mut due = tokio::time::interval(FORGET_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let began = Instant::now();
        loop {
            let authority = Arc::clone(&authority);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let done = tokio::task::spawn_blocking(move || authority.directory().forget(now)).await;
            match done {
                Ok(Ok(true)) if began.elapsed() < FORGET_EVERY => {}
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    tracing::error!(%error, "what is over could not be forgotten");
                    break;
                }
                Err(_) => break,
            }
        }
    }
}
