//! Bodies: what is sent, and what comes back.

use core::fmt;
use core::future::Future as _;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};

use crate::error::{Code, Error};

type BoxError = Box<dyn core::error::Error + Send + Sync>;

/// A request's body. Bytes can be sent again, where the rules allow that; a stream is sent once.
pub struct Body(Kind);

enum Kind {
    Bytes(Bytes),
    /// Locked by whoever has only a shared hold of it, which is hardly anybody.
    Stream(Mutex<UnsyncBoxBody<Bytes, BoxError>>),
}

impl Body {
    /// Sends what a stream brings. A request with one is never sent again.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(Mutex::new(body.map_err(Into::into).boxed_unsync())))
    }

    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Bytes(bytes) => Some(bytes),
            Kind::Stream(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self(Kind::Bytes(Bytes::new()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

macro_rules! from_bytes {
    ($($type:ty),+) => {
        $(impl From<$type> for Body {
            fn from(bytes: $type) -> Self {
                Self(Kind::Bytes(bytes.into()))
            }
        })+
    };
}
from_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(core::mem::take(bytes))))),
            Kind::Stream(stream) => Pin::new(stream.get_mut()).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.lock().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.lock().size_hint(),
        }
    }
}

/// An answer's body. No pause in it may be longer than the call may take.
pub struct ResponseBody {
    /// What was read already, to look at it.
    front: Bytes,
    rest: Option<Incoming>,
    /// It broke off while it was looked at.
    broken: Option<Error>,
    patience: Duration,
    /// Set up when something has to be waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(crate) fn coming(rest: Incoming, patience: Duration) -> Self {
        Self { front: Bytes::new(), rest: Some(rest), broken: None, patience, alarm: None }
    }

    pub(crate) fn there(front: Bytes) -> Self {
        Self { front, rest: None, broken: None, patience: Duration::ZERO, alarm: None }
    }

    /// Reads as much of it as fits into so many bytes, and puts that back. Gives it where it is the whole.
    pub(crate) async fn peek(&mut self, most: usize) -> Option<Bytes> {
        let mut front = Vec::new();
        while front.len() <= most && self.rest.is_some() {
            match self.frame().await {
                Some(Ok(frame)) => front.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => (self.rest, self.broken) = (None, Some(error)),
                None => self.rest = None,
            }
        }
        self.front = front.into();
        (self.rest.is_none() && self.broken.is_none()).then(|| self.front.clone())
    }

    /// All of it, if it is not longer than this many bytes.
    ///
    /// # Errors
    ///
    /// [`Code::OutcomeUnknown`] where it broke off or paused for too long; [`Code::InvalidArgument`] where it is longer.
    pub async fn collect_up_to(self, most: usize) -> Result<Bytes, Error> {
        match Limited::new(self, most).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) => Err(match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(_) => {
                    let message = format!("the answer is longer than {most} bytes; read it piece by piece");
                    Error::new(Code::InvalidArgument, message)
                }
            }),
        }
    }
}

fn cut(why: &str) -> Error {
    let message = format!(
        "the answer's head came, and its body not whole: {why}. The server began to answer, so look at what it did"
    );
    Error::new(Code::OutcomeUnknown, message)
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if !this.front.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(core::mem::take(&mut this.front)))));
        }
        let Some(rest) = &mut this.rest else { return Poll::Ready(this.broken.take().map(Err)) };
        // Whatever the error says is of the connection; it holds nothing of the request.
        if let Poll::Ready(frame) = Pin::new(rest).poll_frame(context) {
            this.alarm = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| cut(&error.to_string()))));
        }
        let patience = this.patience;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(context).map(|()| Some(Err(cut("it paused for too long"))))
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_empty()
            && self.broken.is_none()
            && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let front = self.front.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(front));
        }
        hint.set_lower(hint.lower().saturating_add(front));
        hint
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}
