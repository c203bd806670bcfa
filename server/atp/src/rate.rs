//! Token buckets by name. Their number is bounded; when there are too many, all that are full again go, and if none is, the
//! newcomer shares one with every other newcomer.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The most buckets of one limiter.
const MAX_BUCKETS: usize = 65_536;

/// So many at once, and then so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(allowance: Allowance, now: Instant) -> Self {
        Self { left: f64::from(allowance.burst), at: now }
    }

    /// Takes one, or says how long to wait for it.
    pub(crate) fn take(&mut self, allowance: Allowance, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(allowance.per_second);
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.left = (self.left + earned).min(f64::from(allowance.burst));
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / rate))
    }

    fn is_full(&self, allowance: Allowance, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(allowance.per_second);
        self.left + earned >= f64::from(allowance.burst)
    }
}

/// Holds each of many to an allowance.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    /// `None` for no limit.
    allowance: Option<Allowance>,
    buckets: Mutex<(HashMap<K, Bucket>, Option<Bucket>)>,
}

impl<K: Hash + Eq> Limiter<K> {
    /// A rate of 0 is no limit.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let allowance = (per_second > 0).then_some(Allowance { burst: burst.max(1), per_second });
        Self { allowance, buckets: Mutex::default() }
    }

    /// Takes one of `key`'s, or says how many seconds to wait, rounded up.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), u64> {
        let Some(allowance) = self.allowance else { return Ok(()) };
        let mut guard = self.buckets.lock();
        let (buckets, shared) = &mut *guard;
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| !bucket.is_full(allowance, now));
        }
        let bucket = if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            shared.get_or_insert_with(|| Bucket::full(allowance, now))
        } else {
            buckets.entry(key).or_insert_with(|| Bucket::full(allowance, now))
        };
        bucket.take(allowance, now).map_err(|wait| wait.as_secs().saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_burst_and_then_its_rate() {
        let (limiter, start) = (Limiter::new(1, 10), Instant::now());
        let at = |name: u32, ms: u64| limiter.take(name, start + Duration::from_millis(ms)).is_ok();
        assert_eq!((0..20).filter(|_| at(1, 0)).count(), 10);
        assert!(at(2, 0), "another has its own");
        assert!(!at(1, 900) && at(1, 1_100) && !at(1, 1_200));
        assert_eq!(limiter.take(1, start + Duration::from_millis(1_300)), Err(1));
        assert!((0..1_000).all(|_| Limiter::new(0, 0).take((), start).is_ok()));
    }

    #[test]
    fn the_number_of_buckets_is_bounded_and_newcomers_share_one_then() {
        let (limiter, start) = (Limiter::new(1, 2), Instant::now());
        for name in 0..MAX_BUCKETS {
            assert!(limiter.take(name, start).is_ok());
        }
        let newcomers =
            (MAX_BUCKETS..MAX_BUCKETS + 100).filter(|name| limiter.take(*name, start).is_ok()).count();
        assert_eq!(newcomers, 2);
        assert!(limiter.take(0, start).is_ok(), "who was there before keeps its own");
        assert_eq!(limiter.buckets.lock().0.len(), MAX_BUCKETS);
        assert!(limiter.take(MAX_BUCKETS, start + Duration::from_secs(10)).is_ok());
        assert!(limiter.buckets.lock().0.len() < 10);
    }
}
