//! The binary form of values: what each part of a message is in the codec `bincode`, and the only module that names
//! bincode. [`codec`](crate::codec) says what it writes.
//!
//! The traits of bincode are not implemented for this crate's types: they would become part of its interface. What is
//! taken from bincode are the encodings of integers, booleans and strings and the reader with a limit. Each type's form
//! stands beside the type: its fields and variants come in the order they are declared in, and that order is the format.

use core::fmt;
use std::collections::BTreeMap;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::read::{Reader, SliceReader};
use bincode::de::{BorrowDecode, Decode, Decoder, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::{DecodeError as BincodeDecodeError, EncodeError as BincodeEncodeError};
use obol_token::ValueError;

use crate::frame::{EncodeError, FrameWriter, MAX_BODY_BYTES};

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
    pub(crate) fn new(frame: &'frame mut FrameWriter) -> Self {
        Self(EncoderImpl::new(frame, config()))
    }

    pub(crate) fn plain(&mut self, value: &(impl Encode + ?Sized)) -> Result<(), EncodeError> {
        value.encode(&mut self.0).map_err(|_| EncodeError::TooLong)
    }
}

/// Where a message is read from.
#[expect(missing_debug_implementations, reason = "out of reach for other crates")]
pub struct Input<'body>(DecoderImpl<SliceReader<'body>, Config, ()>);

impl<'body> Input<'body> {
    pub(crate) fn new(body: &'body [u8]) -> Self {
        Self(DecoderImpl::new(SliceReader::new(body), config(), ()))
    }

    pub(crate) fn plain<T: Decode<()>>(&mut self) -> Result<T, BinaryError> {
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

    pub(crate) fn bytes(&mut self) -> Result<&'body [u8], BinaryError> {
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

    /// Whether the body ends here.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.0.reader().peek_read(1).is_none()
    }

    pub(crate) fn finish(mut self) -> Result<(), BinaryError> {
        match self.is_at_end() {
            true => Ok(()),
            false => Err(BinaryError::Other("there are bytes after its end".to_owned())),
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
    pub(crate) fn in_field(self, name: &str) -> Self {
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
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the frame would be too long.
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError>;

    /// Reads it, checking its rule.
    ///
    /// # Errors
    ///
    /// [`BinaryError`] if the bytes end too soon, or break the value's rule.
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

impl Binary for i64 {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.plain()
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

/// What is not a variant of an enum.
pub(crate) fn unknown_variant<T>(what: &str, number: u32) -> Result<T, BinaryError> {
    Err(BinaryError::Other(format!("{number} is no {what}")))
}

/// Texts with a rule: as a string.
macro_rules! binary_text {
    ($($type:ty)+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                output.plain(self.as_str())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::new(String::take(input)?)?)
            }
        }
    )+};
}
pub(crate) use binary_text;

/// Structs: their fields, one behind the other.
macro_rules! binary_struct {
    ($($type:ident { $($field:ident),* })+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                let Self { $($field),* } = self;
                let _ = &output;
                $( $field.put(output)?; )*
                Ok(())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                let _ = &input;
                Ok(Self {
                    $( $field: Binary::take(input).map_err(|error| error.in_field(stringify!($field)))?, )*
                })
            }
        }
    )+};
}
pub(crate) use binary_struct;

/// Enums without fields: each variant is its number.
macro_rules! binary_enum {
    ($($type:ident $what:literal { $($variant:ident = $number:literal),* })+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                let number: u32 = match self { $( Self::$variant => $number, )* };
                number.put(output)
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                match u32::take(input)? {
                    $( $number => Ok(Self::$variant), )*
                    other => $crate::binary::unknown_variant($what, other),
                }
            }
        }
    )+};
}
pub(crate) use binary_enum;
