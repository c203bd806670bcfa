//! JSON-RPC 2.0, one message to a body.
//!
//! A message is read in two steps: first its envelope, whose members stay raw text, then its parameters or result. So
//! an error in one part never hides the others, above all not the id.

use std::borrow::Cow;

use serde::ser;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{IdText, MAX_REQUEST_ID_BYTES, RejectedRequest, Request, RequestId, ResponseError};
use crate::frame::{EncodeError, FrameWriter};
use crate::protocol::Protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter, Part};
use crate::refusal::{ErrorCode, Refusal};

#[cfg(test)]
mod tests;

const VERSION: &str = "2.0";

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text.as_str()),
            Self::Digits(digits) => {
                let raw: &RawValue = serde_json::from_str(digits.as_str()).map_err(ser::Error::custom)?;
                raw.serialize(serializer)
            }
        }
    }
}

/// An id that is some number: as a plain one if it is one, else as it is written, for the answer to carry it back so.
fn number_id(text: &str) -> Option<RequestId> {
    match text.parse() {
        Ok(number) => Some(RequestId::Number(number)),
        Err(_) if text.len() <= MAX_REQUEST_ID_BYTES => Some(RequestId::Digits(IdText(text.to_owned()))),
        Err(_) => None,
    }
}

/// Reads a struct from the text of a JSON object. (serde would also take an array of its fields.)
pub(crate) fn from_object<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err("a JSON object is needed here".to_owned());
    }
    serde_json::from_str(text).map_err(|error| without_position(&error))
}

/// serde_json's message without its line and column, which mean nothing inside a frame.
fn without_position(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(end) = message.rfind(" at line ") {
        message.truncate(end);
    }
    message
}

/// Parameters or a result, in their raw text.
struct RawText<'body>(&'body str);

impl BodyReader for RawText<'_> {
    type Error = String;

    fn read<T: Part>(self) -> Result<T, String> {
        from_object(self.0)
    }
}

#[derive(Deserialize)]
struct RequestEnvelope<'body> {
    #[serde(borrow)]
    jsonrpc: Option<&'body RawValue>,
    #[serde(borrow)]
    id: Option<&'body RawValue>,
    #[serde(borrow)]
    method: Option<&'body RawValue>,
    #[serde(borrow)]
    params: Option<&'body RawValue>,
}

/// What can be read of an envelope that is broken otherwise.
#[derive(Deserialize)]
struct IdOnly<'body> {
    #[serde(borrow)]
    id: Option<&'body RawValue>,
}

fn id_in(raw: Option<&RawValue>) -> Result<RequestId, String> {
    let raw = raw.ok_or("needs an id, because every request is answered")?.get();
    let id = match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).ok().and_then(|text: String| RequestId::text(text)),
        Some(b'-' | b'0'..=b'9') => number_id(raw),
        _ => None,
    };
    id.ok_or_else(|| {
        format!("has no usable id; it must be a number or a string, of at most {MAX_REQUEST_ID_BYTES} bytes")
    })
}

pub(super) fn decode_request<P: Protocol>(body: &[u8]) -> Result<Request<P>, RejectedRequest> {
    let envelope = request_envelope(body)?;
    let reject = |id: Option<RequestId>, problem: &str| {
        RejectedRequest::new(id, ErrorCode::InvalidRequest, format!("the request {problem}"))
    };
    let id = id_in(envelope.id).map_err(|problem| reject(None, &problem))?;
    if string_in(envelope.jsonrpc).as_deref() != Some(VERSION) {
        return Err(reject(Some(id), "needs \"jsonrpc\":\"2.0\""));
    }
    let Some(name) = string_in(envelope.method) else {
        return Err(reject(Some(id), "needs the name of a method, a string"));
    };
    let Some(method) = P::METHODS.iter().copied().find(|method| P::method_name(*method) == name) else {
        return Err(RejectedRequest::unknown_method::<P>(id, format_args!("`{name}`")));
    };
    let params = envelope.params.map_or("{}", RawValue::get);
    match P::read_request(method, RawText(params)) {
        Ok(call) => Ok(Request { id, call }),
        Err(problem) => Err(RejectedRequest::invalid_params::<P>(id, method, problem)),
    }
}

