//! Spent marks in memory alone: the fast mode.

use core::fmt;
use std::sync::Arc;

use obol_session::clock::Clock;
use parking_lot::Mutex;

use super::index::{Index, SettledClock, horizon_at};
use super::{KEEP_MARGIN_SECS, MAX_LIVE_MARKS, Mark, SpendError, SpendTicket, SpentSet};

/// Spent marks in memory. Spending costs no disk; a restart forgets everything.
///
/// With a fence ([`fenced`](Self::fenced)) nothing that may have been spent before a restart is accepted after it:
/// every token issued up to the start plus clock skew is refused, so the server accepts nothing for that long. The
/// fence relies on a wall clock that does not step back across the restart; [`super::RedbSpentSet`] does not.
pub struct MemorySpentSet {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    fence: Option<u64>,
    keep_after_expiry: u64,
}

struct State {
    index: Index,
    settled: SettledClock,
}

impl MemorySpentSet {
    /// An empty set that refuses every token issued before it could know about it. `clock_skew` in seconds, as the
    /// verifier uses it.
    pub fn fenced(clock: Arc<dyn Clock>, clock_skew: u64) -> Self {
        // A token spent before the restart may carry an issue time as far in the future as the skew allows.
        let fence = clock.now().saturating_add(clock_skew);
        Self { fence: Some(fence), ..Self::unfenced(clock, clock_skew) }
    }

    /// An empty set without a fence. **What it gives up:** after a restart, a token that was spent before it and has
    /// not expired is accepted a second time. For tests, and for processes whose sessions are as new as they are.
    pub fn unfenced(clock: Arc<dyn Clock>, clock_skew: u64) -> Self {
        let state = State { index: Index::new(MAX_LIVE_MARKS), settled: SettledClock::new(&*clock) };
        let keep_after_expiry = clock_skew.saturating_add(KEEP_MARGIN_SECS);
        Self { state: Mutex::new(state), clock, fence: None, keep_after_expiry }
    }

    /// Holds at most this many marks; when it is full, every spend is refused.
    #[must_use]
    pub fn with_max_marks(self, max_marks: usize) -> Self {
        self.state.lock().index = Index::new(max_marks);
        self
    }
}

impl fmt::Debug for MemorySpentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySpentSet")
            .field("marks", &self.state.lock().index.len())
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl SpentSet for MemorySpentSet {
    fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        self.state.lock().index.is_spent(mark)
    }

    fn spend_with(&self, mark: Mark, with: Option<Mark>) -> SpendTicket {
        let mut state = self.state.lock();
        let result = state.index.insert(&mark, with.as_ref());
        let settled = state.settled.reading(&*self.clock);
        let forgotten = settled.map(|now| state.index.forget_before(horizon_at(now, self.keep_after_expiry)));
        drop(state);
        drop(forgotten);
        SpendTicket::ready(result)
    }

    fn fence(&self) -> Option<u64> {
        self.fence
    }

    fn keep_after_expiry(&self) -> u64 {
        self.keep_after_expiry
    }

    fn health(&self) -> Result<(), SpendError> {
        Ok(())
    }

    fn marks(&self) -> Option<usize> {
        Some(self.state.lock().index.len())
    }
}

#[cfg(test)]
mod tests {
    use obol_clock::ManualClock;
    use obol_token::{Jti, SessionId};

    use super::*;
    use crate::spent::index::{BUCKET_SECS, SETTLE_SECS};

    fn mark(byte: u8, expires_at: u64) -> Mark {
        Mark::new(SessionId::from_u64(1), &Jti::from_random([byte; 16]), expires_at)
    }

    #[test]
    fn marks_outlive_their_tokens_and_then_make_room() {
        let clock = Arc::new(ManualClock::new(1_000));
        let set = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<dyn Clock>, 60);
        set.spend(mark(1, 1_060)).wait().unwrap();
        // The last moment at which the token itself could still be accepted, by the slowest clock.
        clock.advance(60 + 60);
        set.spend(mark(2, clock.now() + 60)).wait().unwrap();
        assert_eq!(set.spend(mark(1, 1_060)).wait(), Err(SpendError::AlreadySpent));
        clock.advance(KEEP_MARGIN_SECS + BUCKET_SECS);
        set.spend(mark(3, clock.now() + 60)).wait().unwrap();
        clock.advance(SETTLE_SECS);
        set.spend(mark(4, clock.now() + 60)).wait().unwrap();
        assert_eq!(set.marks(), Some(3));
        assert_eq!(set.spend(mark(1, 1_060)).wait(), Err(SpendError::Forgotten));
    }

    #[test]
    fn a_clock_that_steps_back_revives_nothing() {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let set = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<dyn Clock>, 60);
        set.spend(mark(1, 1_000_060)).wait().unwrap();
        // The clock runs a day ahead for long enough to be believed, then is put right.
        clock.set(1_086_400);
        for byte in 2..6 {
            clock.advance(SETTLE_SECS);
            set.spend(mark(byte, clock.now() + 60)).wait().unwrap();
        }
        clock.set(1_000_010);
        assert_eq!(set.spend(mark(1, 1_000_060)).wait(), Err(SpendError::Forgotten));
        // Fail closed until time catches up.
        assert_eq!(set.spend(mark(9, 1_000_070)).wait(), Err(SpendError::Forgotten));
    }

    #[test]
    fn the_fence_lies_a_clock_skew_after_the_start() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000));
        assert_eq!(MemorySpentSet::fenced(Arc::clone(&clock), 60).fence(), Some(1_060));
        assert_eq!(MemorySpentSet::unfenced(clock, 60).fence(), None);
    }
}
