//! One connection of HTTP/2, bounded in what it holds and how long it waits, and ended in good order when the service stops.
//!
//! What the library bounds is set here: streams, heads, windows, and resets of either side (CVE-2023-44487, CVE-2025-8671). It does not
//! bound how long a connection may be idle, nor how long a peer may leave an answer unread by opening no window for it; a watch does.

use core::error::Error;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use crate::http::drive;
use crate::stop::Stop;

/// What a peer may send of bodies that nobody has read yet: of one request, and of all together.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What is kept of an answer that cannot go out yet.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Resets of the peer's before their requests were looked at, and our own for what the peer did wrong, until the connection ends.
const MAX_RESETS_BY_PEER: usize = 20;
const MAX_RESETS_OF_OURS: usize = 64;
/// How often a peer must show that it is there, and how long that may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most requests at a time.
    pub max_streams: u32,
    /// The longest head of a request, in bytes, as RFC 9113 counts them: 32 more for each header.
    pub max_header_bytes: u32,
    /// How long the connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a peer may leave an answer unread.
    pub write_timeout: Duration,
}

/// Serves one connection until its peer has no more to ask, or the service stops: then the requests under way are the last.
pub async fn serve<I, S, B>(stream: I, service: S, bounds: Bounds, stop: &Stop)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let watch = Watch::new();
    let seats = watch.clone();
    let watched = service_fn(move |request| {
        let (seat, answering) = (seats.seat(), service.call(request));
        async move { Ok::<_, S::Error>(answering.await?.map(|body| Watched::new(body, seat))) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_streams)
        .max_header_list_size(bounds.max_header_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS_BY_PEER)
        .max_local_error_reset_streams(MAX_RESETS_OF_OURS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), watched);
    drive(connection, http2::Connection::graceful_shutdown, watch.over(bounds), stop).await;
}

/// Which requests a connection has under way, and whose turn it is with each.
#[derive(Clone, Debug)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Debug)]
struct Seen {
    next: u64,
    /// Since when the peer could read, of each.
    open: BTreeMap<u64, Option<Instant>>,
    /// When the last ended.
    idle_since: Instant,
}

impl Watch {
    fn new() -> Self {
        let (next, open) = (0, BTreeMap::new());
        Self(Arc::new(Mutex::new(Seen { next, open, idle_since: Instant::now() })))
    }

    /// A place for one more request.
    fn seat(&self) -> Seat {
        let mut seen = self.0.lock();
        let number = seen.next;
        seen.next += 1;
        seen.open.insert(number, None);
        Seat { watch: self.clone(), number }
    }

    /// Resolves once the connection has been idle, or an answer unread, for too long.
    async fn over(&self, bounds: Bounds) -> &'static str {
        let turn = bounds.idle_timeout.min(bounds.write_timeout) / 8;
        loop {
            sleep(turn).await;
            if let Some(why) = self.0.lock().is_over(Instant::now(), bounds) {
                return why;
            }
        }
    }
}

impl Seen {
    fn is_over(&self, now: Instant, bounds: Bounds) -> Option<&'static str> {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.open.is_empty() {
            return (since(self.idle_since) >= bounds.idle_timeout)
                .then_some("nothing was asked for too long");
        }
        let is_unread = |turn: &Option<Instant>| turn.is_some_and(|then| since(then) >= bounds.write_timeout);
        self.open.values().any(is_unread).then_some("an answer was left unread for too long")
    }
}

/// Of one request; given back when it is dropped.
#[derive(Debug)]
struct Seat {
    watch: Watch,
    number: u64,
}

impl Seat {
    fn is_the_peers_turn(&self, since: Option<Instant>) {
        if let Some(turn) = self.watch.0.lock().open.get_mut(&self.number) {
            *turn = since;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seen = self.watch.0.lock();
        seen.open.remove(&self.number);
        seen.idle_since = Instant::now();
    }
}

/// An answer's body. It is asked for more only when the peer has room for what it gave before.
struct Watched<B> {
    body: B,
    seat: Seat,
}

impl<B> Watched<B> {
    fn new(body: B, seat: Seat) -> Self {
        seat.is_the_peers_turn(Some(Instant::now()));
        Self { body, seat }
    }
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.seat.is_the_peers_turn(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        max_streams: 4,
        max_header_bytes: 1_024,
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(30),
    };

    async fn ended_after(watch: &Watch) -> Duration {
        let begun = Instant::now();
        watch.over(BOUNDS).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_and_one_with_a_request_does_not() {
        let watch = Watch::new();
        let after = ended_after(&watch).await;
        assert!((60..70).contains(&after.as_secs()), "{after:?}");
        let seat = watch.seat();
        let busy = tokio::time::timeout(Duration::from_secs(3_600), watch.over(BOUNDS)).await;
        assert!(busy.is_err(), "the service takes as long as it takes");
        drop(seat);
        let after = ended_after(&watch).await;
        assert!((60..70).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let watch = Watch::new();
        let (read, unread) = (watch.seat(), watch.seat());
        read.is_the_peers_turn(Some(Instant::now()));
        read.is_the_peers_turn(None);
        unread.is_the_peers_turn(Some(Instant::now()));
        let after = ended_after(&watch).await;
        assert!((30..40).contains(&after.as_secs()), "{after:?}");
        drop(unread);
        let quiet = tokio::time::timeout(Duration::from_secs(3_600), watch.over(BOUNDS)).await;
        assert!(quiet.is_err(), "what the service has yet to say is nobody's fault");
    }
}
