//! A request's body without its trailers: an API could take them for headers, and those were looked through before.

use core::pin::Pin;
use core::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

/// Passes data, and nothing else.
#[derive(Debug)]
pub(crate) struct Untrailed<B>(pub(crate) B);

impl<B: Body + Unpin> Body for Untrailed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        loop {
            match Pin::new(&mut self.0).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {}
                polled => return polled,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
