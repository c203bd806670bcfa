//! Which handshakes were used, and what they were answered: whoever sends the same message again gets the same bytes, and nothing
//! is done twice or sealed twice under one key.

use std::collections::HashMap;

use parking_lot::Mutex;

/// How long a used handshake is remembered, in seconds: longer than its cookie opens.
const KEPT_SECS: u64 = 120;
const _: () = assert!(KEPT_SECS > obol_handshake::VALIDITY_SECS);
/// The most handshakes that are remembered.
const MAX_USED: usize = 100_000;
/// The most bytes of answers that are kept for whoever lost theirs.
const MAX_BYTES: usize = 16 << 20;

/// All of them, by the transcript before the third message.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    known: HashMap<[u8; 32], (u64, Option<Vec<u8>>)>,
    bytes: usize,
    looked_at: u64,
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The handshake is used from now on, by whoever was told so.
    First,
    /// It was answered with this.
    Again(Vec<u8>),
    /// It is being answered, or the answer is not kept any more.
    Used,
    /// There is no room to remember one more.
    Full,
}

impl Answers {
    pub(crate) fn take(&self, transcript: [u8; 32], now: u64) -> Turn {
        let mut used = self.0.lock();
        used.forget(now);
        match used.known.get(&transcript) {
            Some((_, Some(answer))) => Turn::Again(answer.clone()),
            Some((_, None)) => Turn::Used,
            None if used.known.len() >= MAX_USED => Turn::Full,
            None => {
                used.known.insert(transcript, (now, None));
                Turn::First
            }
        }
    }

    pub(crate) fn keep(&self, transcript: &[u8; 32], answer: &[u8]) {
        let mut used = self.0.lock();
        if used.bytes.saturating_add(answer.len()) > MAX_BYTES {
            return;
        }
        if let Some((_, kept)) = used.known.get_mut(transcript) {
            *kept = Some(answer.to_vec());
            used.bytes += answer.len();
        }
    }
}

impl Used {
    /// At most once a second: it looks at all of them.
    fn forget(&mut self, now: u64) {
        if self.looked_at == now {
            return;
        }
        self.looked_at = now;
        self.known.retain(|_, (at, _)| now.saturating_sub(*at) < KEPT_SECS);
        self.bytes = self.known.values().map(|(_, answer)| answer.as_ref().map_or(0, Vec::len)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_used_once_and_answered_with_the_same_bytes() {
        let answers = Answers::default();
        assert_eq!(answers.take([1; 32], 1_000), Turn::First);
        assert_eq!(answers.take([1; 32], 1_000), Turn::Used, "while it is being answered");
        answers.keep(&[1; 32], b"done");
        assert_eq!(answers.take([1; 32], 1_000 + KEPT_SECS - 1), Turn::Again(b"done".to_vec()));
        assert_eq!(answers.take([2; 32], 1_001), Turn::First);
        assert_eq!(answers.take([1; 32], 1_000 + KEPT_SECS), Turn::First, "its cookie opens no more");
    }

    #[test]
    fn no_more_is_remembered_than_there_may_be() {
        let answers = Answers::default();
        let name = |number: usize| {
            let mut name = [0; 32];
            name.iter_mut().zip(number.to_le_bytes()).for_each(|(place, byte)| *place = byte);
            name
        };
        for number in 0..MAX_USED {
            assert_eq!(answers.take(name(number), 7), Turn::First);
        }
        assert_eq!(answers.take(name(MAX_USED), 7), Turn::Full);
        let long = vec![0; MAX_BYTES / 2];
        (0..3).for_each(|number| answers.keep(&name(number), &long));
        assert!(matches!(answers.take(name(1), 7), Turn::Again(_)));
        assert_eq!(answers.take(name(2), 7), Turn::Used, "there is no room for its answer");
        assert_eq!(answers.take(name(MAX_USED), 7 + KEPT_SECS), Turn::First);
    }
}
