//! Tag-length-value, canonical form only (TBAC r41, appendix A).
//!
//! A tag is one byte. A length is one byte below 128, otherwise two bytes big-endian with the top bit set, at
//! most 0x7FFF, and always in its shortest form. Tags ascend; only a tag the caller declares repeatable may
//! stand more than once. Tags 01–7F that the caller does not know are refused, 80–FE are skipped (vendor
//! range), FF is refused.

use core::fmt;

/// The largest value a TLV length can express, in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 0x7FFF;

/// Why bytes are not canonical TLV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TlvError {
    Truncated,
    LongLength,
    Order,
    ReservedTag,
    ValueTooLong,
}

impl fmt::Display for TlvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a field ends after the data does",
            Self::LongLength => "a length is not in its shortest form",
            Self::Order => "tags do not ascend",
            Self::ReservedTag => "tag FF is reserved",
            Self::ValueTooLong => "a value is longer than 32767 bytes",
        })
    }
}

/// Appends one field.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) -> Result<(), TlvError> {
    let length = u16::try_from(value.len()).map_err(|_| TlvError::ValueTooLong)?;
    out.push(tag);
    match length {
        0..0x80 => out.push(length.to_be_bytes()[1]),
        0x80..=0x7FFF => out.extend_from_slice(&(length | 0x8000).to_be_bytes()),
        _ => return Err(TlvError::ValueTooLong),
    }
    out.extend_from_slice(value);
    Ok(())
}

/// One field as it stands in the data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
}

/// Reads fields one by one and checks that each is canonical.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// The next field in whatever order, or `None` at the end.
    pub(crate) fn next_field(&mut self) -> Result<Option<Field<'a>>, TlvError> {
        let Some((&tag, rest)) = self.rest.split_first() else { return Ok(None) };
        if tag == 0xFF {
            return Err(TlvError::ReservedTag);
        }
        let (length, rest) = read_length(rest)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(TlvError::Truncated)?;
        self.rest = rest;
        Ok(Some(Field { tag, value }))
    }
}

fn read_length(data: &[u8]) -> Result<(usize, &[u8]), TlvError> {
    match data {
        [short, rest @ ..] if *short < 0x80 => Ok((usize::from(*short), rest)),
        [high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([high & 0x7F, *low]));
            if length < 0x80 { Err(TlvError::LongLength) } else { Ok((length, rest)) }
        }
        _ => Err(TlvError::Truncated),
    }
}

/// Reads fields in strictly ascending tag order; `repeatable` may stand several times in a row.
pub(crate) struct OrderedReader<'a> {
    reader: Reader<'a>,
    last: Option<u8>,
    repeatable: Option<u8>,
}

impl<'a> OrderedReader<'a> {
    pub(crate) fn new(data: &'a [u8], repeatable: Option<u8>) -> Self {
        Self { reader: Reader::new(data), last: None, repeatable }
    }

    /// The next field outside the vendor range, or `None` at the end.
    pub(crate) fn next_field(&mut self) -> Result<Option<Field<'a>>, TlvError> {
        loop {
            let Some(field) = self.reader.next_field()? else { return Ok(None) };
            let ascends = self
                .last
                .is_none_or(|last| field.tag > last || (field.tag == last && self.repeatable == Some(last)));
            if !ascends {
                return Err(TlvError::Order);
            }
            self.last = Some(field.tag);
            if field.tag < 0x80 {
                return Ok(Some(field));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(data: &[u8]) -> Result<Vec<(u8, usize)>, TlvError> {
        let mut reader = OrderedReader::new(data, Some(5));
        let mut fields = Vec::new();
        while let Some(field) = reader.next_field()? {
            fields.push((field.tag, field.value.len()));
        }
        Ok(fields)
    }

    #[test]
    fn lengths_round_trip_at_every_boundary() {
        for length in [0, 1, 127, 128, 255, 256, MAX_VALUE_BYTES] {
            let mut out = Vec::new();
            put(&mut out, 1, &vec![7; length]).unwrap();
            assert_eq!(all(&out), Ok(vec![(1, length)]));
        }
        assert_eq!(put(&mut Vec::new(), 1, &vec![0; MAX_VALUE_BYTES + 1]), Err(TlvError::ValueTooLong));
    }

    #[test]
    fn a_length_in_two_bytes_below_128_is_refused() {
        assert_eq!(all(&[1, 0x80, 1, 7]), Err(TlvError::LongLength));
    }

    #[test]
    fn tags_must_ascend_and_only_the_repeatable_one_repeats() {
        assert_eq!(all(&[2, 0, 1, 0]), Err(TlvError::Order));
        assert_eq!(all(&[4, 0, 4, 0]), Err(TlvError::Order));
        assert_eq!(all(&[5, 0, 5, 0, 6, 0]), Ok(vec![(5, 0), (5, 0), (6, 0)]));
        assert_eq!(all(&[5, 0, 6, 0, 5, 0]), Err(TlvError::Order));
    }

    #[test]
    fn vendor_tags_are_skipped_and_ff_is_refused() {
        assert_eq!(all(&[1, 0, 0x80, 1, 9, 0xFE, 0]), Ok(vec![(1, 0)]));
        assert_eq!(all(&[1, 0, 0xFF, 0]), Err(TlvError::ReservedTag));
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut out = Vec::new();
        put(&mut out, 1, &[0; 200]).unwrap();
        for cut in 1..out.len() {
            assert_eq!(all(&out[..cut]), Err(TlvError::Truncated), "cut at {cut}");
        }
    }
}
