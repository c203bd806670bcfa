//! Frames without I/O: a `u32` big-endian length, then that many bytes of body, 1 to 65,536.
//!
//! A frame's body can hold a token or session keys. So every buffer here is wiped: a popped [`Body`] when it is
//! dropped, an [`EncodedFrame`] when it is dropped, and a buffer that has to grow before its old memory is freed.

use core::fmt;
use core::ops::Deref;
use std::io;

use obol_secret::wipe::{Wiped, wipe};

/// Bytes in the length that precedes every body.
pub const HEADER_BYTES: usize = 4;
/// Longest body, in bytes.
pub const MAX_BODY_BYTES: usize = 65_536;
/// Most that a [`FrameDecoder`] ever holds: one frame of the longest kind.
const MAX_BUFFERED_BYTES: usize = HEADER_BYTES + MAX_BODY_BYTES;
/// First size of a decoder's buffer, in bytes: dozens of ordinary requests, or several tokens.
const FIRST_BUFFER_BYTES: usize = 4_096;

/// A length that no frame may have. The stream cannot be read any further: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame declares a body of no bytes.
    ZeroLength,
    /// The frame declares a body longer than [`MAX_BODY_BYTES`].
    TooLong {
        /// The declared length, in bytes.
        declared: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroLength => f.write_str("a frame declares an empty body; a body has 1 to 65536 bytes"),
            Self::TooLong { declared } => {
                write!(f, "a frame declares a body of {declared} bytes; a body has 1 to 65536 bytes")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// A message that cannot become a frame. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is nothing to send.
    Empty,
    /// The body would be longer than [`MAX_BODY_BYTES`].
    TooLong,
    /// The codec cannot express the message.
    Inexpressible,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the message is empty; a frame needs at least 1 byte of body",
            Self::TooLong => {
                "the message is longer than the 65536 bytes a frame can hold; send less in one message"
            }
            Self::Inexpressible => "the codec cannot express the message",
        })
    }
}

impl core::error::Error for EncodeError {}

/// Puts a body behind its length.
///
/// # Errors
///
/// [`EncodeError::Empty`] or [`EncodeError::TooLong`] when the body's length is not 1 to [`MAX_BODY_BYTES`].
pub fn encode(body: &[u8]) -> Result<EncodedFrame, EncodeError> {
    let mut frame = Frames::with_capacity(HEADER_BYTES + body.len().min(MAX_BODY_BYTES));
    frame.write(|writer| writer.append(body))?;
    Ok(EncodedFrame(frame))
}

/// A frame ready to be written, header and body in one buffer. Wiped when dropped.
pub struct EncodedFrame(Frames);

impl EncodedFrame {
    /// Writes one frame's body.
    pub(crate) fn write(
        body: impl FnOnce(&mut FrameWriter) -> Result<(), EncodeError>,
    ) -> Result<Self, EncodeError> {
        let mut frame = Frames::new();
        frame.write(body)?;
        Ok(Self(frame))
    }

    /// Header and body, to be written in one go.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The body alone.
    pub fn body(&self) -> &[u8] {
        self.as_bytes().get(HEADER_BYTES..).unwrap_or_default()
    }
}

impl fmt::Debug for EncodedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedFrame({} bytes)", self.as_bytes().len())
    }
}

/// Frames one behind the other, to be written in one go. Wiped when cleared or dropped.
///
/// It grows as frames are put in; whoever puts them in bounds it by writing it out in time.
#[derive(Default)]
pub struct Frames(FrameWriter);

