//! Messages in the codec `bincode`: ids, methods and outcomes around the [binary form](crate::binary) of values. Its parent
//! says what it writes.

use super::{MAX_REQUEST_ID_BYTES, RejectedRequest, Request, RequestId, ResponseError};
use crate::binary::{Binary, BinaryError, Input, Output, unknown_variant};
use crate::frame::{EncodeError, FrameWriter};
use crate::protocol::Protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter, Part};
use crate::refusal::{ErrorCode, Refusal};

#[cfg(test)]
mod tests;

/// A variant's number, as bincode writes it. `None` for a method this protocol does not have.
fn number_of<T: PartialEq>(variant: &T, variants: &[T]) -> Option<u32> {
    variants.iter().position(|other| other == variant).and_then(|place| u32::try_from(place).ok())
}

fn numbered<T: Copy>(number: u32, variants: &[T]) -> Option<T> {
    usize::try_from(number).ok().and_then(|place| variants.get(place).copied())
}

fn put_method<P: Protocol>(method: P::Method, output: &mut Output<'_>) -> Result<(), EncodeError> {
    number_of(&method, P::METHODS).ok_or(EncodeError::Inexpressible)?.put(output)
}

impl BodyWriter for &mut Output<'_> {
    type Error = EncodeError;

    fn write<T: Part>(self, part: &T) -> Result<(), EncodeError> {
        part.put(self)
    }
}

/// Reads the last part of a body.
impl BodyReader for Input<'_> {
    type Error = BinaryError;

    fn read<T: Part>(mut self) -> Result<T, BinaryError> {
        let part = T::take(&mut self)?;
        self.finish()?;
        Ok(part)
    }
}

pub(super) fn write_request<P: Protocol>(
    frame: &mut FrameWriter,
    id: &RequestId,
    request: &P::Request,
) -> Result<(), EncodeError> {
    let mut output = Output::new(frame);
    id.put(&mut output)?;
    put_method::<P>(P::method_of(request), &mut output)?;
    P::write_request(request, &mut output)
}

pub(super) fn decode_request<P: Protocol>(body: &[u8]) -> Result<Request<P>, RejectedRequest> {
    let mut input = Input::new(body);
    let id = RequestId::take(&mut input).map_err(|problem| {
        let message =
            format!("the body does not begin with a request id: {problem}; check the codec agreed on");
        RejectedRequest::new(None, ErrorCode::ParseError, message)
    })?;
    let number = match u32::take(&mut input) {
        Ok(number) => number,
        Err(problem) => {
            let message = format!("the request id is not followed by a method: {problem}");
            return Err(RejectedRequest::new(Some(id), ErrorCode::InvalidRequest, message));
        }
    };
    let Some(method) = numbered(number, P::METHODS) else {
        return Err(RejectedRequest::unknown_method::<P>(id, format_args!("number {number}")));
    };
    match P::read_request(method, input) {
        Ok(call) => Ok(Request { id, call }),
        Err(problem) => Err(RejectedRequest::invalid_params::<P>(id, method, problem)),
    }
}

/// The variants of `Result` on the wire.
const OK: u32 = 0;
const ERR: u32 = 1;

pub(super) fn write_response<P: Protocol>(
    frame: &mut FrameWriter,
    id: Option<&RequestId>,
    outcome: Result<&P::Reply, &Refusal>,
) -> Result<(), EncodeError> {
    let mut output = Output::new(frame);
    output.plain(&u8::from(id.is_some()))?;
    id.map_or(Ok(()), |id| id.put(&mut output))?;
    match outcome {
        Ok(reply) => {
            OK.put(&mut output)?;
            put_method::<P>(P::method_of_reply(reply), &mut output)?;
            P::write_reply(reply, &mut output)
        }
        Err(refusal) => {
            ERR.put(&mut output)?;
            refusal.put(&mut output)
        }
    }
}

/// A response whose id has been read.
pub(super) struct Response<'body> {
    pub(super) id: Option<RequestId>,
    rest: Input<'body>,
}

pub(super) fn decode_response(body: &[u8]) -> Result<Response<'_>, ResponseError> {
    let mut rest = Input::new(body);
    let id = <Option<RequestId> as Binary>::take(&mut rest).map_err(ResponseError::new)?;
    Ok(Response { id, rest })
}

impl Response<'_> {
    pub(super) fn outcome<P: Protocol>(
        mut self,
        method: P::Method,
    ) -> Result<Result<P::Reply, Refusal>, ResponseError> {
        match u32::take(&mut self.rest).map_err(ResponseError::new)? {
            OK => self.reply::<P>(method).map(Ok),
            ERR => self.rest.read_refusal().map(Err).map_err(ResponseError::new),
            other => Err(ResponseError::new(format_args!("outcome {other}"))),
        }
    }

    fn reply<P: Protocol>(mut self, method: P::Method) -> Result<P::Reply, ResponseError> {
        let number = u32::take(&mut self.rest).map_err(ResponseError::new)?;
        let name = P::method_name(method);
        if numbered(number, P::METHODS) != Some(method) {
            return Err(ResponseError::new(format_args!("{name} was asked, method {number} was answered")));
        }
        P::read_reply(method, self.rest)
            .map_err(|problem| ResponseError::new(format_args!("{name}: {problem}")))
    }
}

impl Input<'_> {
    fn read_refusal(mut self) -> Result<Refusal, BinaryError> {
        let refusal = Refusal::take(&mut self)?;
        self.finish()?;
        Ok(refusal)
    }
}

impl Binary for RequestId {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Number(number) => 0_u32.put(output).and_then(|()| number.put(output)),
            Self::Text(text) => 1_u32.put(output).and_then(|()| output.plain(text.as_str())),
            Self::Digits(_) => Err(EncodeError::Inexpressible),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match u32::take(input)? {
            0 => u64::take(input).map(Self::Number),
            1 => Self::text(String::take(input)?).ok_or_else(|| {
                BinaryError::Other(format!("an id that is a string has at most {MAX_REQUEST_ID_BYTES} bytes"))
            }),
            other => unknown_variant("kind of request id", other),
        }
    }
}
