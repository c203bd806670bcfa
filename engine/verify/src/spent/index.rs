//! Live marks in memory: a set for each span of expiry times, so that forgetting drops whole sets.

use core::hash::{BuildHasher, Hasher};
use std::collections::{BTreeMap, HashSet};
use std::hash::RandomState;

use obol_session::clock::Clock;

use super::{Mark, SpendError};

/// Tokens whose `exp` falls into the same span of this many seconds share a set. Short enough that few marks
/// outstay their time, long enough that only a handful of sets is alive.
pub(crate) const BUCKET_SECS: u64 = 30;

/// The most marks a set holds unless told otherwise: tokens spent within their life plus about five minutes.
pub const MAX_LIVE_MARKS: usize = 1 << 24;

/// Monotonic seconds that a wall-clock reading must stand before marks are forgotten by it.
pub(crate) const SETTLE_SECS: u64 = 30;

/// The span a mark belongs to.
pub(crate) fn bucket_of(mark: &Mark) -> u64 {
    mark.expires_at() / BUCKET_SECS
}

/// Marks are parts of hashes already, but whoever has a session's key can choose among them. Keyed, so that nobody
/// can aim at one place in the table.
#[derive(Clone, Debug)]
pub(crate) struct MarkHash {
    keys: [u64; 2],
}

impl MarkHash {
    fn new() -> Self {
        Self { keys: [RandomState::new().hash_one(0_u8), RandomState::new().hash_one(1_u8)] }
    }
}

impl BuildHasher for MarkHash {
    type Hasher = MarkHasher;

    fn build_hasher(&self) -> MarkHasher {
        MarkHasher { keys: self.keys, state: 0 }
    }
}

/// Folds one multiplication of the two keyed halves.
#[derive(Debug)]
pub(crate) struct MarkHasher {
    keys: [u64; 2],
    state: u64,
}

impl Hasher for MarkHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        if let [low, high] = words {
            let [low_key, high_key] = self.keys;
            let product = u128::from(u64::from_le_bytes(*low) ^ low_key)
                * u128::from((u64::from_le_bytes(*high) ^ high_key) | 1);
            let folded = product ^ (product >> 64);
            self.state = u64::try_from(folded & u128::from(u64::MAX)).unwrap_or(0);
        }
    }

    /// An array announces its length first; it is always 16.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

/// The marks of one span.
pub(crate) type Bucket = HashSet<[u8; 16], MarkHash>;

/// All live marks.
pub(crate) struct Index {
    buckets: BTreeMap<u64, Bucket>,
    /// Spans before this one are forgotten. Never moves back.
    horizon: u64,
    count: usize,
    max_marks: usize,
    hash: MarkHash,
}

