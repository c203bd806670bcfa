//! One connection of HTTP/2, bounded in what it holds and how long it waits, and ended in good order when the service stops.
//!
//! What the library bounds is set here: streams, heads, windows, and resets of either side (CVE-2023-44487, CVE-2025-8671). It does not
//! bound how long a connection may be idle, nor how long a peer may leave an answer unread by opening no window for it; a watch does.

use core::error::Error;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::{Body, Buf, Bytes, Frame, Incoming, SizeHint};
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
/// The most of an answer that is given at once: a frame as every peer takes it.
const MAX_PIECE_BYTES: usize = 16 << 10;
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
    B::Data: Send + Unpin,
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
    drive(Box::pin(connection), http2::Connection::graceful_shutdown, watch.over(bounds), stop).await;
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

/// An answer's body, given in pieces of at most a frame each. The library asks for more as soon as the peer has opened a window for one
/// byte of it, and takes over whatever it gets: so what it holds of an answer that the peer has no room for yet is less than one such
/// piece, however large those are that the body comes in. A peer that reads slowly, many answers at once, thus shows that it reads.
struct Watched<B: Body> {
    body: B,
    seat: Seat,
    /// What is left of a larger piece.
    rest: Option<B::Data>,
}

impl<B: Body> Watched<B> {
    fn new(body: B, seat: Seat) -> Self {
        seat.is_the_peers_turn(Some(Instant::now()));
        Self { body, seat, rest: None }
    }

    /// The next piece of what is at hand.
    fn piece(&mut self) -> Option<Bytes> {
        let rest = self.rest.as_mut()?;
        let piece = rest.copy_to_bytes(rest.remaining().min(MAX_PIECE_BYTES));
        if !rest.has_remaining() {
            self.rest = None;
        }
        Some(piece)
    }
}

impl<B: Body + Unpin> Body for Watched<B>
where
    B::Data: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_none() {
            let polled = Pin::new(&mut self.body).poll_frame(context);
            self.seat.is_the_peers_turn(polled.is_ready().then(Instant::now));
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = Some(data),
                    Err(other) => {
                        return Poll::Ready(other.into_trailers().ok().map(|all| Ok(Frame::trailers(all))));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.seat.is_the_peers_turn(Some(Instant::now()));
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.as_ref().map_or(0, Buf::remaining) as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use http_body_util::{BodyExt as _, Empty, Full};

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

    /// So many pieces of so many bytes.
    struct Pieces(usize, usize);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.1].into()))))
        }
    }

    /// A service whose answers are such.
    async fn serve_pieces(stream: tokio::io::DuplexStream, pieces: usize, bytes: usize) {
        let service = service_fn(move |_: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Pieces(pieces, bytes)))
        });
        serve(stream, service, Bounds { max_streams: 64, ..BOUNDS }, &Stop::new()).await;
    }

    /// Asks so many times at once, and reads all answers side by side, so many bytes of them a second. How much came of each.
    async fn read_slowly(requests: usize, pieces: usize, bytes: usize, per_sec: usize) -> Vec<usize> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = tokio::spawn(serve_pieces(theirs, pieces, bytes));
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16);
        let (mut sender, connection) = client.handshake(TokioIo::new(ours)).await.unwrap();
        let connection = tokio::spawn(connection);
        let turns = Arc::new(tokio::sync::Mutex::new(0));
        let mut readers = Vec::new();
        for _ in 0..requests {
            let mut body =
                sender.send_request(Request::new(Empty::<Bytes>::new())).await.unwrap().into_body();
            let turns = Arc::clone(&turns);
            readers.push(tokio::spawn(async move {
                let mut read = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    let came = frame.into_data().unwrap().len();
                    read += came;
                    let mut unpaid = turns.lock().await;
                    *unpaid += came;
                    // In steps that a clock of milliseconds can tell.
                    if *unpaid >= 4_096 {
                        sleep(Duration::from_micros((*unpaid * 1_000_000 / per_sec) as u64)).await;
                        *unpaid = 0;
                    }
                }
                read
            }));
        }
        let mut read = Vec::new();
        for reader in readers {
            read.push(reader.await.unwrap());
        }
        drop(sender);
        let _ended = (connection.await, served.await);
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_steady_reader_of_many_large_answers_gets_all_of_them() {
        let (requests, pieces, bytes) = (32, 3, 128 << 10);
        let begun = Instant::now();
        let read = read_slowly(requests, pieces, bytes, 128 << 10).await;
        assert_eq!(read, vec![pieces * bytes; requests]);
        let took = begun.elapsed();
        assert!(took > BOUNDS.write_timeout * 3, "it was slow: {took:?}");
        // For control: one that takes longer for a frame of each than an answer may be left unread.
        let cut = read_slowly(requests, pieces, bytes, 1 << 10).await;
        assert!(cut.iter().any(|read| *read < pieces * bytes), "{cut:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_under_way_until_its_last_frame_can_go_out_however_large_its_pieces() {
        let watch = Watch::new();
        let bytes = (128 << 10) + 1;
        let mut body = Watched::new(Full::new(Bytes::from(vec![b'x'; bytes])), watch.seat());
        let mut lengths = Vec::new();
        while !body.is_end_stream() {
            let left = body.size_hint().exact();
            assert_eq!(left, Some((bytes - lengths.iter().sum::<usize>()) as u64));
            assert!(!watch.0.lock().open.is_empty(), "the place is held");
            lengths.push(body.frame().await.unwrap().unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [vec![MAX_PIECE_BYTES; 8], vec![1]].concat());
        drop(body);
        assert!(watch.0.lock().open.is_empty(), "and given back");
    }
}
