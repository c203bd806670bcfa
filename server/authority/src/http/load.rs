//! How much is done at a time. Whoever comes when there is too much is told so before anything is computed for them.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::Semaphore;

use super::problem::Problem;

/// The most requests that wait for their turn, of each kind.
const MAX_WAITING: usize = 256;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most sources that are told apart; those that come later share one allowance.
const MAX_SOURCES: usize = 65_536;

/// So many requests of one kind at work, so many waiting.
#[derive(Debug)]
pub(super) struct Turnstile {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Turnstile {
    pub(super) fn new(at_work: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_work)), waiting: AtomicUsize::new(0) }
    }

    /// Does `act`, which computes or waits for a disk, on a thread that may, when it is its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let waits = Waits::begin(&self.waiting).ok_or_else(Problem::overloaded)?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        drop(waits);
        let Ok(Ok(turn)) = turn else { return Err(Problem::overloaded()) };
        let done = tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller that goes away does not make room before the work is done.
            let _turn = turn;
            act()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a request ended in an internal error");
            Problem::overloaded()
        })
    }
}

/// Counts one that waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Option<Self> {
        let counted = Self(waiting);
        (waiting.fetch_add(1, Ordering::SeqCst) < MAX_WAITING).then_some(counted)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// So many at once, and then so many a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// A second; 0 for no limit.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn earn(&mut self, rate: Rate, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.left = (self.left + earned).min(f64::from(rate.burst));
        self.at = now;
    }
}

/// Holds each of many to a rate.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    rate: Rate,
    buckets: Mutex<(HashMap<K, Bucket>, Option<Bucket>)>,
}

impl<K: Hash + Eq> Limiter<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one of `key`'s, or says how many seconds to wait, rounded up.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<(), u64> {
        let rate = self.rate;
        if rate.per_second == 0 {
            return Ok(());
        }
        let full = || Bucket { left: f64::from(rate.burst), at: now };
        let mut guard = self.buckets.lock();
        let (buckets, shared) = &mut *guard;
        if buckets.len() >= MAX_SOURCES && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| {
                bucket.earn(rate, now);
                bucket.left < f64::from(rate.burst)
            });
        }
        let bucket = match buckets.len() >= MAX_SOURCES && !buckets.contains_key(&key) {
            true => shared.get_or_insert_with(full),
            false => buckets.entry(key).or_insert_with(full),
        };
        bucket.earn(rate, now);
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - bucket.left) / f64::from(rate.per_second));
        Err(wait.as_secs().saturating_add(1))
    }
}

/// What an address counts as: itself, or with IPv6 the network that one customer has, a /64.
pub(super) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_a_burst_and_then_its_rate() {
        let (limiter, start) = (Limiter::new(Rate { per_second: 20, burst: 40 }), Instant::now());
        let at = |name: u32, ms: u64| limiter.take(name, start + Duration::from_millis(ms));
        assert_eq!((0..100).filter(|_| at(1, 0).is_ok()).count(), 40);
        assert!(at(2, 0).is_ok(), "another has its own");
        assert_eq!(at(1, 10), Err(1));
        assert_eq!((0..100).filter(|_| at(1, 1_000).is_ok()).count(), 20);
    }

    #[test]
    fn the_number_of_sources_is_bounded_and_newcomers_share_one_allowance_then() {
        let (limiter, start) = (Limiter::new(Rate { per_second: 1, burst: 2 }), Instant::now());
        for name in 0..MAX_SOURCES {
            limiter.take(name, start).unwrap();
        }
        let admitted = (MAX_SOURCES..MAX_SOURCES + 10).filter(|name| limiter.take(*name, start).is_ok());
        assert_eq!(admitted.count(), 2);
        let later = start + Duration::from_secs(5);
        limiter.take(MAX_SOURCES + 11, later).unwrap();
        assert!(limiter.buckets.lock().0.len() < 10, "who is quiet is forgotten");
    }

    #[test]
    fn neighbours_in_one_network_are_one_source() {
        let of = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_sent_away_at_once() {
        let gate = Arc::new(Turnstile::new(1));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.run(move || held.recv()).await }
        });
        while gate.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.run(|| ()).await })
            })
            .collect();
        while gate.waiting.load(Ordering::SeqCst) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.run(|| ()).await.unwrap_err().code(), "OVERLOADED");
        drop(release);
        assert!(first.await.unwrap().is_ok());
        for waited in waiting {
            waited.await.unwrap().unwrap();
        }
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }
}
