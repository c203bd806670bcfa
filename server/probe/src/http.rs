//! One HTTP connection: bounded in what it sends and how long it takes, and ended in good order when the service stops.

use core::error::Error;
use core::fmt::Display;
use core::future::Future;
use core::pin::Pin;
use core::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use crate::stop::Stop;

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a request's head may take to arrive, also the first byte of it.
    pub header_timeout: Duration,
    /// The most that is read before a request's head must be complete, in bytes; at least 8 KiB.
    pub max_header_bytes: usize,
    /// How long the connection may live, if that is bounded.
    pub life: Option<Duration>,
    /// Whether one connection may bring several requests, one after the other.
    pub keep_alive: bool,
}

/// Serves one connection until its peer has no more to ask, or the service stops: then the request under way is the last.
pub async fn serve<I, S, B>(stream: I, service: S, bounds: Bounds, stop: &Stop)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let over = async {
        match bounds.life {
            None => core::future::pending().await,
            Some(life) => sleep(life).await,
        }
    };
    serve_for(stream, service, bounds, over, stop).await;
}

/// As [`serve`], for a connection whose life ends when `over` does, whatever its bounds say.
pub async fn serve_for<I, S, B>(
    stream: I,
    service: S,
    bounds: Bounds,
    over: impl Future<Output = ()>,
    stop: &Stop,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_header_size(bounds.max_header_bytes)
        .max_buf_size(bounds.max_header_bytes)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let connection = Box::pin(connection);
    let over = async {
        over.await;
        "it had lived long enough"
    };
    drive(connection, http1::UpgradeableConnection::graceful_shutdown, over, stop).await;
}

/// Drives a connection to its end: in good order once the service stops, and at once when `over` says why.
///
/// It comes boxed: each function that it is handed through has room for all that it is handed, as long as the connection lives.
pub(crate) async fn drive<C, E>(
    mut connection: Pin<Box<C>>,
    shut_down: impl FnOnce(Pin<&mut C>),
    over: impl Future<Output = &'static str>,
    stop: &Stop,
) where
    C: Future<Output = Result<(), E>>,
    E: Display,
{
    let served = async {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = stop.said() => shut_down(connection.as_mut()),
        }
        connection.as_mut().await
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        },
        why = over => tracing::debug!("a connection was ended: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use hyper::service::service_fn;
    use hyper::{Request, Response};

    use super::*;

    /// There may be thousands that only wait.
    #[test]
    fn what_waits_with_a_connection_is_small() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let service =
            service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
        let (life, header_timeout) = (Some(Duration::from_secs(60)), Duration::from_secs(10));
        let bounds = Bounds { header_timeout, max_header_bytes: 16 << 10, life, keep_alive: true };
        let stop = Stop::new();
        let bytes = size_of_val(&serve(ours, service, bounds, &stop));
        assert!(bytes <= 1_536, "{bytes}");
    }
}