fn request_envelope(body: &[u8]) -> Result<RequestEnvelope<'_>, RejectedRequest> {
    let not_json = |problem: String| {
        let message = format!("the body is not JSON ({problem}); send one JSON-RPC 2.0 request per frame");
        RejectedRequest::new(None, ErrorCode::ParseError, message)
    };
    let text = str::from_utf8(body).map_err(|_| not_json("not UTF-8".to_owned()))?;
    if let Ok(envelope) = from_object(text) {
        return Ok(envelope);
    }
    // Something is wrong; from here on it is worth a second look to say what.
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| not_json(without_position(&error)))?;
    if raw.get().starts_with('[') {
        let message = "batches are not supported; send each request in a frame of its own";
        return Err(RejectedRequest::new(None, ErrorCode::InvalidRequest, message));
    }
    from_object(raw.get()).map_err(|problem| {
        let id = from_object::<IdOnly<'_>>(raw.get()).ok().and_then(|envelope| id_in(envelope.id).ok());
        RejectedRequest::new(id, ErrorCode::InvalidRequest, format!("the request: {problem}"))
    })
}

fn string_in(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let text = raw?.get();
    // Without escapes, which is the rule, nothing needs to be copied.
    match serde_json::from_str::<&str>(text) {
        Ok(borrowed) => Some(Cow::Borrowed(borrowed)),
        Err(_) => serde_json::from_str(text).ok().map(Cow::Owned),
    }
}

#[derive(Serialize)]
struct RequestMessage<'a, T> {
    jsonrpc: &'static str,
    id: &'a RequestId,
    method: &'static str,
    params: &'a T,
}

struct RequestWriter<'a> {
    frame: &'a mut FrameWriter,
    id: &'a RequestId,
    method: &'static str,
}

impl BodyWriter for RequestWriter<'_> {
    type Error = EncodeError;

    fn write<T: Part>(self, params: &T) -> Result<(), EncodeError> {
        let message = RequestMessage { jsonrpc: VERSION, id: self.id, method: self.method, params };
        write_json(self.frame, &message)
    }
}

pub(crate) fn write_json<T: Serialize>(frame: &mut FrameWriter, message: &T) -> Result<(), EncodeError> {
    serde_json::to_writer(frame, message)
        .map_err(|error| if error.is_io() { EncodeError::TooLong } else { EncodeError::Inexpressible })
}

pub(super) fn write_request<P: Protocol>(
    frame: &mut FrameWriter,
    id: &RequestId,
    request: &P::Request,
) -> Result<(), EncodeError> {
    let method = P::method_name(P::method_of(request));
    P::write_request(request, RequestWriter { frame, id, method })
}

#[derive(Serialize)]
struct ReplyMessage<'a, T> {
    jsonrpc: &'static str,
    id: Option<&'a RequestId>,
    result: &'a T,
}

#[derive(Serialize)]
struct RefusalMessage<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RequestId>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    data: ErrorData<'a>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorData<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewal_pending: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl ErrorData<'static> {
    fn of(code: ErrorCode) -> Self {
        let (renewal_pending, retry_after_ms) = match code {
            ErrorCode::QueueEmpty { renewal_pending, retry_after_ms } => {
                (Some(renewal_pending), Some(retry_after_ms))
            }
            ErrorCode::Overloaded { retry_after_ms } | ErrorCode::AuthorityUnreachable { retry_after_ms } => {
                (None, Some(retry_after_ms))
            }
            _ => (None, None),
        };
        Self { code: Some(Cow::Borrowed(code.name())), renewal_pending, retry_after_ms }
    }
}

