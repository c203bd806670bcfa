//! A rate limit as arithmetic: how much of an allowance is used up. Time comes in as nanoseconds since any fixed moment.

use core::hash::Hash;
use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;

/// What may be used at once after a pause, unless told otherwise: this much of the rate.
const BURST: Duration = Duration::from_secs(1);
/// How far [`Bucket::charge`] may run into debt, so that one second of borrowing is not paid for by an hour.
const MOST_DEBT: u64 = nanos(Duration::from_secs(1));
/// The most buckets of one [`Limiter`].
const MAX_BUCKETS: usize = 65_536;

const fn nanos(duration: Duration) -> u64 {
    // Seconds; fits.
    duration.as_secs() * 1_000_000_000
}

/// Since when time is counted here.
#[derive(Clone, Copy, Debug)]
pub struct Start(Instant);

impl Start {
    /// From this moment on.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since then.
    pub fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Requests a second, at least one, and how many may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    per_second: u64,
    /// What may be used at once, in nanoseconds of the rate.
    burst: u64,
}

impl Rate {
    /// One second's worth may come at once. `None` for 0, which stands for no limit.
    pub fn new(per_second: u32) -> Option<Self> {
        (per_second > 0).then_some(Self { per_second: u64::from(per_second), burst: nanos(BURST) })
    }

    /// So many may come at once, at least one.
    #[must_use]
    pub fn with_burst(self, requests: u32) -> Self {
        Self { burst: self.cost().saturating_mul(u64::from(requests.max(1))), ..self }
    }

    /// An equal part of this rate for each of `peers`, of which one second's worth may come at once.
    #[must_use]
    pub fn shared_by(self, peers: usize) -> Self {
        let peers = u64::try_from(peers.max(1)).unwrap_or(u64::MAX);
        Self { per_second: (self.per_second / peers).max(1), burst: nanos(BURST) }
    }

    /// What one request uses up, in nanoseconds of the rate.
    fn cost(self) -> u64 {
        1_000_000_000 / self.per_second
    }
}

/// A token bucket, kept as the time until which it is used up (the generic cell rate algorithm): no timer fills it, and
/// it is one number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    used_until: u64,
}

impl Bucket {
    /// Takes one request out; where the bucket is empty, says how long until there is one.
    ///
    /// # Errors
    ///
    /// How long until there is one.
    pub fn take(&mut self, now: u64, rate: Rate) -> Result<(), Duration> {
        let used_until = self.used_until.max(now) + rate.cost();
        let earliest = used_until.saturating_sub(rate.burst);
        if earliest > now {
            return Err(Duration::from_nanos(earliest - now));
        }
        self.used_until = used_until;
        Ok(())
    }

    /// Takes one request out in any case, on credit if need be.
    pub fn charge(&mut self, now: u64, rate: Rate) {
        let used_until = self.used_until.max(now) + rate.cost();
        self.used_until = used_until.min(now + rate.burst + MOST_DEBT);
    }

    fn is_full(self, now: u64) -> bool {
        self.used_until <= now
    }
}

/// A bucket for each of many. Their number is bounded: when there are too many, all that are full again go, and if none
/// is, the newcomer shares one with every other newcomer.
#[derive(Debug)]
pub struct Limiter<K> {
    /// `None` for no limit.
    rate: Option<Rate>,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    own: HashMap<K, Bucket>,
    newcomers: Bucket,
}

impl<K: Hash + Eq> Limiter<K> {
    /// Holds each to this rate.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, buckets: Mutex::new(Buckets { own: HashMap::new(), newcomers: Bucket::default() }) }
    }

    /// Takes one of `key`'s.
    ///
    /// # Errors
    ///
    /// How long until there is one.
    pub fn take(&self, key: K, now: u64) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let Buckets { own, newcomers } = &mut *self.buckets.lock();
        if own.len() >= MAX_BUCKETS && !own.contains_key(&key) {
            own.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = if own.len() >= MAX_BUCKETS && !own.contains_key(&key) {
            newcomers
        } else {
            own.entry(key).or_default()
        };
        bucket.take(now, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(bucket: &mut Bucket, now: u64, rate: Rate, tries: u32) -> usize {
        (0..tries).filter(|_| bucket.take(now, rate).is_ok()).count()
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(100).unwrap());
        assert_eq!(taken(&mut bucket, SECOND, rate, 1000), 100);
        assert_eq!(taken(&mut bucket, SECOND + SECOND / 2, rate, 1000), 50);
        assert_eq!(
            taken(&mut bucket, 100 * SECOND, rate, 1000),
            100,
            "a long pause saves no more than a second"
        );
    }

    #[test]
    fn the_wait_it_names_is_enough_and_not_too_long() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(7).unwrap());
        taken(&mut bucket, SECOND, rate, 7);
        let wait = u64::try_from(bucket.take(SECOND, rate).unwrap_err().as_nanos()).unwrap();
        assert!(bucket.take(SECOND + wait - 1, rate).is_err());
        assert!(bucket.take(SECOND + wait, rate).is_ok());
    }

    #[test]
    fn debt_is_bounded() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10).unwrap());
        for _ in 0..1000 {
            bucket.charge(SECOND, rate);
        }
        let wait = bucket.take(SECOND, rate).unwrap_err();
        assert!(wait <= Duration::from_millis(1100), "{wait:?}");
    }

    #[test]
    fn zero_is_no_limit_and_shares_are_never_zero() {
        assert_eq!(Rate::new(0), None);
        assert_eq!(Rate::new(10).unwrap().shared_by(1000), Rate::new(1).unwrap());
        assert_eq!(Rate::new(10).unwrap().shared_by(0), Rate::new(10).unwrap());
        let unlimited = Limiter::new(None);
        assert!((0..1_000).all(|_| unlimited.take((), 0).is_ok()));
    }

    #[test]
    fn each_has_a_burst_and_then_its_rate() {
        let limiter = Limiter::new(Rate::new(1).map(|rate| rate.with_burst(10)));
        let at = |name: u32, ms: u64| limiter.take(name, SECOND + ms * 1_000_000).is_ok();
        assert_eq!((0..20).filter(|_| at(1, 0)).count(), 10);
        assert!(at(2, 0), "another has its own");
        assert!(!at(1, 900) && at(1, 1_100) && !at(1, 1_200));
        let wait = limiter.take(1, SECOND + 1_300_000_000).unwrap_err();
        assert_eq!(wait, Duration::from_millis(700));
    }

    #[test]
    fn the_number_of_buckets_is_bounded_and_newcomers_share_one_then() {
        let limiter = Limiter::new(Rate::new(1).map(|rate| rate.with_burst(2)));
        for name in 0..MAX_BUCKETS {
            assert!(limiter.take(name, SECOND).is_ok());
        }
        let newcomers =
            (MAX_BUCKETS..MAX_BUCKETS + 100).filter(|name| limiter.take(*name, SECOND).is_ok()).count();
        assert_eq!(newcomers, 2);
        assert!(limiter.take(0, SECOND).is_ok(), "who was there before keeps its own");
        assert_eq!(limiter.buckets.lock().own.len(), MAX_BUCKETS);
        assert!(limiter.take(MAX_BUCKETS, 11 * SECOND).is_ok());
        assert!(limiter.buckets.lock().own.len() < 10);
    }
}
