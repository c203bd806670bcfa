//! Messages after the handshake: sealed under one key for each direction, numbered from 0.
//!
//! An *answer* is several such messages, each with its length in front. The first byte inside each says whether it is
//! the last, so an answer that was cut is not taken for a whole one.

use core::fmt;

use obol_token::Suite;
use zeroize::Zeroizing;

use crate::pattern::TAG_BYTES;
use crate::symmetric;

/// How many messages one key seals: 2^32. Far below what either algorithm allows for messages of 64 KiB.
const MAX_TRANSPORT_MESSAGES: u64 = 1 << 32;

/// The longest message of an answer, tag included: what its length in 16 bits can say.
const MAX_PIECE_BYTES: usize = 65_535;
const LAST: u8 = 1;
const MORE: u8 = 0;

/// Why a message could not be sealed or opened. After any of these the connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// The key has sealed 2^32 messages.
    Exhausted,
    /// The tag does not hold: forged, changed, repeated, out of order, or for somebody else.
    Tag,
    /// An answer ends before its last message, goes on behind it, or is longer than was asked for.
    Framing,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "the connection's key is used up; connect again",
            Self::Tag => "a message does not belong to this connection",
            Self::Framing => "an answer was cut, goes on behind its end, or is too long",
        })
    }
}

impl core::error::Error for TransportError {}

struct Half {
    suite: Suite,
    key: Zeroizing<[u8; 32]>,
    next: u64,
}

impl Half {
    /// The number of the next message. It is used up even if the message fails.
    fn take(&mut self) -> Result<u64, TransportError> {
        let nonce = self.next;
        if nonce >= MAX_TRANSPORT_MESSAGES {
            return Err(TransportError::Exhausted);
        }
        self.next += 1;
        Ok(nonce)
    }
}

/// Seals what one side sends, message by message.
pub struct Sealer(Half);

/// Opens what one side receives, in the order in which it was sealed. After a message that does not open, none does.
pub struct Opener(Half);

impl Sealer {
    pub(crate) fn new(suite: Suite, key: Zeroizing<[u8; 32]>) -> Self {
        Self(Half { suite, key, next: 0 })
    }

    /// Ciphertext and tag of the next message.
    ///
    /// # Errors
    ///
    /// If the key is used up.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, TransportError> {
        let nonce = self.0.take()?;
        symmetric::seal(self.0.suite, &self.0.key, nonce, &[], plain).map_err(|_| TransportError::Framing)
    }

    /// The same, with its number: for messages that may be lost on their way, each of which says its own.
    ///
    /// # Errors
    ///
    /// If the key is used up.
    pub fn seal_numbered(&mut self, plain: &[u8]) -> Result<(u64, Vec<u8>), TransportError> {
        let number = self.0.next;
        Ok((number, self.seal(plain)?))
    }
}

impl Opener {
    pub(crate) fn new(suite: Suite, key: Zeroizing<[u8; 32]>) -> Self {
        Self(Half { suite, key, next: 0 })
    }

    /// The plaintext of the next message.
    ///
    /// # Errors
    ///
    /// If it is not the next one that the peer sealed. Nothing opens after that.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        let nonce = self.0.take()?;
        symmetric::open(self.0.suite, &self.0.key, nonce, &[], sealed).map_err(|_| {
            self.0.next = MAX_TRANSPORT_MESSAGES;
            TransportError::Tag
        })
    }

    /// The plaintext of the message with this number. Numbers rise: what was left out was lost, and never opens any more.
    ///
    /// # Errors
    ///
    /// If the peer did not seal it under this number, or one with the same or a higher number was opened before. The others
    /// open as ever: what a stranger sends in between changes nothing.
    pub fn open_numbered(
        &mut self,
        number: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        if number < self.0.next {
            return Err(TransportError::Tag);
        }
        if number >= MAX_TRANSPORT_MESSAGES {
            return Err(TransportError::Exhausted);
        }
        let plain = symmetric::open(self.0.suite, &self.0.key, number, &[], sealed)
            .map_err(|_| TransportError::Tag)?;
        self.0.next = number + 1;
        Ok(plain)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer {{ next: {}, key: [redacted] }}", self.0.next)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener {{ next: {}, key: [redacted] }}", self.0.next)
    }
}

/// Seals an answer of any length: messages of `u16 BE length ‖ ciphertext`, one behind the other.
///
/// # Errors
///
/// If the key is used up.
pub fn seal_answer(sealer: &mut Sealer, answer: &[u8]) -> Result<Vec<u8>, TransportError> {
    const ROOM: usize = MAX_PIECE_BYTES - TAG_BYTES - 1;
    let mut out = Vec::with_capacity(answer.len() + 64);
    let mut rest = answer;
    loop {
        let (piece, behind) = rest.split_at_checked(ROOM).unwrap_or((rest, &[]));
        let mark = if behind.is_empty() { LAST } else { MORE };
        let mut plain = Zeroizing::new(Vec::with_capacity(piece.len() + 1));
        plain.push(mark);
        plain.extend_from_slice(piece);
        let sealed = sealer.seal(&plain)?;
        let length = u16::try_from(sealed.len()).map_err(|_| TransportError::Framing)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&sealed);
        if mark == LAST {
            return Ok(out);
        }
        rest = behind;
    }
}

