//! Time, handed in so that nothing here depends on the machine's.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Wall-clock time in Unix seconds. It may step in either direction.
    fn now(&self) -> u64;

    /// Seconds since some fixed moment. Never steps back, and does not follow corrections of the wall clock.
    fn monotonic(&self) -> u64;
}

/// The machine's clocks, as the kernel last updated them: a hand-out asks for the time, and the exact one costs several
/// times as much. They are behind by one tick of the kernel at most, 10 ms or less, and everything here counts in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clocks.
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        // A clock set before 1970 reads as 0: every token is then issued in the future, and refused.
        seconds(ClockId::RealtimeCoarse)
    }

    fn monotonic(&self) -> u64 {
        seconds(ClockId::MonotonicCoarse)
    }
}

fn seconds(clock: ClockId) -> u64 {
    u64::try_from(clock_gettime(clock).tv_sec).unwrap_or(0)
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> u64 {
        (**self).now()
    }

    fn monotonic(&self) -> u64 {
        (**self).monotonic()
    }
}

/// A clock that stands still until it is moved: for tests, and for requests that bring their own time.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now` (Unix seconds).
    pub fn new(now: u64) -> Self {
        Self { now: AtomicU64::new(now), monotonic: AtomicU64::new(0) }
    }

    /// Time passes: both readings grow.
    pub fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
        self.monotonic.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock: no time passes.
    pub fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}
