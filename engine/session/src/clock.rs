//! Time, handed in so that nothing here depends on the machine's.

use core::fmt;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Wall-clock time in Unix seconds. It may step in either direction.
    fn now(&self) -> u64;

    /// The same in Unix milliseconds, and exact where the clock can be.
    fn now_ms(&self) -> u64 {
        self.now().saturating_mul(1_000)
    }

    /// Seconds since some fixed moment. Never steps back, and does not follow corrections of the wall clock.
    fn monotonic(&self) -> u64;
}

/// The machine's clocks. Seconds are as the kernel last updated them: a hand-out asks for the time, and the exact one costs
/// several times as much. They are behind by one tick of the kernel at most, 10 ms or less. Milliseconds are exact.
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

    fn now_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000);
        whole.saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
    }

    fn monotonic(&self) -> u64 {
        seconds(ClockId::MonotonicCoarse)
    }
}

/// Both clocks at one moment: the wall's, which somebody may set, and the one that never steps but sleeps with the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The wall's, in Unix seconds.
    pub wall: u64,
    /// The other, in seconds since some fixed moment.
    pub monotonic: u64,
}

impl Reading {
    /// What the clocks show now.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// Seconds since then, by whichever clock says more: after a sleep that is the wall's, after somebody set the wall's clock
    /// back it is the other.
    pub fn since(self, then: Self) -> u64 {
        self.wall.saturating_sub(then.wall).max(self.monotonic.saturating_sub(then.monotonic))
    }
}

fn seconds(clock: ClockId) -> u64 {
    u64::try_from(clock_gettime(clock).tv_sec).unwrap_or(0)
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> u64 {
        (**self).now()
    }

    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }

    fn monotonic(&self) -> u64 {
        (**self).monotonic()
    }
}
