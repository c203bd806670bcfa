//! `/livez`, `/readyz` and `/metrics`, for this machine alone: a loopback address, or a socket of our own.
//!
//! Whoever can reach a loopback address may be another user, or a web page in a browser; what is told here must be fit for
//! them, and nothing here changes anything.

use core::convert::Infallible;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};

use crate::accept::{Limits, Listen, Place, accept};
use crate::contract::{Address, BindError};
use crate::host;
use crate::http::{self, Bounds};
use crate::stop::Stop;

/// What `/livez` says, of every server.
pub const ALIVE: &str = "alive\n";
/// What `/readyz` says of every server that can do its work.
pub const READY: &str = "ready\n";
/// The text format of Prometheus, which is plain text to everybody else.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Nobody loses anything by an answer that does not come when the service stops.
const LIMITS: Limits = Limits { max_connections: 32, drain_timeout: Duration::from_millis(100) };

const BOUNDS: Bounds = Bounds {
    header_timeout: Duration::from_secs(10),
    max_header_bytes: 8 << 10,
    life: Some(Duration::from_secs(30)),
    // One request a connection: whoever asks every few seconds does not need to hold a place.
    keep_alive: false,
};

/// What a server says of itself.
pub trait Health: Send + Sync + 'static {
    /// Whether it can do its work now.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    fn ready(&self) -> Result<(), String>;

    /// What it counts, as Prometheus reads it.
    fn metrics(&self) -> String;
}

/// Who can reach a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Its own user, by a socket's mode.
    OwnUser,
    /// Anybody on this machine, a web page in a browser included.
    Anybody,
}

/// A loopback address, taken.
#[derive(Debug)]
pub struct Loopback(TcpListener, SocketAddr);

impl Loopback {
    /// Whether the address may be served at all.
    ///
    /// # Errors
    ///
    /// [`BindError`] if other machines can reach it.
    pub fn check(address: SocketAddr) -> Result<(), BindError> {
        let advice = "name one of this machine alone, such as 127.0.0.1:9466";
        if address.ip().is_loopback() { Ok(()) } else { Err(BindError::remote(address, advice)) }
    }

    /// Takes the address. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why it is not taken.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        Self::check(address)?;
        Self::listen(address).map_err(|error| BindError::io(Address::Tcp(address), error))
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        TcpListener::from_std(listener).map(|listener| Self(listener, local))
    }

    /// The address, with the port that the system chose where none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.1
    }
}

impl Listen for Loopback {
    type Stream = TcpStream;
    type Peer = Reach;

    async fn accept(&mut self) -> io::Result<(TcpStream, Reach)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Reach::Anybody))
    }
}

/// Serves until the service stops.
pub async fn serve<L, H>(listener: L, health: Arc<H>, stop: &Stop)
where
    L: Listen<Peer = Reach>,
    H: Health,
{
    let each = |stream, reach, place: Place<'_>| {
        let (health, stop) = (Arc::clone(&health), stop.clone());
        place.serve(async move {
            let service = service_fn(|request| {
                let response = answer(&*health, &request, reach);
                async move { Ok::<_, Infallible>(response) }
            });
            http::serve(stream, service, BOUNDS, &stop).await;
        });
    };
    let _nobody_loses_anything = accept(listener, LIMITS, stop, core::future::pending(), each).await;
}

fn answer<H: Health>(health: &H, request: &Request<Incoming>, reach: Reach) -> Response<String> {
    if reach == Reach::Anybody && !is_meant_for_us(request) {
        let why = "not meant for this machine: ask for a loopback address or localhost in Host\n";
        return text(StatusCode::MISDIRECTED_REQUEST, why.to_owned());
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, ALIVE.to_owned()),
        "/readyz" => match health.ready() {
            Ok(()) => text(StatusCode::OK, READY.to_owned()),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => text(StatusCode::OK, health.metrics()),
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

/// Whether a request that came over TCP names this machine; a web page's does not.
fn is_meant_for_us(request: &Request<Incoming>) -> bool {
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    host::is_local(values(HOST).chain(named), values(ORIGIN))
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::contract::BindCause;

    struct Sick;

    impl Health for Sick {
        fn ready(&self) -> Result<(), String> {
            Err("it has a cold".to_owned())
        }

        fn metrics(&self) -> String {
            "x 1\n".to_owned()
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_path_is_answered_once_a_connection_and_foreign_names_are_not() {
        let listener = Loopback::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (address, stop) = (listener.local_addr(), Stop::new());
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { serve(listener, Arc::new(Sick), &stop).await }
        });
        for (line, host, status, body) in [
            ("GET /livez", "localhost", "200", "alive\n"),
            ("GET /readyz", "127.0.0.1:1", "503", "not ready: it has a cold\n"),
            ("GET /metrics", "[::1]", "200", "x 1\n"),
            ("GET /", "localhost", "404", "/livez, /readyz and /metrics\n"),
            ("POST /livez", "localhost", "405", "only GET\n"),
            ("GET /metrics", "evil.example", "421", "localhost in Host\n"),
        ] {
            let answer = ask(address, &format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(body), "{answer}");
        }
        stop.say();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nothing is accepted any more");
    }

    #[tokio::test]
    async fn an_address_that_other_machines_reach_is_refused() {
        let refused = Loopback::bind(([0, 0, 0, 0], 0).into()).unwrap_err();
        assert!(matches!(refused.cause(), BindCause::Remote(_)), "{refused}");
    }
}
