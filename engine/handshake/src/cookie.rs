//! The service's state between the second message and the third, kept by the client: sealed under a key that exists in
//! the service's memory only, for two minutes at most. A stranger who begins a million handshakes costs no memory, and
//! a stolen disk or backup holds nothing that opens a recorded cookie.

use core::fmt;

use obol_token::{Suite, aead};
use zeroize::Zeroizing;

use crate::header::{Header, Purpose};
use crate::keys::Random;

/// How long a key seals new cookies, in seconds. It opens old ones for as long again.
pub const KEY_LIFE_SECS: u64 = 60;
/// How long a cookie is good for, in seconds.
pub const VALIDITY_SECS: u64 = 30;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const LABEL: &[u8] = b"obol-cookie-v1";

/// Bytes of the state inside a cookie: what the client said in clear, the ephemeral key, chaining key, hash and key.
pub(crate) const STATE_BYTES: usize = Header::BYTES + 4 * 32;

/// Bytes of a cookie: which key, nonce, time and state, tag.
pub const COOKIE_BYTES: usize = 1 + NONCE_BYTES + TIME_BYTES + STATE_BYTES + TAG_BYTES;

/// Why a cookie was not taken. The client begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CookieError {
    /// It was good once: its time is over, or its key is gone.
    Expired,
    /// It was not made here, not for this purpose, or was changed.
    Forged,
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the handshake took too long; begin anew",
            Self::Forged => "the cookie is not one of this service, or not for this purpose",
        })
    }
}

impl core::error::Error for CookieError {}

/// One key, and when it was made (Unix seconds). Wiped when dropped.
struct CookieKey {
    key: Zeroizing<[u8; 32]>,
    generation: u8,
    made_at: u64,
}

impl CookieKey {
    fn generate(generation: u8, now: u64, rng: &mut dyn Random) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill(&mut *key);
        Self { key, generation, made_at: now }
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CookieKey {{ generation: {}, made_at: {} }}", self.generation, self.made_at)
    }
}

/// The key that seals new cookies, and the one before it.
#[derive(Debug)]
pub struct CookieRing {
    current: CookieKey,
    previous: Option<CookieKey>,
}

impl CookieRing {
    /// A ring with one fresh key.
    pub fn new(now: u64, rng: &mut dyn Random) -> Self {
        Self { current: CookieKey::generate(0, now, rng), previous: None }
    }

    /// Makes a new key once the current one has served its time, and drops the one before. Call it at least every few
    /// seconds. A clock that went back makes a new key as well.
    pub fn turn(&mut self, now: u64, rng: &mut dyn Random) {
        let age = now.checked_sub(self.current.made_at);
        if age.is_some_and(|age| age < KEY_LIFE_SECS) {
            return;
        }
        let next = CookieKey::generate(self.current.generation.wrapping_add(1), now, rng);
        let last = core::mem::replace(&mut self.current, next);
        // A ring that nobody turned for long must not keep a key beyond its time.
        self.previous = age.is_some_and(|age| age < 2 * KEY_LIFE_SECS).then_some(last);
    }

