//! Keys for proofs of possession that were made for sessions which are still being opened. The private half never leaves this
//! process: the session that comes names the public one.

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use obol_ipc::proof::PopPublic;
use obol_ipc::refusal::Refusal;
use obol_secret::key::Key32;
use obol_session::PopKey;
use parking_lot::Mutex;

/// Keys that wait for their session at a time; one more forgets the oldest.
const MAX_KEYS: usize = 8;
/// How long a key waits. Opening a session takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The keys that wait, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct PopKeys(Mutex<VecDeque<(Instant, PopKey)>>);

impl PopKeys {
    /// Makes a key; its public half.
    pub(crate) fn make(&self, now: Instant) -> Result<PopPublic, Refusal> {
        let seed = Key32::generate().map_err(Refusal::unavailable)?;
        let key = PopKey::from_bytes(*seed.expose());
        let public = PopPublic::from_bytes(key.public());
        let mut keys = self.0.lock();
        Self::forget(&mut keys, now);
        if keys.len() >= MAX_KEYS {
            keys.pop_front();
        }
        keys.push_back((now, key));
        Ok(public)
    }

    /// The key with this public half, once.
    pub(crate) fn take(&self, public: &PopPublic, now: Instant) -> Result<PopKey, Refusal> {
        let mut keys = self.0.lock();
        Self::forget(&mut keys, now);
        let place = keys.iter().position(|(_, key)| key.public() == *public.as_bytes());
        let key = place.and_then(|place| keys.remove(place)).map(|(_, key)| key);
        key.ok_or_else(|| {
            Refusal::invalid_argument(format_args!(
                "popPub: this daemon has no such key; it keeps one of popKey for {PATIENCE:?} and not over a restart. Ask \
                 for another, and open another session with it"
            ))
        })
    }

    fn forget(keys: &mut VecDeque<(Instant, PopKey)>, now: Instant) {
        keys.retain(|(made, _)| now.saturating_duration_since(*made) < PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_given_once_to_who_names_it_and_not_for_ever() {
        let (keys, now) = (PopKeys::default(), Instant::now());
        let first = keys.make(now).unwrap();
        let second = keys.make(now).unwrap();
        assert_ne!(first, second);
        assert_eq!(keys.take(&second, now).unwrap().public(), *second.as_bytes());
        assert!(keys.take(&second, now).is_err(), "once");
        assert!(keys.take(&PopPublic::from_bytes([7; 32]), now).is_err());
        assert!(keys.take(&first, now + PATIENCE).is_err(), "it waited too long");
    }

    #[test]
    fn only_so_many_wait_and_the_youngest_stay() {
        let (keys, now) = (PopKeys::default(), Instant::now());
        let made: Vec<_> = (0..MAX_KEYS + 1).map(|_| keys.make(now).unwrap()).collect();
        assert!(keys.take(&made[0], now).is_err());
        assert!(made[1..].iter().all(|public| keys.take(public, now).is_ok()));
    }
}
