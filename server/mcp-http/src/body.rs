//! Bodies: read whole within bounds, or passed on event by event.

use core::error::Error;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use obol_mcp::sse::{Event, Events};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::MAX_SERVER_BYTES;

/// How long a body may take whose length is bounded.
const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// How long a stream may say nothing, not even that it is there.
const SILENCE: Duration = Duration::from_secs(15 * 60);

pub(crate) type Failed = Box<dyn Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Failed>;

/// A body of these bytes.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body of at most so many bytes.
///
/// # Errors
///
/// It is longer, took too long, or broke off.
pub(crate) async fn read(body: Incoming, most: usize) -> Result<Bytes, String> {
    match timeout(WHOLE_WAIT, Limited::new(body, most).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(format!("it is longer than {most} bytes"))
        }
        Ok(Err(error)) => Err(format!("it broke off: {error}")),
        Err(_) => Err(format!("it took longer than {} s", WHOLE_WAIT.as_secs())),
    }
}

/// Reads the events of a body, one after the other.
#[derive(Debug)]
pub(crate) struct EventReader {
    from: Incoming,
    events: Events,
    ready: VecDeque<Event>,
    silence: Pin<Box<Sleep>>,
}

impl EventReader {
    pub(crate) fn new(from: Incoming) -> Self {
        Self {
            from,
            events: Events::at_most(MAX_SERVER_BYTES),
            ready: VecDeque::new(),
            silence: Box::pin(sleep(SILENCE)),
        }
    }

    /// The next event; `None` at the end. What has no end is no event.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Failed>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.silence.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err("the stream has been silent for too long".into())));
            }
            let frame = match ready!(Pin::new(&mut self.from).poll_frame(context)) {
                Some(frame) => frame?,
                None if self.events.is_broken_off() => {
                    return Poll::Ready(Some(Err("the stream broke off within an event".into())));
                }
                None => return Poll::Ready(None),
            };
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            if let Ok(data) = frame.into_data() {
                let events = self.events.push(&data).map_err(|_| "an event of the stream is too long")?;
                self.ready.extend(events);
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Event, Failed>> {
        core::future::poll_fn(|context| self.poll_next(context)).await
    }
}

/// A stream of events that is passed on, each event as `seen` says; `None` for one that is not. It ends when `over` does.
pub(crate) struct Relayed<F> {
    reader: EventReader,
    seen: F,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<F: FnMut(Event) -> Option<Bytes> + Send + Unpin + 'static> Relayed<F> {
    pub(crate) fn body(from: Incoming, seen: F, over: impl Future<Output = ()> + Send + 'static) -> Body {
        Self { reader: EventReader::new(from), seen, over: Box::pin(over) }.boxed_unsync()
    }
}

impl<F: FnMut(Event) -> Option<Bytes> + Unpin> http_body::Body for Relayed<F> {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let this = &mut *self;
        if this.over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            match ready!(this.reader.poll_next(context)) {
                Some(Ok(event)) => {
                    if let Some(bytes) = (this.seen)(event) {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a stream of the server ended early");
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}