    pub(crate) fn seal(&self, purpose: Purpose, state: &[u8], now: u64, rng: &mut dyn Random) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill(&mut nonce);
        let mut text = Zeroizing::new([&now.to_be_bytes()[..], state].concat());
        let aad = aad(purpose, self.current.generation);
        let tag = aead::seal(Suite::AesGcm, &self.current.key, &nonce, &aad, &mut text);
        // A hundred and fifty bytes are never too long; without a tag the cookie opens nowhere.
        let tag = tag.unwrap_or([0; TAG_BYTES]);
        [&[self.current.generation][..], &nonce, &text, &tag].concat()
    }

    pub(crate) fn open(
        &self,
        cookie: &[u8],
        purpose: Purpose,
        now: u64,
    ) -> Result<Zeroizing<Vec<u8>>, CookieError> {
        let cookie: &[u8; COOKIE_BYTES] = cookie.try_into().map_err(|_| CookieError::Forged)?;
        let ([generation], rest) = cookie.split_first_chunk::<1>().ok_or(CookieError::Forged)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(CookieError::Forged)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(CookieError::Forged)?;
        let keys = [Some(&self.current), self.previous.as_ref()];
        let key = keys
            .into_iter()
            .flatten()
            .find(|key| key.generation == *generation)
            .ok_or(CookieError::Expired)?;
        let mut text = Zeroizing::new(text.to_vec());
        let aad = aad(purpose, *generation);
        aead::open(Suite::AesGcm, &key.key, nonce, &aad, &mut text, tag).map_err(|_| CookieError::Forged)?;
        let (at, state) = text.split_first_chunk::<TIME_BYTES>().ok_or(CookieError::Forged)?;
        let age = now.checked_sub(u64::from_be_bytes(*at));
        if age.is_some_and(|age| age <= VALIDITY_SECS) {
            Ok(Zeroizing::new(state.to_vec()))
        } else {
            Err(CookieError::Expired)
        }
    }
}

fn aad(purpose: Purpose, generation: u8) -> Vec<u8> {
    [LABEL, &[purpose.number(), generation]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::Counting;

    const STATE: [u8; STATE_BYTES] = [5; STATE_BYTES];

    #[test]
    fn a_cookie_opens_for_its_purpose_and_its_time_only() {
        let mut rng = Counting::default();
        let ring = CookieRing::new(100, &mut rng);
        let cookie = ring.seal(Purpose::Session, &STATE, 110, &mut rng);
        assert_eq!(cookie.len(), COOKIE_BYTES);
        assert_eq!(ring.open(&cookie, Purpose::Session, 110).unwrap().as_slice(), STATE);
        assert!(ring.open(&cookie, Purpose::Session, 110 + VALIDITY_SECS).is_ok());
        let late = ring.open(&cookie, Purpose::Session, 111 + VALIDITY_SECS);
        assert_eq!(late.unwrap_err(), CookieError::Expired);
        let early = ring.open(&cookie, Purpose::Session, 109);
        assert_eq!(early.unwrap_err(), CookieError::Expired, "a clock that went back");
        for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Session) {
            assert_eq!(ring.open(&cookie, purpose, 110).unwrap_err(), CookieError::Forged);
        }
    }

    #[test]
    fn every_bit_of_a_cookie_counts() {
        let mut rng = Counting::default();
        let ring = CookieRing::new(100, &mut rng);
        let cookie = ring.seal(Purpose::Register, &STATE, 100, &mut rng);
        for bit in 0..cookie.len() * 8 {
            let mut other = cookie.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&other, Purpose::Register, 100).is_err(), "bit {bit}");
        }
        assert!(ring.open(&cookie[1..], Purpose::Register, 100).is_err());
        assert!(ring.open(&[&cookie[..], &[0]].concat(), Purpose::Register, 100).is_err());
    }

    #[test]
    fn a_key_opens_for_one_turn_after_its_own_and_is_then_gone() {
        let mut rng = Counting::default();
        let mut ring = CookieRing::new(0, &mut rng);
        let cookie = ring.seal(Purpose::Session, &STATE, 59, &mut rng);
        ring.turn(59, &mut rng);
        assert!(ring.previous.is_none(), "still the first key");
        ring.turn(60, &mut rng);
        assert!(ring.open(&cookie, Purpose::Session, 61).is_ok());
        ring.turn(120, &mut rng);
        assert_eq!(ring.open(&cookie, Purpose::Session, 61).unwrap_err(), CookieError::Expired);
    }

    #[test]
    fn a_ring_that_was_not_turned_for_long_forgets_its_old_key() {
        let mut rng = Counting::default();
        let mut ring = CookieRing::new(1_000, &mut rng);
        ring.turn(1_000 + 2 * KEY_LIFE_SECS, &mut rng);
        assert!(ring.previous.is_none());
        ring.turn(500, &mut rng);
        assert!(ring.previous.is_none(), "a clock that went back ends the key too");
        assert_eq!(ring.current.made_at, 500);
    }
}
