//! The body of an answer: a text of the proxy's own, or an API's as it comes.

use core::convert::Infallible;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Bytes;
use obol_agent::ResponseBody;
use tokio::sync::OwnedSemaphorePermit;

/// The body of an answer.
pub(crate) struct Answer(Kind);

enum Kind {
    Text(Full<Bytes>),
    /// An API's, with its place among the requests under way.
    Passing(
        ResponseBody,
        #[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit,
    ),
}

impl Answer {
    pub(crate) fn text(text: String) -> Self {
        Self(Kind::Text(Full::new(text.into())))
    }

    pub(crate) const fn passing(body: ResponseBody, place: OwnedSemaphorePermit) -> Self {
        Self(Kind::Passing(body, place))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = obol_agent::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.0 {
            Kind::Text(text) => {
                Pin::new(text).poll_frame(context).map_err(|never: Infallible| match never {})
            }
            Kind::Passing(body, _) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_end_stream(),
            Kind::Passing(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => text.size_hint(),
            Kind::Passing(body, _) => body.size_hint(),
        }
    }
}
