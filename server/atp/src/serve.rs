//! The provider as a process: bounded connections, with TLS or on loopback alone, drained before it stops.

use axum::body::Body;
use core::fmt;
use core::future::Future;
use core::pin::pin;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use obol_secret::file::{PrivateFile, PrivateFileError, read_public};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::router::{Peer, Router};

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's headers may take, also the first byte of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read before headers are complete, in bytes; a token has 7 KiB at most.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// How long a connection may live. Answers are small, so this is what bounds a peer that reads none of them.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long requests under way may take when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often what has ended is forgotten.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);
/// The longest file of certificates or keys, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// Why the service was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// Without TLS only loopback is served.
    Remote(SocketAddr),
    /// The address cannot be taken.
    Io(SocketAddr, io::Error),
    /// A file of certificates or keys cannot be read.
    File(PrivateFileError),
    /// A file holds no certificate or no key, or they do not belong together.
    Certificate(PathBuf, String),
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
            Self::File(error) => error.fmt(f),
            Self::Certificate(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl core::error::Error for BindError {}

impl From<PrivateFileError> for BindError {
    fn from(error: PrivateFileError) -> Self {
        Self::File(error)
    }
}

/// A certificate chain and its private key, which can be read again.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads a chain, the server's first, and its key, both PEM. The key's file must be private.
    ///
    /// # Errors
    /// [`BindError`] names the file that cannot be used.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, BindError> {
        let config = RwLock::new(Arc::new(read(chain, key)?));
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), config })
    }

    /// Reads the files again. Where that fails the certificate stays as it was.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reload(&self) -> Result<(), BindError> {
        let config = Arc::new(read(&self.chain, &self.key)?);
        *self.config.write() = config;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read()).into()
    }
}

fn read(chain: &Path, key: &Path) -> Result<ServerConfig, BindError> {
    let wrong = |path: &Path, why: String| BindError::Certificate(path.to_owned(), why);
    let text = read_public(chain, MAX_PEM_BYTES)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(chain, "not a PEM file of certificates".to_owned()))?;
    let text = PrivateFile::read(key, MAX_PEM_BYTES)?;
    let private = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong(key, "not a PEM file with a private key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(key, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, private);
    let mut config =
        config.map_err(|error| wrong(chain, format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    listen: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    allow_remote: bool,
    max_connections: usize,
}

impl Options {
    /// On this address, without TLS, if it is loopback.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, certificate: None, allow_remote: false, max_connections: MAX_CONNECTIONS }
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

    /// Takes the address. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    /// [`BindError`] says why the address is not taken.
    pub async fn bind(self, router: Router) -> Result<Service, BindError> {
        if !self.listen.ip().is_loopback() && self.certificate.is_none() && !self.allow_remote {
            return Err(BindError::Remote(self.listen));
        }
        let failed = |error| BindError::Io(self.listen, error);
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let routes =
            axum::Router::new().merge(router.well_known()).nest(router.path(), router.clone().into());
        Ok(Service { router, routes, listener, local_addr, options: self })
    }
}

/// The service, with its address.
#[derive(Debug)]
pub struct Service {
    router: Router,
    routes: axum::Router,
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
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        let graceful = GracefulShutdown::new();
        let mut shutdown = pin!(shutdown);
        let mut maintain = tokio::time::interval(MAINTAIN_EVERY);
        maintain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = maintain.tick() => self.router.maintain().await,
                next = accept(&self.listener, &places) => match next {
                    Some((stream, peer, place)) => self.serve(stream, peer, place, graceful.watcher()),
                    None => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(self.listener);
        if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still under way when the service stopped");
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, watcher: Watcher) {
        // Answers are small, and a caller waits for each.
        let _best_effort = stream.set_nodelay(true);
        let routes = self.routes.clone();
        let acceptor = self.options.certificate.as_ref().map(|certificate| certificate.acceptor());
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, peer, routes, watcher).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, routes, watcher).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
            drop(place);
        });
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
