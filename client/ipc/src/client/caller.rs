//! One request at a time, over a connection that is opened again when needed.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use obol_ipc::codec::{RequestId, ResponseError};
use obol_ipc::refusal::Refusal;
use obol_ipc::{Endpoint, Protocol};

use super::error::CallError;
use crate::connect::{ConnectError, ConnectOptions, Link, Lost, Reconnect, Unwritten};

/// Another way to a daemon than its socket.
pub trait Way<P: Protocol>: fmt::Debug + Send {
    /// Sends `request` and waits for its answer, for `wait` plus what the way itself takes.
    ///
    /// # Errors
    ///
    /// [`CallError`]. A request that may have been carried out is not sent again.
    fn call(&mut self, request: &P::Request, wait: Duration) -> Result<P::Reply, CallError>;
}

/// Where requests go.
#[derive(Debug)]
enum To<P> {
    Socket(Box<Endpoint>),
    Other(Box<dyn Way<P>>),
}

/// A blocking client for one socket: [`Client`](super::Client), [`AuthClient`](super::AuthClient),
/// [`ControlClient`](super::ControlClient), [`RsControlClient`](super::RsControlClient) or
/// [`AsControlClient`](super::AsControlClient). One connection, and one request on it at a time.
#[derive(Debug)]
pub struct BlockingClient<P> {
    to: To<P>,
    options: ConnectOptions,
    link: Option<Link>,
    last_id: u64,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol> BlockingClient<P> {
    /// Connects to the daemon at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; one attempt is made.
    pub fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<Self, ConnectError> {
        let link = Some(Link::open(&endpoint, &options)?);
        let to = To::Socket(Box::new(endpoint));
        Ok(Self { to, options, link, last_id: 0, protocol: PhantomData })
    }

    /// Speaks to the daemon another way than by its socket.
    pub fn over(way: Box<dyn Way<P>>, options: ConnectOptions) -> Self {
        Self { to: To::Other(way), options, link: None, last_id: 0, protocol: PhantomData }
    }

    #[cfg(test)]
    pub(crate) fn set_answer_timeout(&mut self, answer_timeout: Duration) {
        self.options.answer_timeout = answer_timeout;
    }

    /// Sends `request` and waits for its answer, for `wait` plus the answer timeout.
    pub(super) fn call(&mut self, request: &P::Request, wait: Duration) -> Result<P::Reply, CallError> {
        if let To::Other(way) = &mut self.to {
            return way.call(request, wait);
        }
        self.last_id = self.last_id.wrapping_add(1);
        let id = RequestId::Number(self.last_id);
        let mut link = self.sent(&id, request)?;
        let deadline = Instant::now() + wait + self.options.patience();
        let method = P::method_of(request);
        let codec = link.codec();
        let outcome = link
            .read(deadline, |body| {
                let response = codec.decode_response(body)?;
                check_id(response.id(), &id)?;
                let unidentified = response.id().is_none();
                let outcome = response.outcome::<P>(method)?;
                if unidentified && outcome.is_ok() {
                    return Err(ResponseError::new("a result for no request"));
                }
                Ok(outcome)
            })
            .and_then(|outcome: Result<Result<P::Reply, Refusal>, ResponseError>| {
                outcome.map_err(Lost::Answer)
            });
        match outcome {
            Ok(outcome) => {
                self.link = Some(link);
                outcome.map_err(CallError::Refused)
            }
            // The connection is dropped: an answer that comes late must not meet the next request.
            Err(lost) => Err(CallError::Unanswered(lost)),
        }
    }

    /// The same for a request that does not make the daemon wait.
    pub(super) fn order(&mut self, request: &P::Request) -> Result<P::Reply, CallError> {
        self.call(request, Duration::ZERO)
    }

    /// Sends `request` on the connection there is, or once more on a new one if not a byte of it went out. Takes the
    /// connection out of `self`, so that it stays only if all goes well.
    fn sent(&mut self, id: &RequestId, request: &P::Request) -> Result<Link, CallError> {
        let mut last_attempt = false;
        loop {
            let mut link = self.open_link().map_err(CallError::NotSent)?;
            let written = match link.send::<P>(id, request) {
                Ok(written) => written,
                Err(error) => {
                    self.link = Some(link);
                    return Err(CallError::Encode(error));
                }
            };
            match written {
                Ok(()) => return Ok(link),
                Err(Unwritten::Untouched(_)) if !last_attempt => last_attempt = true,
                Err(Unwritten::Untouched(error)) => {
                    return Err(CallError::NotSent(ConnectError::Closed(Arc::new(error))));
                }
                Err(Unwritten::Partly(error)) => return Err(CallError::Unanswered(Lost::from_io(error))),
            }
        }
    }

    fn open_link(&mut self) -> Result<Link, ConnectError> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let To::Socket(endpoint) = &self.to else {
            // Requests of another way do not come here.
            return Err(ConnectError::Closed(Arc::new(std::io::ErrorKind::NotConnected.into())));
        };
        let mut again = Reconnect::new(&self.options);
        loop {
            match Link::open(endpoint, &self.options) {
                Ok(link) => return Ok(link),
                Err(error) => thread::sleep(again.pause_after(&error).ok_or(error)?),
            }
        }
    }
}

/// An answer must be to this request. A refusal without an id is to it as well: it was the only one under way.
fn check_id(answered: Option<&RequestId>, asked: &RequestId) -> Result<(), ResponseError> {
    match answered {
        Some(answered) if answered != asked => {
            Err(ResponseError::new("an answer to a request that was never made"))
        }
        _ => Ok(()),
    }
}
