//! The service's signing keys over time: a pair signs for three months, the next is published a day before it signs, and the last
//! for a day after it signed, so that whoever keeps our key set for a while always has the key of what it is to check.

use core::fmt;

use obol_secret::json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Algorithm;
use super::sign::{Kept, NoSignature, SigningKeys};

const DAY_SECS: u64 = 86_400;
/// How long a pair signs before another is made.
pub(crate) const LIFE_SECS: u64 = 90 * DAY_SECS;
/// How long a pair is published before it signs: longer than receivers keep a key set.
pub(crate) const AHEAD_SECS: u64 = DAY_SECS;
/// How long a pair is published after it signed. A token that is sent again is signed again, so none of it is on its way much
/// longer than it takes to send one; receivers may look at it later.
pub(crate) const AFTER_SECS: u64 = DAY_SECS;

/// The pairs as they are kept, the oldest first.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Pairs {
    pairs: Vec<Kept>,
}

/// Before there was more than one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Pairs(Pairs),
    One(Kept),
}

/// How it stands with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyUse {
    /// It signs.
    Signs,
    /// It will, from then on, in Unix seconds.
    From(u64),
    /// It does not any more, and is published until then.
    Until(u64),
}

/// See the module's header.
pub(crate) struct KeyRing {
    pairs: Vec<(u64, SigningKeys)>,
}

fn read(kept: &[u8]) -> Result<Vec<Kept>, NoSignature> {
    const WRONG: NoSignature = NoSignature("the kept keys have another form");
    let mut pairs = match json::parse(kept).map_err(|_| WRONG)? {
        Form::Pairs(mut pairs) => core::mem::take(&mut pairs.pairs),
        Form::One(pair) => vec![pair],
    };
    pairs.sort_by_key(|pair| pair.signs_from);
    if pairs.is_empty() { Err(WRONG) } else { Ok(pairs) }
}

fn write(pairs: Vec<Kept>) -> Result<Zeroizing<Vec<u8>>, NoSignature> {
    let bytes = serde_json::to_vec(&Pairs { pairs });
    bytes.map(Zeroizing::new).map_err(|_| NoSignature("the keys could not be written"))
}

impl KeyRing {
    /// Makes the first pair, which signs at once; as it is to be kept. It takes a moment.
    pub(crate) fn make(now: u64) -> Result<Zeroizing<Vec<u8>>, NoSignature> {
        write(vec![SigningKeys::make(now)?])
    }

    /// What is to be kept in place of this: a pair more where the newest has signed for long enough, and none that nobody needs any
    /// more. None signs from later on than the next one would that is made now: a clock that was ahead once must not hold the next pair
    /// back until then. `None` where all is well.
    pub(crate) fn tended(kept: &[u8], now: u64) -> Result<Option<Zeroizing<Vec<u8>>>, NoSignature> {
        let mut pairs = read(kept)?;
        let latest = now.saturating_add(AHEAD_SECS);
        let (before, is_ahead) = (pairs.len(), pairs.iter().any(|pair| pair.signs_from > latest));
        pairs.iter_mut().for_each(|pair| pair.signs_from = pair.signs_from.min(latest));
        let over = |next: &Kept| next.signs_from.saturating_add(AFTER_SECS) <= now;
        while pairs.get(1).is_some_and(over) {
            pairs.remove(0);
        }
        let is_old = |newest: &Kept| newest.signs_from.saturating_add(LIFE_SECS) <= now;
        let is_due = pairs.last().is_some_and(is_old);
        if is_due {
            pairs.push(SigningKeys::make(latest)?);
        }
        if is_due || is_ahead || pairs.len() != before { write(pairs).map(Some) } else { Ok(None) }
    }

    /// Reads pairs as they are kept.
    pub(crate) fn read(kept: &[u8]) -> Result<Self, NoSignature> {
        let pair = |kept: &Kept| SigningKeys::read(kept).map(|keys| (kept.signs_from, keys));
        Ok(Self { pairs: read(kept)?.iter().map(pair).collect::<Result<_, _>>()? })
    }

