//! `/livez`, `/readyz` and `/metrics`, for this machine alone: a Unix socket of our own, or a loopback address.
//!
//! Whoever can reach a loopback address may be another user; nothing here says more than how many tokens of which tool
//! there are, and nothing here changes anything.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use obol_ipc::Endpoint;
use obol_queue::{DequeueError, Queue};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::access::Access;
use crate::agent::why_no_session;
use crate::audit::Auditor;
use crate::connection::stopped;
use crate::counters::{Counters, Seen};
use crate::limits::Peers;
use crate::listener::{BindError, Listener, Peer};

/// Connections at a time; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 32;
/// How long a request may take to arrive, also the first byte of it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request and its answer may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that is read of a request.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// Pause after the system could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAddress {
    /// A Unix socket for our own user.
    Unix(Endpoint),
    /// A loopback address.
    Tcp(SocketAddr),
}

/// Why there is no listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpBindError {
    /// The address can be reached from other machines.
    Remote(SocketAddr),
    /// The system does not give the address.
    Io(SocketAddr, io::Error),
    /// The socket cannot be bound.
    Unix(BindError),
}

impl fmt::Display for HttpBindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => {
                write!(
                    f,
                    "{address} is no loopback address; name one of this machine alone, such as 127.0.0.1:9466"
                )
            }
            Self::Io(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Unix(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HttpBindError {}

/// A bound listener.
#[derive(Debug)]
pub struct HttpListener(Socket);

#[derive(Debug)]
enum Socket {
    Unix(Listener),
    Tcp(tokio::net::TcpListener),
}

impl HttpAddress {
    /// Whether the address may be served at all.
    ///
    /// # Errors
    ///
    /// [`HttpBindError::Remote`] if other machines can reach it.
    pub fn check(&self) -> Result<(), HttpBindError> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() => Err(HttpBindError::Remote(*address)),
            _ => Ok(()),
        }
    }

    /// Takes the address; a socket for the daemon's own user, in a folder that `access` tells. Must be called inside a
    /// tokio runtime, and before the sandbox is entered.
    pub fn bind(&self, access: Access) -> Result<HttpListener, HttpBindError> {
        self.check()?;
        match self {
            Self::Unix(endpoint) => Listener::bind(endpoint, access)
                .map(|listener| HttpListener(Socket::Unix(listener)))
                .map_err(HttpBindError::Unix),
            Self::Tcp(address) => {
                let failed = |error| HttpBindError::Io(*address, error);
                let listener = TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
                Ok(HttpListener(Socket::Tcp(listener)))
            }
        }
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
}

impl fmt::Display for HttpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Socket::Unix(listener) => write!(f, "unix://{}", listener.path().display()),
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(error) => error.fmt(f),
            },
        }
    }
}

/// Why no token could be handed out now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotReady {
    /// For programs: one of [`Self::NAMES`].
    name: &'static str,
    /// For people.
    why: String,
}

impl NotReady {
    /// Every reason there is.
    pub(crate) const NAMES: [&str; 8] = [
        "stopping",
        "store",
        "audit_log",
        "socket",
        "no_session",
        "session_ended",
        "session_flushed",
        "sessions_held",
    ];
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
    pub(crate) stopping: watch::Receiver<bool>,
    /// Without it nothing is handed out, where there is one.
    pub(crate) audit: Option<Auditor>,
    /// Lines of the log that were given up, where somebody counts.
    pub(crate) log_lines_dropped: Option<&'static AtomicU64>,
}

impl Health {
    /// Whether a token could be handed out now; the reason where none could.
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        let not = |name, why| NotReady { name, why };
        if *self.stopping.borrow() {
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
                _ => "store",
            };
            not(name, why_no_session(&error))
        })
    }

    fn metrics(&self) -> String {
        let seen = Seen {
            not_ready: self.ready().err().map(|not| not.name),
            audit: self.audit.as_ref().map(Auditor::seen),
            connections: self.peers.connections(),
            last_end: self.queue.last_end(),
            log_lines_dropped: self.log_lines_dropped.map(|lines| lines.load(Ordering::Relaxed)),
            tools: &self.queue.tools(),
        };
        self.counters.render(&seen)
    }

    fn answer(&self, request: &Request<Incoming>, anybody: bool) -> Response<String> {
        if anybody && !meant_for_us(request) {
            let why = "not meant for this machine: ask for a loopback address or localhost in Host\n";
            return text(StatusCode::MISDIRECTED_REQUEST, why.to_owned());
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => match self.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            "/metrics" => text(StatusCode::OK, self.metrics()),
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }
}

/// Whether a request that came over TCP names this machine; a web page's does not.
fn meant_for_us(request: &Request<Incoming>) -> bool {
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    obol_probe::host::is_local(values(HOST).chain(named), values(ORIGIN))
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

impl HttpListener {
    /// Serves until the daemon stops. Requests under way then are cut off: nobody loses anything by that.
    pub(crate) async fn serve(mut self, health: Arc<Health>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stopping = health.stopping.clone();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stopped(&mut stopping) => return,
                accepted = self.accept(&health, place) => accepted,
            };
            if let Err(error) = accepted {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept(
        &mut self,
        health: &Arc<Health>,
        place: tokio::sync::OwnedSemaphorePermit,
    ) -> io::Result<()> {
        let health = Arc::clone(health);
        match &mut self.0 {
            Socket::Unix(listener) => {
                let (stream, Peer::Served(_)) = listener.accept().await? else { return Ok(()) };
                tokio::spawn(async move {
                    serve(stream, health, false).await;
                    drop(place);
                });
            }
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    serve(stream, health, true).await;
                    drop(place);
                });
            }
        }
        Ok(())
    }
}

/// `anybody` can reach this connection's listener, a web page in a browser included.
async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    health: Arc<Health>,
    anybody: bool,
) {
    let service = service_fn(move |request| {
        let response = health.answer(&request, anybody);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        // One request a connection: whoever asks every few seconds does not need to hold a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection took too long"),
    }
}
