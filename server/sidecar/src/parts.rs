//! A session's document that comes in pieces, because it is longer than a frame: held until it is whole, and forgotten if it
//! does not become so.
//!
//! Only who may provision gets this far, so the bounds are against mistakes and for memory, not against attackers.

use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use obol_ipc::control::ProvisionPartParams;
use obol_ipc::refusal::Refusal;
use obol_secret::wipe::Wiped;
use obol_session::limits::MAX_DOCUMENT_BYTES;
use parking_lot::Mutex;

/// Documents that come in pieces at a time.
const MAX_DOCUMENTS: usize = 4;
/// How long a document may take from its first piece to its last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The pieces that have come, by connection.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<HashMap<u64, Part>>);

#[derive(Debug)]
struct Part {
    next: u64,
    text: Wiped,
    began: Instant,
}

/// What a piece made.
#[derive(Debug)]
pub(crate) enum Taken {
    /// So many bytes, and more are to come.
    Some(u64),
    /// The whole document.
    Whole(Wiped),
}

impl Parts {
    /// Takes the next piece of a connection's document.
    pub(crate) fn take(
        &self,
        connection: u64,
        piece: &ProvisionPartParams,
        now: Instant,
    ) -> Result<Taken, Refusal> {
        let mut all = self.0.lock();
        all.retain(|_, part| now.saturating_duration_since(part.began) < PATIENCE);
        let part = match piece.number {
            0 => {
                all.remove(&connection);
                if all.len() >= MAX_DOCUMENTS {
                    return Err(Refusal::overloaded(PATIENCE));
                }
                all.entry(connection).or_insert(Part { next: 0, text: Wiped::default(), began: now })
            }
            number => match all.get_mut(&connection) {
                Some(part) if part.next == number => part,
                _ => {
                    all.remove(&connection);
                    return Err(Refusal::invalid_argument(format_args!(
                        "number: piece {number} does not follow one that came on this connection within {PATIENCE:?}; \
                         begin with piece 0"
                    )));
                }
            },
        };
        if part.text.len() + piece.text.expose().len() > MAX_DOCUMENT_BYTES {
            all.remove(&connection);
            return Err(Refusal::invalid_argument(format_args!(
                "text: a session document has at most {MAX_DOCUMENT_BYTES} bytes"
            )));
        }
        part.text.append(piece.text.expose().as_bytes());
        part.next += 1;
        if !piece.last {
            return Ok(Taken::Some(part.text.len() as u64));
        }
        Ok(Taken::Whole(all.remove(&connection).map(|part| part.text).unwrap_or_default()))
    }

    /// Forgets what has waited too long for its next piece.
    pub(crate) fn forget(&self, now: Instant) {
        self.0.lock().retain(|_, part| now.saturating_duration_since(part.began) < PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use obol_ipc::secret::SessionPartText;

    use super::*;

    fn piece(number: u64, text: &str, last: bool) -> ProvisionPartParams {
        ProvisionPartParams { number, text: SessionPartText::new(text).unwrap(), last, pop_pub: None }
    }

    fn received(taken: Result<Taken, Refusal>) -> u64 {
        match taken {
            Ok(Taken::Some(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_document_is_whole_once_its_last_piece_has_come_in_order() {
        let (parts, now) = (Parts::default(), Instant::now());
        assert_eq!(received(parts.take(1, &piece(0, "ab", false), now)), 2);
        assert_eq!(received(parts.take(2, &piece(0, "x", false), now)), 1, "another connection's");
        assert_eq!(received(parts.take(1, &piece(1, "cd", false), now)), 4);
        let Ok(Taken::Whole(text)) = parts.take(1, &piece(2, "e", true), now) else { panic!("it is whole") };
        assert_eq!(&*text, b"abcde");
        assert!(parts.take(1, &piece(3, "f", true), now).is_err(), "it is over");
    }

    #[test]
    fn a_piece_out_of_order_forgets_the_others_and_zero_begins_anew() {
        let (parts, now) = (Parts::default(), Instant::now());
        received(parts.take(1, &piece(0, "ab", false), now));
        assert!(parts.take(1, &piece(2, "x", true), now).is_err());
        assert!(parts.take(1, &piece(1, "x", true), now).is_err(), "nothing is left of it");
        received(parts.take(1, &piece(0, "ab", false), now));
        assert_eq!(received(parts.take(1, &piece(0, "c", false), now)), 1);
    }

    #[test]
    fn documents_are_bounded_in_number_length_and_time() {
        let (parts, now) = (Parts::default(), Instant::now());
        for connection in 0..4 {
            received(parts.take(connection, &piece(0, "x", false), now));
        }
        assert!(parts.take(9, &piece(0, "x", false), now).is_err());
        received(parts.take(9, &piece(0, "x", false), now + PATIENCE));
        assert!(parts.take(0, &piece(1, "x", true), now + PATIENCE).is_err(), "it took too long");
        let long = "x".repeat(obol_ipc::secret::MAX_PART_BYTES);
        let mut number = 0;
        let refused = loop {
            match parts.take(1, &piece(number, &long, false), now) {
                Ok(_) => number += 1,
                Err(refused) => break refused,
            }
        };
        assert!(refused.message().contains("1048576"), "{refused}");
        assert_eq!(usize::try_from(number), Ok(MAX_DOCUMENT_BYTES / long.len()));
        parts.forget(now + PATIENCE + PATIENCE);
        assert!(parts.0.lock().is_empty());
    }
}
