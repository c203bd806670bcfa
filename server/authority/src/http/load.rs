//! How much is done at a time. Whoever comes when there is too much is told so before anything is computed for them.

use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::problem::Problem;

/// The most requests that wait for their turn, of each kind.
const MAX_WAITING: usize = 256;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

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
