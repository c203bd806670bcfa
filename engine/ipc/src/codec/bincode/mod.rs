//! The binary codec, and the only module that names bincode. Its parent says what it writes.
//!
//! The traits of bincode are not implemented for this crate's types: they would become part of its interface. What is
//! taken from bincode are the encodings of integers, booleans and strings and the reader with a limit.

use std::collections::BTreeMap;
use std::fmt;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::read::{Reader, SliceReader};
use bincode::de::{BorrowDecode, Decode, Decoder, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::{DecodeError as BincodeDecodeError, EncodeError as BincodeEncodeError};

use super::{RejectedRequest, Request, RequestId, ResponseError};
use crate::frame::{EncodeError, FrameWriter, MAX_BODY_BYTES};
use crate::protocol::Protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter, Part};
use crate::refusal::{ErrorCode, Refusal};
use crate::value::ValueError;

mod parts;
#[cfg(test)]
mod tests;

/// How far one body may make bincode read, and so how much a declared length may allocate at once. bincode charges an
/// integer at its width in memory before it reads it, so the last one of a full body needs this much more.
const READ_LIMIT_BYTES: usize = MAX_BODY_BYTES + size_of::<u64>();

type Config = Configuration<LittleEndian, Varint, Limit<READ_LIMIT_BYTES>>;

const fn config() -> Config {
    bincode::config::standard().with_limit::<READ_LIMIT_BYTES>()
}

impl Writer for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BincodeEncodeError> {
        self.append(bytes).map_err(|_| BincodeEncodeError::UnexpectedEnd)
    }
}

/// Where a message is written to. The only way it fails is that the frame is full.
#[expect(missing_debug_implementations, reason = "out of reach for other crates")]
pub struct Output<'frame>(EncoderImpl<&'frame mut FrameWriter, Config>);

impl<'frame> Output<'frame> {
    fn new(frame: &'frame mut FrameWriter) -> Self {
        Self(EncoderImpl::new(frame, config()))
    }

    fn plain(&mut self, value: &(impl Encode + ?Sized)) -> Result<(), EncodeError> {
        value.encode(&mut self.0).map_err(|_| EncodeError::TooLong)
    }
}

/// Where a message is read from.
#[expect(missing_debug_implementations, reason = "out of reach for other crates")]
pub struct Input<'body>(DecoderImpl<SliceReader<'body>, Config, ()>);

impl<'body> Input<'body> {
    fn new(body: &'body [u8]) -> Self {
        Self(DecoderImpl::new(SliceReader::new(body), config(), ()))
    }

    fn plain<T: Decode<()>>(&mut self) -> Result<T, BinaryError> {
        Ok(T::decode(&mut self.0)?)
    }

    fn u64(&mut self) -> Result<u64, BinaryError> {
        let number = self.plain::<u64>()?;
        // It was charged at 8 bytes and takes at least 1; without this, many small numbers would exceed the limit.
        self.0.unclaim_bytes_read(size_of::<u64>() - 1);
        Ok(number)
    }

    fn u32(&mut self) -> Result<u32, BinaryError> {
        let number = self.plain::<u32>()?;
        self.0.unclaim_bytes_read(size_of::<u32>() - 1);
        Ok(number)
    }

    fn bytes(&mut self) -> Result<&'body [u8], BinaryError> {
        let bytes = <&[u8]>::borrow_decode(&mut self.0)?;
        self.0.unclaim_bytes_read(size_of::<u64>() - 1);
        Ok(bytes)
    }

    fn string(&mut self) -> Result<String, BinaryError> {
        // Borrowed from the body first: bincode's own strings come in memory that was zeroed for them.
        let text = <&str>::borrow_decode(&mut self.0)?.to_owned();
        self.0.unclaim_bytes_read(size_of::<u64>() - 1);
        Ok(text)
    }

    fn finish(mut self) -> Result<(), BinaryError> {
        match self.0.reader().peek_read(1) {
            Some(_) => Err(BinaryError::Other("there are bytes after its end".to_owned())),
            None => Ok(()),
        }
    }
}

/// Why a body does not decode.
#[derive(Debug)]
pub enum BinaryError {
    /// A value breaks its rule. It names itself.
    Value(ValueError),
    /// Anything else.
    Other(String),
}

impl BinaryError {
    fn in_field(self, name: &str) -> Self {
        match self {
            Self::Value(_) => self,
            Self::Other(problem) => Self::Other(format!("{name}: {problem}")),
        }
    }
}

impl From<BincodeDecodeError> for BinaryError {
    fn from(error: BincodeDecodeError) -> Self {
        Self::Other(match error {
            BincodeDecodeError::UnexpectedEnd { .. } => "the body ends too early".to_owned(),
            BincodeDecodeError::LimitExceeded => "it declares more than a body can hold".to_owned(),
            other => format!("not what the codec expects here ({other:?})"),
        })
    }
}

impl From<ValueError> for BinaryError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl fmt::Display for BinaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(error) => error.fmt(f),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

/// Something with a binary form.
pub trait Binary: Sized {
    /// Writes it.
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError>;

    /// Reads it, checking its rule.
    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError>;
}

impl Binary for u64 {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.u64()
    }
}

impl Binary for u32 {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.u32()
    }
}

impl Binary for bool {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.plain()
    }
}

impl Binary for String {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.string()
    }
}

impl<T: Binary> Binary for Option<T> {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(&u8::from(self.is_some()))?;
        self.as_ref().map_or(Ok(()), |value| value.put(output))
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match input.plain::<u8>()? {
            0 => Ok(None),
            1 => T::take(input).map(Some),
            other => Err(BinaryError::Other(format!("{other} where 0 (absent) or 1 (present) is expected"))),
        }
    }
}

fn put_length(length: usize, output: &mut Output<'_>) -> Result<(), EncodeError> {
    u64::try_from(length).map_err(|_| EncodeError::TooLong)?.put(output)
}

impl<T: Binary> Binary for Vec<T> {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        put_length(self.len(), output)?;
        self.iter().try_for_each(|item| item.put(output))
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        // Grows with what is there, not with what is declared; an item takes at least 1 byte.
        (0..input.u64()?).map(|_| T::take(input)).collect()
    }
}

impl<K: Binary + Ord, V: Binary> Binary for BTreeMap<K, V> {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        put_length(self.len(), output)?;
        self.iter().try_for_each(|(key, value)| key.put(output).and_then(|()| value.put(output)))
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        (0..input.u64()?).map(|_| Ok((K::take(input)?, V::take(input)?))).collect()
    }
}

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
    let number = match input.u32() {
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
        match self.rest.u32().map_err(ResponseError::new)? {
            OK => self.reply::<P>(method).map(Ok),
            ERR => self.rest.read_refusal().map(Err).map_err(ResponseError::new),
            other => Err(ResponseError::new(format_args!("outcome {other}"))),
        }
    }

    fn reply<P: Protocol>(mut self, method: P::Method) -> Result<P::Reply, ResponseError> {
        let number = self.rest.u32().map_err(ResponseError::new)?;
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