struct ReplyWriter<'a> {
    frame: &'a mut FrameWriter,
    id: Option<&'a RequestId>,
}

impl BodyWriter for ReplyWriter<'_> {
    type Error = EncodeError;

    fn write<T: Part>(self, result: &T) -> Result<(), EncodeError> {
        write_json(self.frame, &ReplyMessage { jsonrpc: VERSION, id: self.id, result })
    }
}

pub(super) fn write_response<P: Protocol>(
    frame: &mut FrameWriter,
    id: Option<&RequestId>,
    outcome: Result<&P::Reply, &Refusal>,
) -> Result<(), EncodeError> {
    match outcome {
        Ok(reply) => P::write_reply(reply, ReplyWriter { frame, id }),
        Err(refusal) => {
            let code = refusal.code();
            let error =
                ErrorObject { code: code.number(), message: refusal.message(), data: ErrorData::of(code) };
            write_json(frame, &RefusalMessage { jsonrpc: VERSION, id, error })
        }
    }
}

#[derive(Deserialize)]
struct ResponseEnvelope<'body> {
    #[serde(borrow)]
    jsonrpc: Option<&'body RawValue>,
    #[serde(borrow)]
    id: Option<&'body RawValue>,
    #[serde(borrow)]
    result: Option<&'body RawValue>,
    #[serde(borrow)]
    error: Option<&'body RawValue>,
}

#[derive(Deserialize)]
struct ReceivedError<'body> {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow, default)]
    data: Option<&'body RawValue>,
}

/// A response whose envelope has been read.
pub(super) struct Response<'body> {
    pub(super) id: Option<RequestId>,
    outcome: Result<&'body RawValue, &'body RawValue>,
}

pub(super) fn decode_response(body: &[u8]) -> Result<Response<'_>, ResponseError> {
    let text = str::from_utf8(body).map_err(|_| ResponseError::new("not UTF-8"))?;
    let envelope: ResponseEnvelope<'_> =
        from_object(text).map_err(|problem| ResponseError::new(format_args!("the response: {problem}")))?;
    if string_in(envelope.jsonrpc).as_deref() != Some(VERSION) {
        return Err(ResponseError::new("no \"jsonrpc\":\"2.0\""));
    }
    let outcome = match (envelope.result, envelope.error) {
        (Some(result), None) => Ok(result),
        (None, Some(error)) => Err(error),
        _ => return Err(ResponseError::new("neither a result nor an error, or both")),
    };
    let id = envelope.id.map(|raw| id_in(Some(raw))).transpose().map_err(ResponseError::new)?;
    Ok(Response { id, outcome })
}

impl Response<'_> {
    pub(super) fn outcome<P: Protocol>(
        self,
        method: P::Method,
    ) -> Result<Result<P::Reply, Refusal>, ResponseError> {
        match self.outcome {
            Ok(result) => P::read_reply(method, RawText(result.get()))
                .map(Ok)
                .map_err(|problem| ResponseError::new(format_args!("{}: {problem}", P::method_name(method)))),
            Err(error) => refusal_in(error).map(Err),
        }
    }
}

fn refusal_in(error: &RawValue) -> Result<Refusal, ResponseError> {
    let error: ReceivedError<'_> =
        from_object(error.get()).map_err(|problem| ResponseError::new(format_args!("error: {problem}")))?;
    let data: ErrorData<'_> = error.data.and_then(|data| from_object(data.get()).ok()).unwrap_or_default();
    let code =
        ErrorCode::from_parts(data.code.as_deref(), error.code, data.renewal_pending, data.retry_after_ms);
    match code {
        Some(code) => Ok(Refusal::new(code, error.message)),
        None => {
            let name = data.code.unwrap_or_default();
            Err(ResponseError::new(format_args!("unknown error {} {name}: {}", error.code, error.message)))
        }
    }
}
