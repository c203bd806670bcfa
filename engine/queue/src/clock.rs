//! What happens when time jumps.
//!
//! Tokens live by the wall clock, because the resource server judges them by its own. A wall clock can step.
//! [`Timeline`] keeps the latest time it has seen: a step forward expires tokens (they may be fine, but the
//! resource server would refuse them), a step back makes the age of everything minted before it unknown, so
//! all of that is given up rather than revived.

use core::sync::atomic::{AtomicU64, Ordering};

use obol_session::clock::{Clock, Reading as Clocks};

/// How far the clock may run backwards, in seconds, before it counts as a step: time services slew by less.
const TOLERANCE_SECS: u64 = 2;

/// One look at the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reading {
    /// Unix seconds.
    pub(crate) now: u64,
    /// Counts backward steps. What was minted in another era is never handed out.
    pub(crate) era: u64,
}

/// The clock together with the latest time it ever showed.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Box<dyn Clock>,
    latest: AtomicU64,
    era: AtomicU64,
}

impl Timeline {
    /// Continues from the latest time an earlier process saw. Tells whether the clock is behind it, in which case
    /// everything that process left behind must be given up.
    pub(crate) fn resume(clock: Box<dyn Clock>, latest_before: u64) -> (Self, bool) {
        let now = clock.now();
        let behind = now.saturating_add(TOLERANCE_SECS) < latest_before;
        let latest = if behind { now } else { now.max(latest_before) };
        (Self { clock, latest: AtomicU64::new(latest), era: AtomicU64::new(0) }, behind)
    }

    /// Looks at the clock. Inside the tolerance, time stands still rather than run backwards.
    pub(crate) fn look(&self) -> Reading {
        let now = self.clock.now();
        // The latest time is read before the era and written after it: whoever sees the time of a new era also
        // sees that it is new.
        let latest = self.latest.load(Ordering::Acquire);
        let era = self.era.load(Ordering::Acquire);
        if now == latest {
            return Reading { now, era };
        }
        if now > latest {
            self.latest.fetch_max(now, Ordering::AcqRel);
            return Reading { now, era };
        }
        if now.saturating_add(TOLERANCE_SECS) >= latest {
            return Reading { now: latest, era };
        }
        self.step_back(now, latest)
    }

    /// Both clocks, as they are: what counts is how long ago something was, not when.
    pub(crate) fn both(&self) -> Clocks {
        Clocks::of(&*self.clock)
    }

    /// Begins a new era, once for any number of callers that notice the same step.
    fn step_back(&self, now: u64, latest: u64) -> Reading {
        // The era moves first: between the two writes a caller may see the new era with the old, later time, which
        // only expires more.
        let era = self.era.fetch_add(1, Ordering::AcqRel) + 1;
        let _lost_race = self.latest.compare_exchange(latest, now, Ordering::AcqRel, Ordering::Acquire);
        tracing::warn!(
            from = latest,
            to = now,
            "the clock stepped back; everything minted before is given up"
        );
        Reading { now, era }
    }

    /// The latest time seen, in Unix seconds; what a later process must not fall behind.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_clock::ManualClock;
    use std::sync::Arc;

    fn timeline(start: u64, latest_before: u64) -> (Arc<ManualClock>, Timeline, bool) {
        let clock = Arc::new(ManualClock::new(start));
        let (timeline, behind) = Timeline::resume(Box::new(Arc::clone(&clock)), latest_before);
        (clock, timeline, behind)
    }

    #[test]
    fn a_small_step_back_holds_time_still() {
        let (clock, timeline, _) = timeline(100_000, 0);
        timeline.look();
        clock.set(99_999);
        assert_eq!(timeline.look(), Reading { now: 100_000, era: 0 });
    }

    #[test]
    fn a_large_step_back_begins_one_new_era() {
        let (clock, timeline, _) = timeline(100_000, 0);
        let before = timeline.look();
        clock.set(100_000 - 86_400);
        let after = timeline.look();
        assert_ne!(before.era, after.era);
        assert_eq!(timeline.look(), after);
        clock.set(100_000);
        assert_eq!(timeline.look().era, after.era, "a step forward is not a new era");
    }

    #[test]
    fn a_process_that_starts_behind_says_so_and_one_ahead_does_not() {
        assert!(timeline(1000, 5000).2);
        assert!(!timeline(4999, 5000).2);
        assert!(!timeline(5001, 5000).2);
        assert_eq!(timeline(4999, 5000).1.look().now, 5000);
    }
}