/// Opens an answer of at most `max_bytes`.
///
/// # Errors
///
/// If a message of it does not open, it was cut, something stands behind it, or it is longer than `max_bytes`.
pub fn open_answer(
    opener: &mut Opener,
    sealed: &[u8],
    max_bytes: usize,
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let mut answer = Zeroizing::new(Vec::with_capacity(sealed.len().min(max_bytes)));
    let mut rest = sealed;
    loop {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or(TransportError::Framing)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, behind) = behind.split_at_checked(length).ok_or(TransportError::Framing)?;
        let plain = opener.open(message)?;
        let (mark, piece) = plain.split_first().ok_or(TransportError::Framing)?;
        if answer.len() + piece.len() > max_bytes {
            return Err(TransportError::Framing);
        }
        answer.extend_from_slice(piece);
        match *mark {
            LAST if behind.is_empty() => return Ok(answer),
            MORE => rest = behind,
            _ => return Err(TransportError::Framing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(suite: Suite) -> (Sealer, Opener) {
        let key = || Zeroizing::new([7; 32]);
        (Sealer::new(suite, key()), Opener::new(suite, key()))
    }

    #[test]
    fn answers_of_every_length_come_back() {
        for suite in [Suite::AesGcm, Suite::ChaCha20Poly1305] {
            for length in [0, 1, 65_517, 65_518, 65_519, 200_000] {
                let (mut sealer, mut opener) = pair(suite);
                let answer = vec![5; length];
                let sealed = seal_answer(&mut sealer, &answer).unwrap();
                assert_eq!(*open_answer(&mut opener, &sealed, length).unwrap(), answer);
            }
        }
    }

    #[test]
    fn answers_that_are_cut_continued_or_too_long_are_refused() {
        let (mut sealer, _) = pair(Suite::AesGcm);
        let sealed = seal_answer(&mut sealer, &vec![5; 100_000]).unwrap();
        let opened = |bytes: &[u8], max| open_answer(&mut pair(Suite::AesGcm).1, bytes, max);
        assert_eq!(opened(&sealed, 99_999).unwrap_err(), TransportError::Framing);
        for cut in [0, 1, 2, 3, 65_537, sealed.len() - 1] {
            assert_eq!(opened(&sealed[..cut], 100_000).unwrap_err(), TransportError::Framing, "{cut}");
        }
        let more = [&sealed[..], &[0]].concat();
        assert_eq!(opened(&more, 100_000).unwrap_err(), TransportError::Framing);
    }

    #[test]
    fn a_message_opens_once_and_in_its_place() {
        let (mut sealer, mut opener) = pair(Suite::AesGcm);
        let (one, two) = (sealer.seal(b"one").unwrap(), sealer.seal(b"two").unwrap());
        assert_eq!(opener.open(&one).unwrap().as_slice(), b"one");
        assert_eq!(opener.open(&one).unwrap_err(), TransportError::Tag);
        assert_eq!(opener.open(&two).unwrap_err(), TransportError::Exhausted, "nothing after a failure");
    }

    #[test]
    fn numbered_messages_may_be_lost_and_none_opens_twice_late_or_under_another_number() {
        let (mut sealer, mut opener) = pair(Suite::AesGcm);
        let mut next = || sealer.seal_numbered(b"word").unwrap();
        let [first, lost, third, fourth] = [next(), next(), next(), next()];
        assert_eq!([first.0, lost.0, third.0, fourth.0], [0, 1, 2, 3]);
        assert_eq!(opener.open_numbered(0, &first.1).unwrap().as_slice(), b"word");
        assert_eq!(opener.open_numbered(9, b"from a stranger").unwrap_err(), TransportError::Tag);
        assert_eq!(opener.open_numbered(3, &third.1).unwrap_err(), TransportError::Tag);
        assert!(opener.open_numbered(2, &third.1).is_ok());
        for (number, sealed) in [&first, &lost, &third] {
            assert_eq!(opener.open_numbered(*number, sealed).unwrap_err(), TransportError::Tag);
        }
        assert!(opener.open_numbered(3, &fourth.1).is_ok());
        let beyond = opener.open_numbered(MAX_TRANSPORT_MESSAGES, &fourth.1);
        assert_eq!(beyond.unwrap_err(), TransportError::Exhausted);
    }

    #[test]
    fn numbers_never_wrap() {
        let (mut sealer, _) = pair(Suite::AesGcm);
        sealer.0.next = MAX_TRANSPORT_MESSAGES - 1;
        assert!(sealer.seal(b"last").is_ok());
        assert_eq!(sealer.seal(b"one more").unwrap_err(), TransportError::Exhausted);
    }
}
