//! Messages to frame bodies and back, in either codec.
//!
//! `json` is JSON-RPC 2.0 without batches and notifications; every client in any language can speak it. `bincode` is
//! for Rust: the same messages in fewer bytes.
//!
//! # The binary form
//!
//! What `#[derive(bincode::Encode)]` of bincode 2 gives under `bincode::config::standard()` for
//!
//! ```text
//! struct Request  { id: RequestId, call: Call }                            Call:  the methods in the protocol's order
//! struct Response { id: Option<RequestId>, outcome: Result<Reply, Error> } Reply: likewise, each with its result
//! enum RequestId  { Number(u64), Text(String) }                            (JSON knows other numbers as well)
//! struct Error    { code: ErrorCode, message: String }
//! ```
//!
//! and the structs of [`message`](crate::message), [`control`](crate::control) and
//! [`ErrorCode`], whose fields and variants come in the order they are declared in. Session ids, suites, waits and
//! times are plain integers (times in Unix seconds); session documents are strings of JSON, hashes and proofs of base64url.
//!
//! bincode is no longer maintained (RUSTSEC-2025-0141). It is a small part of this codec, no type of its appears in
//! this crate's interface, and only one private module (`binary`) names it: what it writes here is fixed by the lines above
//! and by `tests/vectors/ipc`, so that it can be replaced without anyone noticing.

mod bincode;
mod json;
#[cfg(test)]
mod tests;

use core::fmt;

pub(crate) use self::json::{from_object, write_json};
use crate::frame::{EncodeError, EncodedFrame, FrameWriter, Frames};
use crate::protocol::Protocol;
use crate::refusal::{ErrorCode, Refusal, one_line};

/// How messages are written, settled by the hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON-RPC 2.0. Every server speaks it.
    #[default]
    Json,
    /// bincode 2, for Rust programs.
    Bincode,
}

impl Codec {
    /// The codec's name in the hello.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Bincode => "bincode",
        }
    }

    /// The codec of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Json, Self::Bincode].into_iter().find(|codec| codec.name() == name)
    }

    /// Writes a request.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] when it does not fit a frame.
    pub fn encode_request<P: Protocol>(
        self,
        id: &RequestId,
        request: &P::Request,
    ) -> Result<EncodedFrame, EncodeError> {
        EncodedFrame::write(|frame| self.write_request::<P>(frame, id, request))
    }

    /// Writes a request behind others that go out with it. If that fails, those stay as they were.
    ///
    /// # Errors
    ///
    /// As for [`encode_request`](Self::encode_request).
    pub fn put_request<P: Protocol>(
        self,
        frames: &mut Frames,
        id: &RequestId,
        request: &P::Request,
    ) -> Result<(), EncodeError> {
        frames.write(|frame| self.write_request::<P>(frame, id, request))
    }

    fn write_request<P: Protocol>(
        self,
        frame: &mut FrameWriter,
        id: &RequestId,
        request: &P::Request,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Json => json::write_request::<P>(frame, id, request),
            Self::Bincode => bincode::write_request::<P>(frame, id, request),
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`RejectedRequest`]: what to answer. It carries the request's id whenever that much could be read.
    pub fn decode_request<P: Protocol>(self, body: &[u8]) -> Result<Request<P>, RejectedRequest> {
        match self {
            Self::Json => json::decode_request::<P>(body),
            Self::Bincode => bincode::decode_request::<P>(body),
        }
    }

    /// Writes a response. `id` is `None` only for a request whose id could not be read.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] when a reply does not fit a frame; answer [`Refusal::reply_too_long`] instead. A
    /// refusal always fits.
    pub fn encode_response<P: Protocol>(
        self,
        id: Option<&RequestId>,
        outcome: Result<&P::Reply, &Refusal>,
    ) -> Result<EncodedFrame, EncodeError> {
        EncodedFrame::write(|frame| self.write_response::<P>(frame, id, outcome))
    }

    /// Writes a response behind others that go out with it. If that fails, those stay as they were.
    ///
    /// # Errors
    ///
    /// As for [`encode_response`](Self::encode_response).
    pub fn put_response<P: Protocol>(
        self,
        frames: &mut Frames,
        id: Option<&RequestId>,
        outcome: Result<&P::Reply, &Refusal>,
    ) -> Result<(), EncodeError> {
        frames.write(|frame| self.write_response::<P>(frame, id, outcome))
    }

    fn write_response<P: Protocol>(
        self,
        frame: &mut FrameWriter,
        id: Option<&RequestId>,
        outcome: Result<&P::Reply, &Refusal>,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Json => json::write_response::<P>(frame, id, outcome),
            Self::Bincode => bincode::write_response::<P>(frame, id, outcome),
        }
    }

    /// Reads whom a response is for. Its outcome can be read once the method is known:
    /// [`IncomingResponse::outcome`].
    ///
    /// # Errors
    ///
    /// [`ResponseError`] when the body is not a response.
    pub fn decode_response(self, body: &[u8]) -> Result<IncomingResponse<'_>, ResponseError> {
        Ok(IncomingResponse(match self {
            Self::Json => Incoming::Json(json::decode_response(body)?),
            Self::Bincode => Incoming::Binary(bincode::decode_response(body)?),
        }))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Longest request id that is a string, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 64;

