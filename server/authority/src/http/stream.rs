//! A stream over HTTP: an answer without an end, of server-sent events, each with one sealed message.
//!
//! It is bounded by itself, since a connection's life does not bound it: whoever does not take a message in time is cut off,
//! and so is whoever does not read what waits.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::body::Frame;
use obol_handshake::Sealer;
use obol_probe::stop::Stop;
use obol_stream::{Item, frame};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::lasting::Keeps;
use super::now;
use crate::authority::{Authority, Begun, HEARTBEAT_SECS, Started};
use crate::directory::Event;
use crate::stream::{Feed, Live};

/// Pieces that wait for the network.
const MAX_UNSENT: usize = 4;
/// How much is sent in one piece where more follows at once, in bytes: what lists everything has many short messages.
const PIECE_BYTES: usize = 16 << 10;
/// How long a piece may wait for the network.
const SEND_PATIENCE: Duration = Duration::from_secs(20);
/// The most events that are turned into items at a time.
const MAX_AT_ONCE: usize = 64;

/// The answer, and the task that fills it. `stop` ends it.
pub(super) fn answer(authority: Arc<Authority>, begun: Begun, keeps: Option<Keeps>, stop: Stop) -> Response {
    let (sender, unsent) = mpsc::channel(MAX_UNSENT);
    let Begun { sealer, outcome } = begun;
    let mut out = Out { sealer, sender, piece: Vec::new() };
    tokio::spawn(async move {
        let _keeps = keeps;
        match outcome {
            Ok(started) => run(&authority, started, &mut out, &stop).await,
            Err(refused) => {
                let item = Item::Refused { code: refused.code().to_owned(), detail: refused.to_string() };
                let _gone = out.send(&item.to_bytes()).await;
            }
        }
    });
    let mut response = Response::new(Body::new(Unsent(unsent)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What some proxies need to be told before they pass it on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body: what is sent, as it comes.
struct Unsent(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Unsent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The follower is gone, too slow, or its key is used up.
struct Gone;

/// Seals what goes out.
struct Out {
    sealer: Sealer,
    sender: mpsc::Sender<Bytes>,
    /// What was sealed and not sent yet.
    piece: Vec<u8>,
}

impl Out {
    /// Sends a message, and what was put before it.
    async fn send(&mut self, plain: &[u8]) -> Result<(), Gone> {
        self.put(plain).await?;
        self.flush().await
    }

    /// Seals a message; it goes out with the next ones, once there is enough of them.
    async fn put(&mut self, plain: &[u8]) -> Result<(), Gone> {
        let sealed = self.sealer.seal(plain).map_err(|_| Gone)?;
        self.piece.extend_from_slice(&frame(&sealed));
        if self.piece.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what was put.
    async fn flush(&mut self) -> Result<(), Gone> {
        let piece = core::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        let sent = timeout(SEND_PATIENCE, self.sender.send(piece.into())).await;
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

async fn run(authority: &Arc<Authority>, started: Started, out: &mut Out, stop: &Stop) {
    let live = Arc::clone(&started.live);
    let told = async {
        let _gone = tell(authority, started, out).await;
    };
    tokio::select! {
        () = stop.said() => {}
        () = told => {}
    }
    let authority = Arc::clone(authority);
    let _panicked = tokio::task::spawn_blocking(move || authority.end_stream(&live)).await;
}

async fn tell(authority: &Arc<Authority>, started: Started, out: &mut Out) -> Result<(), Gone> {
    let Started { live, mut queue, mut feed, hello } = started;
    out.send(&Item::Hello(Box::new(hello)).to_bytes()).await?;
    let mut beats = interval(Duration::from_secs(HEARTBEAT_SECS));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (page, rest) = off_thread(feed, Feed::page).await?;
        feed = rest;
        let Some(items) = page else { break };
        for item in items {
            out.put(&item).await?;
        }
        out.flush().await?;
        authority.hub().note_written(&live, feed.cursor());
    }
    loop {
        let Next { events, head } = next(authority, &mut queue, &mut beats).await?;
        if !events.is_empty() {
            feed = tell_events(authority, &live, feed, events, out).await?;
        }
        let now = now().secs();
        // One that cannot keep what it is told has no business saying that all is well.
        authority.health().map_err(|_| Gone)?;
        // Also behind events: what an end consists of besides concerns others, and nobody should wait to confirm the whole.
        let item = feed.heartbeat(head, now);
        live.note_heartbeat(now);
        out.send(&item).await?;
    }
}

/// What is to be told next.
struct Next {
    events: Vec<Arc<Event>>,
    /// The number up to which everything was told once these are.
    head: u64,
}

/// Waits for events, or until it is time for a heartbeat.
async fn next(
    authority: &Authority,
    queue: &mut mpsc::Receiver<Arc<Event>>,
    beats: &mut Interval,
) -> Result<Next, Gone> {
    let mut events = Vec::new();
    tokio::select! {
        biased;
        // None where it was cut off.
        taken = queue.recv_many(&mut events, MAX_AT_ONCE) => if taken == 0 { return Err(Gone) },
        _ = beats.tick() => {}
    }
    // First the number, and then what waits: whatever was handed out up to it is in the queue by now.
    let head = authority.hub().dispatched();
    events.extend(core::iter::from_fn(|| queue.try_recv().ok()));
    Ok(Next { events, head })
}

/// Sends what these events say.
async fn tell_events(
    authority: &Arc<Authority>,
    live: &Arc<Live>,
    feed: Feed,
    events: Vec<Arc<Event>>,
    out: &mut Out,
) -> Result<Feed, Gone> {
    let last = events.last().map_or(0, |event| event.seq);
    let (items, feed) = off_thread(feed, move |feed| {
        events.iter().map(|event| feed.item(event)).collect::<Result<Vec<_>, _>>()
    })
    .await?;
    for item in items.into_iter().flatten() {
        out.put(&item).await?;
    }
    out.flush().await?;
    authority.hub().note_written(live, last);
    Ok(feed)
}

/// Reads the directory, on a thread that may wait for a disk.
async fn off_thread<T: Send + 'static>(
    mut feed: Feed,
    act: impl FnOnce(&mut Feed) -> crate::directory::Answer<T> + Send + 'static,
) -> Result<(T, Feed), Gone> {
    let done = tokio::task::spawn_blocking(move || act(&mut feed).map(|done| (done, feed))).await;
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::error!(%error, "a stream ends: what it should tell cannot be read");
            Err(Gone)
        }
        Err(_) => Err(Gone),
    }
}