    /// The public halves that others are to know, as a JWK set.
    pub(crate) fn key_set(&self, now: u64) -> Value {
        let keys = self.published(now).flat_map(|(_, keys)| keys.public());
        object!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// Name and algorithm of each key that others are to know, and how it stands with it.
    pub(crate) fn names(&self, now: u64) -> Vec<(String, String, KeyUse)> {
        let named = |(standing, keys): (KeyUse, &SigningKeys)| {
            keys.names()
                .into_iter()
                .map(move |(kid, algorithm)| (kid, algorithm, standing))
                .collect::<Vec<_>>()
        };
        self.published(now).flat_map(named).collect()
    }

    /// Signs claims as a token of this type, with the pair whose time it is.
    pub(crate) fn sign(
        &self,
        algorithm: Algorithm,
        typ: &str,
        claims: &Value,
        now: u64,
    ) -> Result<String, NoSignature> {
        let signs = self.published(now).find(|(standing, _)| *standing == KeyUse::Signs);
        let (_, keys) = signs.ok_or(NoSignature("there is no key"))?;
        keys.sign(algorithm, typ, claims)
    }

    fn published(&self, now: u64) -> impl Iterator<Item = (KeyUse, &SigningKeys)> {
        // The first, should the clock say that none signs yet.
        let signs = self.pairs.iter().rposition(|(from, _)| *from <= now).unwrap_or_default();
        let pairs = self.pairs.iter().enumerate().map(move |(place, (from, keys))| {
            let next =
                self.pairs.get(place + 1).map_or(u64::MAX, |(next, _)| next.saturating_add(AFTER_SECS));
            let standing = match place.cmp(&signs) {
                core::cmp::Ordering::Less => KeyUse::Until(next),
                core::cmp::Ordering::Equal => KeyUse::Signs,
                core::cmp::Ordering::Greater => KeyUse::From(*from),
            };
            (standing, keys)
        });
        pairs.filter(move |(standing, _)| !matches!(standing, KeyUse::Until(until) if *until <= now))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::{KeySet, Unchecked};

    const TYP: &str = "secevent+jwt";

    fn token(ring: &KeyRing, now: u64) -> String {
        ring.sign(Algorithm::Rs256, TYP, &object!({ "iat": now }), now).unwrap()
    }

    /// Whether somebody takes it who fetched our keys then.
    fn is_taken(token: &str, ring: &KeyRing, fetched: u64) -> bool {
        let keys = KeySet::read(ring.key_set(fetched).to_string().as_bytes()).unwrap();
        Unchecked::read(token.as_bytes(), TYP).unwrap().check(&keys).is_ok()
    }

    #[test]
    fn a_pair_is_known_a_day_before_it_signs_and_a_day_after_it_signed() {
        let (start, second) = (1_000_000, 1_000_000 + LIFE_SECS + AHEAD_SECS);
        let first = KeyRing::make(start).unwrap();
        assert!(KeyRing::tended(&first, start + LIFE_SECS - 1).unwrap().is_none(), "not before its time");
        let due = start + LIFE_SECS;
        let two = KeyRing::tended(&first, due).unwrap().expect("another pair");
        assert!(KeyRing::tended(&two, due + 10).unwrap().is_none(), "one, and not one each time");
        let ring = KeyRing::read(&two).unwrap();
        let (old, new) = (token(&ring, second - 1), token(&ring, second));
        let kid = |token: &str| token.split_once('.').unwrap().0.to_owned();
        assert_ne!(kid(&old), kid(&new));
        // Whoever fetched the keys up to a day before has the new one, and up to a day after the old one.
        assert!(is_taken(&new, &ring, due) && is_taken(&old, &ring, due));
        assert!(is_taken(&old, &ring, second + AFTER_SECS - 1));
        // The control: a day later it is nobody's key any more, and gone.
        assert!(!is_taken(&old, &ring, second + AFTER_SECS) && is_taken(&new, &ring, second + AFTER_SECS));
        assert!(KeyRing::tended(&two, second + AFTER_SECS - 1).unwrap().is_none());
        let one = KeyRing::tended(&two, second + AFTER_SECS).unwrap().expect("the old pair goes");
        assert!(is_taken(&new, &KeyRing::read(&one).unwrap(), second) && one.len() < two.len());
        assert_eq!(
            ring.names(second - 1).iter().map(|(_, _, standing)| *standing).collect::<Vec<_>>(),
            [KeyUse::Signs, KeyUse::Signs, KeyUse::From(second), KeyUse::From(second)]
        );
        assert_eq!(ring.names(second)[0].2, KeyUse::Until(second + AFTER_SECS));
        // A clock that was put back lets the first sign.
        assert_eq!(kid(&token(&ring, start - 1)), kid(&old));
    }

    /// A clock that is years ahead for a moment, and right again.
    #[test]
    fn a_clock_that_was_ahead_once_holds_no_pair_back() {
        let (now, ahead) = (1_800_000_000, 1_800_000_000 + 40 * LIFE_SECS);
        let kid = |token: &str| token.split_once('.').unwrap().0.to_owned();
        // Of a pair that signs already, and of the first one, made while the clock was ahead.
        let signing = KeyRing::make(now).unwrap();
        let two = KeyRing::tended(&signing, ahead).unwrap().expect("it seems old");
        for (kept, pairs) in [(two, 2), (KeyRing::make(ahead).unwrap(), 1)] {
            let before = KeyRing::read(&kept).unwrap();
            let mended = KeyRing::tended(&kept, now).unwrap().expect("its time is put right");
            let ring = KeyRing::read(&mended).unwrap();
            assert_eq!(ring.names(now).len(), 2 * pairs, "none is lost that somebody may know");
            assert_eq!(kid(&token(&ring, now)), kid(&token(&before, now)), "and the same signs");
            assert!(KeyRing::tended(&mended, now + 10).unwrap().is_none(), "once");
            let signs = now + AHEAD_SECS;
            assert_eq!(ring.names(signs).iter().filter(|name| name.2 == KeyUse::Signs).count(), 2);
            let next =
                KeyRing::tended(&mended, signs + LIFE_SECS).unwrap().expect("another pair in its time");
            let later = KeyRing::read(&next).unwrap();
            let replaced = token(&later, signs + LIFE_SECS + AHEAD_SECS);
            assert_ne!(kid(&replaced), kid(&token(&ring, signs)));
        }
        // Control: one that is to sign in its time is left as it is.
        let due = KeyRing::tended(&signing, now + LIFE_SECS).unwrap().unwrap();
        assert!(KeyRing::tended(&due, now + LIFE_SECS).unwrap().is_none());
    }

    #[test]
    fn keys_of_an_earlier_version_go_on_and_are_replaced() {
        let pair = serde_json::to_value(SigningKeys::make(0).unwrap()).unwrap();
        let (rsa, ec) = (&pair["rs256"], &pair["es256"]);
        let kept = object!({ "rs256": rsa, "es256": ec }).to_string();
        let now = 1_900_000_000;
        let ring = KeyRing::read(kept.as_bytes()).unwrap();
        let before = token(&ring, now);
        let tended = KeyRing::tended(kept.as_bytes(), now).unwrap().expect("it is old");
        let ring = KeyRing::read(&tended).unwrap();
        assert_eq!(ring.names(now).len(), 4);
        assert!(is_taken(&before, &ring, now) && is_taken(&before, &ring, now + AHEAD_SECS));
        for wrong in ["{}", "{\"pairs\":[]}", "[]"] {
            assert!(KeyRing::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