/// What ties a response to its request. The requester chooses it; the server sends it back as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// A number.
    Number(u64),
    /// A string of at most [`MAX_REQUEST_ID_BYTES`].
    Text(IdText),
    /// Any other number, as its sender wrote it, in at most [`MAX_REQUEST_ID_BYTES`]. Only in JSON.
    Digits(IdText),
}

impl RequestId {
    /// An id that is a string; `None` if it is longer than [`MAX_REQUEST_ID_BYTES`].
    pub fn text(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.len() <= MAX_REQUEST_ID_BYTES).then_some(Self::Text(IdText(text)))
    }
}

/// The text of a request id: at most [`MAX_REQUEST_ID_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdText(String);

impl IdText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request as the server receives it.
#[derive(Debug)]
pub struct Request<P: Protocol> {
    /// To be sent back with the answer.
    pub id: RequestId,
    /// What is asked for.
    pub call: P::Request,
}

/// A body that is not an acceptable request, as the server has to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRequest {
    /// The request's id, if that much could be read.
    pub id: Option<RequestId>,
    /// The answer.
    pub refusal: Refusal,
}

impl RejectedRequest {
    fn new(id: Option<RequestId>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { id, refusal: Refusal::new(code, message) }
    }

    fn unknown_method<P: Protocol>(id: RequestId, method: impl fmt::Display) -> Self {
        let known: Vec<_> = P::METHODS.iter().map(|method| P::method_name(*method)).collect();
        let message = format!("this socket knows {} and nothing else, not {method}", known.join(", "));
        Self::new(Some(id), ErrorCode::MethodNotAllowed, message)
    }

    fn invalid_params<P: Protocol>(id: RequestId, method: P::Method, problem: impl fmt::Display) -> Self {
        Self::new(Some(id), ErrorCode::InvalidArgument, format!("{}: {problem}", P::method_name(method)))
    }
}

/// A response of which only the id has been read. Borrows the body it came in.
pub struct IncomingResponse<'body>(Incoming<'body>);

enum Incoming<'body> {
    Json(json::Response<'body>),
    Binary(bincode::Response<'body>),
}

impl IncomingResponse<'_> {
    /// The request it answers; `None` when the server could not read the request's id.
    pub fn id(&self) -> Option<&RequestId> {
        match &self.0 {
            Incoming::Json(response) => response.id.as_ref(),
            Incoming::Binary(response) => response.id.as_ref(),
        }
    }

    /// The outcome, read as that of `method`.
    ///
    /// # Errors
    ///
    /// [`ResponseError`] when it is not such an outcome, or an error with a code unknown to this version.
    pub fn outcome<P: Protocol>(self, method: P::Method) -> Result<Result<P::Reply, Refusal>, ResponseError> {
        match self.0 {
            Incoming::Json(response) => response.outcome::<P>(method),
            Incoming::Binary(response) => response.outcome::<P>(method),
        }
    }
}

impl fmt::Debug for IncomingResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingResponse").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// An answer that is not one. Either the other side is no Obol daemon, or it speaks a version this client does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseError(String);

impl ResponseError {
    /// An answer with this problem.
    pub fn new(problem: impl fmt::Display) -> Self {
        Self(one_line(problem.to_string()))
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the daemon's answer is not understood ({}); use the same version on both sides", self.0)
    }
}

impl core::error::Error for ResponseError {}