impl Index {
    pub(crate) fn new(max_marks: usize) -> Self {
        Self { buckets: BTreeMap::new(), horizon: 0, count: 0, max_marks, hash: MarkHash::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[cfg(feature = "redb")]
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// Whether the mark is there, or may have been.
    pub(crate) fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        let bucket = bucket_of(mark);
        if bucket < self.horizon {
            return Err(SpendError::Forgotten);
        }
        // In every span: a `jti` is good for one token, also where somebody with the session's key made two of it that end
        // at different times. A handful of spans is alive.
        Ok(self.buckets.values().any(|bucket| bucket.contains(mark.id())))
    }

    /// Adds a mark that is not there yet, and with it another that is not either: both, or none.
    pub(crate) fn insert(&mut self, mark: &Mark, with: Option<&Mark>) -> Result<(), SpendError> {
        let with_spent = with.map_or(Ok(false), |with| self.is_spent(with));
        if self.is_spent(mark)? || with_spent? {
            return Err(SpendError::AlreadySpent);
        }
        if self.count.saturating_add(usize::from(with.is_some())) >= self.max_marks {
            return Err(SpendError::Unavailable("it is full; see max_marks".into()));
        }
        for one in core::iter::once(mark).chain(with) {
            self.place(bucket_of(one), *one.id());
        }
        Ok(())
    }

    /// Adds a mark that was read back. There is always room for it: forgetting it would not be safe.
    pub(crate) fn place(&mut self, bucket: u64, id: [u8; 16]) {
        let bucket = self.buckets.entry(bucket).or_insert_with(|| Bucket::with_hasher(self.hash.clone()));
        self.count += usize::from(bucket.insert(id));
    }

    /// Forgets every span before `horizon`. The caller drops what it gets, best after it has let go of its locks.
    pub(crate) fn forget_before(&mut self, horizon: u64) -> BTreeMap<u64, Bucket> {
        if horizon <= self.horizon {
            return BTreeMap::new();
        }
        self.horizon = horizon;
        let live = self.buckets.split_off(&horizon);
        let forgotten = core::mem::replace(&mut self.buckets, live);
        self.count -= forgotten.values().map(HashSet::len).sum::<usize>();
        forgotten
    }
}

/// The first span whose marks must still be kept at `now`: the last `exp` of every earlier one, plus `keep` seconds,
/// is over.
pub(crate) fn horizon_at(now: u64, keep: u64) -> u64 {
    now.saturating_sub(keep) / BUCKET_SECS
}

/// Decides when the wall clock may be believed for forgetting (see [`super`]).
#[derive(Debug)]
pub(crate) struct SettledClock {
    wall: u64,
    monotonic: u64,
}

impl SettledClock {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// A wall-clock reading that has stood for [`SETTLE_SECS`], about once in that time.
    pub(crate) fn reading(&mut self, clock: &dyn Clock) -> Option<u64> {
        let now = Self::new(clock);
        if now.wall < self.wall {
            // The clock was ahead. What it said then counts for nothing.
            *self = now;
            return None;
        }
        if now.monotonic.saturating_sub(self.monotonic) < SETTLE_SECS {
            return None;
        }
        Some(core::mem::replace(self, now).wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_clock::ManualClock;
    use obol_token::{Jti, SessionId};

    fn mark(number: u64, expires_at: u64) -> Mark {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&number.to_be_bytes());
        Mark::new(SessionId::from_u64(1), &Jti::from_random(random), expires_at)
    }

    #[test]
    fn a_mark_goes_in_once() {
        let mut index = Index::new(10);
        assert_eq!(index.insert(&mark(1, 100), None), Ok(()));
        assert_eq!(index.insert(&mark(1, 100), None), Err(SpendError::AlreadySpent));
        assert_eq!(index.insert(&mark(2, 100), None), Ok(()));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn a_name_is_spent_whenever_the_token_of_that_name_ends() {
        let mut index = Index::new(10);
        assert_eq!(index.insert(&mark(1, 100), None), Ok(()));
        for expires_at in [0, 101, 130, 1_000, u64::MAX] {
            assert_eq!(index.is_spent(&mark(1, expires_at)), Ok(true), "{expires_at}");
            assert_eq!(
                index.insert(&mark(1, expires_at), None),
                Err(SpendError::AlreadySpent),
                "{expires_at}"
            );
        }
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn what_was_forgotten_is_refused_and_not_fresh() {
        let mut index = Index::new(10);
        index.insert(&mark(1, 100), None).unwrap();
        assert_eq!(index.forget_before(horizon_at(300, 120)).len(), 1);
        assert_eq!(index.insert(&mark(1, 100), None), Err(SpendError::Forgotten));
        assert_eq!(index.is_spent(&mark(1, 100)), Err(SpendError::Forgotten));
        assert_eq!(index.len(), 0);
        assert!(index.forget_before(1).is_empty(), "the horizon never moves back");
        assert_eq!(index.insert(&mark(1, 100), None), Err(SpendError::Forgotten));
    }

    #[test]
    fn a_mark_is_kept_until_its_own_time_and_all_of_its_span_are_over() {
        for expires_at in [89, 90, 119] {
            for now in [expires_at, expires_at + 119, expires_at + 120] {
                assert!(horizon_at(now, 120) <= expires_at / BUCKET_SECS, "exp {expires_at} at {now}");
            }
            assert!(horizon_at(expires_at + 120 + BUCKET_SECS, 120) > expires_at / BUCKET_SECS);
        }
    }

    #[test]
    fn a_full_index_refuses() {
        let mut index = Index::new(1);
        index.insert(&mark(1, 100), None).unwrap();
        assert!(matches!(index.insert(&mark(2, 100), None), Err(SpendError::Unavailable(_))));
        assert_eq!(index.insert(&mark(1, 100), None), Err(SpendError::AlreadySpent));
    }

    #[test]
    fn a_mark_takes_at_most_forty_bytes_of_memory() {
        // One byte of control data a slot; at most 7 of 8 slots are used.
        const SLOT_BYTES: usize = 16 + 1;
        for count in [1_000_u64, 10_000, 14_337, 28_673, 100_000, 114_689] {
            let mut index = Index::new(MAX_LIVE_MARKS);
            for number in 0..count {
                index.insert(&mark(number, 100), None).unwrap();
            }
            let slots: usize = index.buckets.values().map(|bucket| bucket.capacity() * 8 / 7).sum();
            let each = slots * SLOT_BYTES / index.len();
            assert!(each <= 40, "{each} bytes for each of {count}");
        }
    }

    #[test]
    fn the_hash_spreads_marks_over_high_and_low_bits() {
        let hash = MarkHash::new();
        let mut low = [0_u32; 16];
        let mut high = [0_u32; 16];
        for number in 0..16_000 {
            let value = hash.hash_one(mark(number, 0).id());
            low[usize::try_from(value & 15).unwrap()] += 1;
            high[usize::try_from(value >> 60).unwrap()] += 1;
        }
        assert!(low.iter().chain(&high).all(|count| (800..1_200).contains(count)), "{low:?} {high:?}");
    }

    #[test]
    fn a_reading_counts_once_it_has_stood() {
        let clock = ManualClock::new(1_000);
        let mut settled = SettledClock::new(&clock);
        clock.advance(SETTLE_SECS - 1);
        assert_eq!(settled.reading(&clock), None);
        clock.advance(1);
        assert_eq!(settled.reading(&clock), Some(1_000));
        assert_eq!(settled.reading(&clock), None);
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_is_not_believed() {
        let clock = ManualClock::new(1_000);
        let mut settled = SettledClock::new(&clock);
        clock.advance(SETTLE_SECS);
        clock.set(1_000_000);
        assert_eq!(settled.reading(&clock), Some(1_000), "what stood was the reading before the jump");
        clock.advance(SETTLE_SECS - 1);
        clock.set(1_000 + 2 * SETTLE_SECS);
        assert_eq!(settled.reading(&clock), None);
        clock.advance(SETTLE_SECS);
        assert_eq!(settled.reading(&clock), Some(1_000 + 2 * SETTLE_SECS));
    }

    #[test]
    fn two_marks_are_taken_together_or_neither_is() {
        let mut index = Index::new(4);
        assert_eq!(index.insert(&mark(1, 100), Some(&mark(9, 300))), Ok(()));
        // Another token of the same approval, and the same token with another approval.
        assert_eq!(index.insert(&mark(2, 100), Some(&mark(9, 300))), Err(SpendError::AlreadySpent));
        assert_eq!(index.insert(&mark(1, 100), Some(&mark(8, 300))), Err(SpendError::AlreadySpent));
        assert_eq!((index.is_spent(&mark(2, 100)), index.is_spent(&mark(8, 300))), (Ok(false), Ok(false)));
        assert_eq!(index.insert(&mark(3, 100), None), Ok(()));
        assert!(matches!(index.insert(&mark(4, 100), Some(&mark(7, 300))), Err(SpendError::Unavailable(_))));
        assert_eq!((index.len(), index.is_spent(&mark(7, 300))), (3, Ok(false)));
    }
}
