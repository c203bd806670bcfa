//! How much is done at a time. Whoever comes when there is too much is told so before anything is computed for them.

use core::net::{IpAddr, Ipv6Addr};
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;

use parking_lot::Mutex;
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
    /// Held by the one that is done without another thread.
    here: Mutex<()>,
}

impl Turnstile {
    pub(super) fn new(at_work: usize) -> Self {
        let (turns, waiting) = (Arc::new(Semaphore::new(at_work)), AtomicUsize::new(0));
        Self { turns, waiting, here: Mutex::new(()) }
    }

    /// As [`run`](Self::run), for what computes for a fraction of a millisecond and waits for nothing: on the caller's own thread where
    /// nobody waits for a turn and no other is done so, which spares waking two threads. Whoever floods the service gets one of
    /// the threads that serve connections at the most, and is sent away as by `run`.
    pub(super) async fn run_short<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        match self.run_here(act) {
            Ok(done) => done,
            Err(act) => self.run(act).await,
        }
    }

    /// Gives `act` back where it may not be done here.
    fn run_here<T, F: FnOnce() -> T>(&self, act: F) -> Result<Result<T, Problem>, F> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return Err(act);
        }
        let (Some(_here), Ok(_turn)) = (self.here.try_lock(), self.turns.try_acquire()) else {
            return Err(act);
        };
        Ok(catch_unwind(AssertUnwindSafe(act)).map_err(|_| {
            tracing::error!("a request ended in an internal error");
            Problem::overloaded()
        }))
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
    use std::sync::mpsc::{Sender, channel};

    use tokio::task::JoinHandle;

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
    #[expect(clippy::await_holding_lock, reason = "somebody else has it, who does not run here")]
    async fn what_is_short_is_done_on_the_callers_thread_unless_another_is_or_somebody_waits() {
        let here = || std::thread::current().id();
        let gate = Arc::new(Turnstile::new(2));
        assert_eq!(gate.run_short(here).await.unwrap(), here());
        let busy = gate.here.lock();
        assert_ne!(gate.run_short(here).await.unwrap(), here(), "another is done so");
        drop(busy);
        let waits = Waits::begin(&gate.waiting).unwrap();
        assert_ne!(gate.run_short(here).await.unwrap(), here(), "somebody waits");
        drop(waits);
        assert_eq!(gate.run_short(here).await.unwrap(), here());
        assert_eq!(gate.turns.available_permits(), 2);
    }

    /// Takes the only turn of a gate, until the sender is dropped.
    async fn full(gate: &Arc<Turnstile>) -> (Sender<()>, JoinHandle<bool>) {
        let (release, held) = channel();
        let first = tokio::spawn({
            let gate = Arc::clone(gate);
            async move { gate.run(move || held.recv()).await.is_ok() }
        });
        while gate.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        (release, first)
    }

    #[tokio::test]
    async fn what_is_short_waits_for_its_turn_where_there_is_none() {
        let gate = Arc::new(Turnstile::new(1));
        let (release, first) = full(&gate).await;
        let second = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.run_short(|| 7).await }
        });
        while gate.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished(), "it waits");
        drop(release);
        assert!(first.await.unwrap());
        assert_eq!(second.await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn what_is_short_and_panics_is_answered_and_leaves_the_gate_as_it_was() {
        let gate = Turnstile::new(1);
        let failed = gate.run_short(|| assert_eq!(1, 2, "on purpose")).await;
        assert_eq!(failed.unwrap_err().code(), "OVERLOADED");
        assert_eq!(gate.run_short(|| 7).await.unwrap(), 7);
        assert_eq!(gate.turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_sent_away_at_once() {
        let gate = Arc::new(Turnstile::new(1));
        let (release, first) = full(&gate).await;
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
        assert!(first.await.unwrap());
        for waited in waiting {
            waited.await.unwrap().unwrap();
        }
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }
}