impl Frames {
    /// None yet. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_capacity(bytes: usize) -> Self {
        Self(FrameWriter { bytes: Wiped::new(Vec::with_capacity(bytes)), start: 0, overflowed: false })
    }

    /// All frames, headers included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Puts a frame behind the others.
    pub fn push(&mut self, frame: &EncodedFrame) {
        self.0.bytes.append(frame.as_bytes());
    }

    /// Takes all frames out and wipes them. The memory is kept for the next.
    pub fn clear(&mut self) {
        self.0.bytes.truncate(0);
    }

    /// Writes one frame's body behind the frames there are. If that fails, they stay as they were.
    pub(crate) fn write(
        &mut self,
        body: impl FnOnce(&mut FrameWriter) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.0.begin();
        let written = body(&mut self.0).and_then(|()| self.0.end());
        if written.is_err() {
            self.0.bytes.truncate(self.0.start);
        }
        written
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} bytes)", self.as_bytes().len())
    }
}

/// Collects a frame piece by piece behind a place for its header, refusing to grow past [`MAX_BODY_BYTES`].
#[derive(Default)]
pub(crate) struct FrameWriter {
    bytes: Wiped,
    /// Where the frame that is being written begins.
    start: usize,
    overflowed: bool,
}

impl FrameWriter {
    fn begin(&mut self) {
        (self.start, self.overflowed) = (self.bytes.len(), false);
        self.bytes.append(&[0; HEADER_BYTES]);
    }

    pub(crate) fn append(&mut self, piece: &[u8]) -> Result<(), EncodeError> {
        let needed = (self.bytes.len() - self.start).saturating_add(piece.len());
        if self.overflowed || needed > MAX_BUFFERED_BYTES {
            self.overflowed = true;
            return Err(EncodeError::TooLong);
        }
        self.bytes.append(piece);
        Ok(())
    }

    fn end(&mut self) -> Result<(), EncodeError> {
        if self.overflowed {
            return Err(EncodeError::TooLong);
        }
        let length = self.bytes.len() - self.start - HEADER_BYTES;
        let length = u32::try_from(length).map_err(|_| EncodeError::TooLong)?;
        if length == 0 {
            return Err(EncodeError::Empty);
        }
        let frame =
            self.bytes.get_mut(self.start..).and_then(|frame| frame.first_chunk_mut::<HEADER_BYTES>());
        if let Some(header) = frame {
            *header = length.to_be_bytes();
        }
        Ok(())
    }
}

impl io::Write for FrameWriter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.append(piece).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of one received frame, inside its decoder's buffer. Wiped there when dropped.
pub struct Body<'decoder>(&'decoder mut [u8]);

impl Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        wipe(self.0);
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// Cuts a byte stream into frames.
///
/// Feed it with [`push`](Self::push), or read straight into [`spare`](Self::spare) and report with
/// [`filled`](Self::filled); then [`pop`](Self::pop) until `None`. What it holds grows with what has arrived, never
/// with what a header declares, and never past one frame of the longest kind.
pub struct FrameDecoder {
    buffer: Wiped,
    /// Bytes before `start` have been popped, bytes from `end` on are free.
    start: usize,
    end: usize,
    /// Whether the last bytes that came filled the buffer: there may be many more.
    was_full: bool,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream. Allocates nothing yet.
    pub fn new() -> Self {
        Self { buffer: Wiped::default(), start: 0, end: 0, was_full: false, failed: None }
    }

