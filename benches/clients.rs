//! Many HTTP clients at once on loopback, each with a connection that it keeps and one request at a time.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a benchmark cannot go on.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What answering came to.
#[derive(Clone, Debug, Default)]
pub struct Load {
    took: Duration,
    /// How long each request took, in nanoseconds.
    times: Vec<f64>,
}

impl Load {
    /// Adds another, which came after it.
    pub fn add(&mut self, other: Self) {
        self.took += other.took;
        self.times.extend(other.times);
    }

    /// Requests a second, and the 50th and the 99th percentile of their times in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "a count of requests needs no 53rd bit")]
    pub fn measured(mut self) -> Measured {
        self.times.sort_by(f64::total_cmp);
        let percentile = |of_100: usize| {
            let place = (self.times.len() * of_100 / 100).min(self.times.len().saturating_sub(1));
            self.times.get(place).copied().unwrap_or(f64::NAN)
        };
        let per_second = self.times.len() as f64 / self.took.as_secs_f64();
        Measured { per_second, p50: percentile(50), p99: percentile(99) }
    }
}

/// What a load came to; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests a second.
    pub per_second: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.p50 / 1e3, self.p99 / 1e3);
        write!(f, "{:.0} requests/s, p50 {p50:.0} µs, p99 {p99:.0} µs", self.per_second)
    }
}

/// Sends all requests over so many connections, each as soon as the one before it is answered. Every answer must be 200.
///
/// # Errors
///
/// A connection that fails, or another answer.
pub async fn load<B>(
    address: SocketAddr,
    connections: usize,
    requests: Vec<Request<B>>,
) -> Result<Load, Failure>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let mut shares: Vec<Vec<_>> = (0..connections).map(|_| Vec::new()).collect();
    for (share, request) in (0..connections).cycle().zip(requests) {
        shares.get_mut(share).ok_or("no such connection")?.push(request);
    }
    let mut clients = Vec::new();
    for share in shares {
        clients.push((connect(address).await?, share));
    }
    let begun = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|(mut client, share)| tokio::spawn(async move { send_all(&mut client, share).await }))
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok(Load { took: begun.elapsed(), times })
}

/// A connection that stays.
///
/// # Errors
///
/// It cannot be made.
pub async fn connect<B>(address: SocketAddr) -> Result<SendRequest<B>, Failure>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// How long each request took, in nanoseconds. Every answer must be 200.
///
/// # Errors
///
/// The connection fails, or another answer.
pub async fn send_all<B: Body + 'static>(
    client: &mut SendRequest<B>,
    requests: Vec<Request<B>>,
) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::with_capacity(requests.len());
    for request in requests {
        let begun = Instant::now();
        client.ready().await?;
        let answer = client.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        times.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    Ok(times)
}