    /// Takes over as many of `bytes` as there is room for, and says how many.
    ///
    /// It takes fewer than all only when a frame can be popped, or [`pop`](Self::pop) fails: pop, then push the rest.
    #[must_use = "what did not fit has to be pushed again after popping"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let spare = self.spare();
            let count = spare.len().min(rest.len());
            if count == 0 {
                break;
            }
            if let (Some(to), Some(from)) = (spare.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            self.filled(count);
            taken += count;
        }
        taken
    }

    /// Room for more bytes of the stream. Empty only when a frame can be popped, or [`pop`](Self::pop) fails.
    pub fn spare(&mut self) -> &mut [u8] {
        self.compact();
        let full = self.end == self.buffer.len();
        if (full || self.was_full) && self.buffer.len() < MAX_BUFFERED_BYTES {
            let larger = (self.buffer.len() * 2).clamp(FIRST_BUFFER_BYTES, MAX_BUFFERED_BYTES);
            let mut buffer = Vec::with_capacity(larger);
            buffer.extend_from_slice(self.buffer.get(..self.end).unwrap_or_default());
            buffer.resize(larger, 0);
            self.buffer = Wiped::new(buffer);
        }
        self.was_full = false;
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that the first `count` bytes of [`spare`](Self::spare) now hold the next bytes of the stream.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
        self.was_full = self.end == self.buffer.len();
    }

    /// The next complete frame's body, or `None` until more bytes have arrived.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as a header with a forbidden length has arrived, and at every later call: there is no
    /// telling where the next frame would begin.
    pub fn pop(&mut self) -> Result<Option<Body<'_>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(header) = self.buffer.get(self.start..self.end).and_then(|held| held.first_chunk()) else {
            return Ok(None);
        };
        let length = match declared_length(*header) {
            Ok(length) => length,
            Err(error) => {
                self.failed = Some(error);
                return Err(error);
            }
        };
        let (from, to) = (self.start + HEADER_BYTES, self.start + HEADER_BYTES + length);
        if to > self.end {
            return Ok(None);
        }
        self.start = to;
        Ok(self.buffer.get_mut(from..to).map(Body))
    }

    /// Whether the stream stands between two frames. If it ends where this is false, it was cut off.
    pub fn is_between_frames(&self) -> bool {
        self.start == self.end
    }

    /// Moves what has not been popped to the front, and wipes where it was.
    fn compact(&mut self) {
        if self.start == 0 {
            return;
        }
        let held = self.end - self.start;
        if held > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            // What lies before has been popped, and was wiped then.
            if let Some(stale) = self.buffer.get_mut(self.start.max(held)..self.end) {
                wipe(stale);
            }
        }
        (self.start, self.end) = (0, held);
    }
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("buffered_bytes", &(self.end - self.start))
            .field("failed", &self.failed)
            .finish()
    }
}

fn declared_length(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let declared = u32::from_be_bytes(header);
    match usize::try_from(declared) {
        Ok(0) => Err(FrameError::ZeroLength),
        Ok(length) if length <= MAX_BODY_BYTES => Ok(length),
        _ => Err(FrameError::TooLong { declared }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes `pieces` one after the other and pops everything there is after each.
    fn decode_all(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut decoder = FrameDecoder::new();
        let mut bodies = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let taken = decoder.push(rest);
                rest = &rest[taken..];
                while let Some(body) = decoder.pop()? {
                    bodies.push(body.to_vec());
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        Ok(bodies)
    }

    #[test]
    fn frames_survive_every_split_of_the_stream() {
        let mut stream = Vec::new();
        for body in [&b"a"[..], b"four", b"a body of some length"] {
            stream.extend_from_slice(encode(body).unwrap().as_bytes());
        }
        let whole = decode_all(&[&stream]).unwrap();
        assert_eq!(whole, [&b"a"[..], b"four", b"a body of some length"]);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(decode_all(&pieces).unwrap(), whole, "split at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode_all(&bytes).unwrap(), whole);
    }

    #[test]
    fn the_longest_body_passes_in_any_chunking() {
        let body = vec![7; MAX_BODY_BYTES];
        let frame = encode(&body).unwrap();
        for size in [1_000, 4_096, 65_539, 65_540] {
            let pieces: Vec<&[u8]> = frame.as_bytes().chunks(size).collect();
            assert_eq!(decode_all(&pieces).unwrap(), [&body[..]]);
        }
    }

    #[test]
    fn a_forbidden_length_is_an_error_as_soon_as_the_header_is_there_and_stays_one() {
        for (declared, expected) in [
            (0, FrameError::ZeroLength),
            (65_537, FrameError::TooLong { declared: 65_537 }),
            (u32::MAX, FrameError::TooLong { declared: u32::MAX }),
        ] {
            let mut decoder = FrameDecoder::new();
            let header = declared.to_be_bytes();
            assert_eq!(decoder.push(&header[..3]), 3);
            assert!(decoder.pop().unwrap().is_none());
            assert_eq!(decoder.push(&header[3..]), 1);
            assert_eq!(decoder.pop().unwrap_err(), expected);
            let _ = decoder.push(encode(b"valid").unwrap().as_bytes());
            assert_eq!(decoder.pop().unwrap_err(), expected);
        }
    }

    #[test]
    fn a_declared_length_allocates_nothing() {
        for declared in [65_536_u32, 65_537, u32::MAX] {
            let mut decoder = FrameDecoder::new();
            assert_eq!(decoder.push(&declared.to_be_bytes()), HEADER_BYTES);
            let _ = decoder.pop().map(|_| ());
            assert_eq!(decoder.buffer.len(), FIRST_BUFFER_BYTES);
        }
    }

    #[test]
    fn a_decoder_that_is_never_popped_stops_taking_bytes() {
        let mut decoder = FrameDecoder::new();
        let flood = vec![1; 3 * MAX_BUFFERED_BYTES];
        assert_eq!(decoder.push(&flood), MAX_BUFFERED_BYTES);
        assert_eq!(decoder.push(&flood), 0);
        assert_eq!(decoder.buffer.len(), MAX_BUFFERED_BYTES);
    }

    #[test]
    fn encoding_refuses_what_decoding_would() {
        assert_eq!(encode(b"").unwrap_err(), EncodeError::Empty);
        assert_eq!(encode(&vec![0; MAX_BODY_BYTES + 1]).unwrap_err(), EncodeError::TooLong);
    }

    #[test]
    fn a_popped_body_is_wiped_from_the_buffer() {
        let mut decoder = FrameDecoder::new();
        let _ = decoder.push(encode(b"secret").unwrap().as_bytes());
        let _ = decoder.push(encode(b"kept").unwrap().as_bytes());
        assert_eq!(&*decoder.pop().unwrap().unwrap(), b"secret");
        assert!(!decoder.buffer.windows(6).any(|window| window == b"secret"));
        assert_eq!(&*decoder.pop().unwrap().unwrap(), b"kept");
        assert!(decoder.is_between_frames());
    }

    #[test]
    fn a_moved_rest_leaves_no_copy_behind() {
        let mut decoder = FrameDecoder::new();
        let frame = encode(b"secret").unwrap();
        let _ = decoder.push(encode(b"first, longer than what follows").unwrap().as_bytes());
        let _ = decoder.push(&frame.as_bytes()[..9]);
        drop(decoder.pop().unwrap().unwrap());
        let _ = decoder.push(&frame.as_bytes()[9..]);
        drop(decoder.pop().unwrap().unwrap());
        assert!(!decoder.buffer.windows(5).any(|window| window == b"secre"));
    }

    #[test]
    fn a_cut_off_frame_is_noticed_at_the_end_of_the_stream() {
        let mut decoder = FrameDecoder::new();
        let _ = decoder.push(&encode(b"cut").unwrap().as_bytes()[..6]);
        assert!(decoder.pop().unwrap().is_none());
        assert!(!decoder.is_between_frames());
    }

    #[test]
    fn reporting_more_than_there_was_room_for_is_harmless() {
        let mut decoder = FrameDecoder::new();
        let _ = decoder.spare();
        decoder.filled(usize::MAX);
        assert_eq!(decoder.pop().unwrap_err(), FrameError::ZeroLength);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_outgrows_the_bound(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..40)
        ) {
            let mut decoder = FrameDecoder::new();
            'stream: for piece in &pieces {
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let taken = decoder.push(rest);
                    rest = &rest[taken..];
                    loop {
                        match decoder.pop() {
                            Ok(Some(body)) => prop_assert!(!body.is_empty()),
                            Ok(None) => break,
                            Err(_) => break 'stream,
                        }
                    }
                }
                prop_assert!(decoder.buffer.len() <= MAX_BUFFERED_BYTES);
            }
        }
    }
}
