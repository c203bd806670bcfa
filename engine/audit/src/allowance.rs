//! How many lines refusals may have.
//!
//! A hand-out, or an acceptance, has a line of its own, always: each costs a token. A refusal costs nothing to bring
//! about, and a log that strangers can fill is a disk that is full, which stops everything. So refusals have lines of their
//! own only as far as an allowance goes; beyond it they are counted, and every [`SUMMARY_EVERY`] one line for each code says
//! how many there were. Who is known has an allowance apart, so that garbage from strangers does not hide what a real
//! agent is refused.

use core::time::Duration;
use std::time::Instant;

/// How often refusals without lines of their own are summed up.
pub(crate) const SUMMARY_EVERY: Duration = Duration::from_secs(10);
/// Lines at once about refusals of who is known, and how long it takes until there may be one more. At worst half a
/// gigabyte a day.
const KNOWN: Allowance = Allowance { burst: 1_000, each: Duration::from_millis(100) };
/// The same about strangers, at worst 40 megabytes a day.
const STRANGERS: Allowance = Allowance { burst: 100, each: Duration::from_secs(1) };

/// Who was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// Somebody who showed who they are: a process whose user was checked, or the holder of a genuine token.
    Known,
    /// Anybody who can send bytes.
    Stranger,
}

/// So many lines at once, and then one in each such time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    each: Duration,
}

/// What is left of an allowance.
#[derive(Debug)]
struct Budget {
    allowance: Allowance,
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, left: allowance.burst, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let Allowance { burst, each } = self.allowance;
        let earned = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= burst - self.left {
            (self.left, self.since) = (burst, now);
        } else {
            (self.left, self.since) = (self.left + earned, self.since + each * earned);
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

/// Refusals that have no lines of their own, and whether the next one may have one.
#[derive(Debug)]
pub(crate) struct Refusals {
    known: Budget,
    strangers: Budget,
    /// By code, of which there are few.
    counts: Vec<(&'static str, u64)>,
    summed_up: Instant,
}

impl Refusals {
    pub(crate) fn new(now: Instant) -> Self {
        let (known, strangers) = (Budget::new(KNOWN, now), Budget::new(STRANGERS, now));
        Self { known, strangers, counts: Vec::new(), summed_up: now }
    }

    /// Whether this one may have a line.
    pub(crate) fn allow(&mut self, party: Party, now: Instant) -> bool {
        match party {
            Party::Known => self.known.take(now),
            Party::Stranger => self.strangers.take(now),
        }
    }

    /// Counts one that has none.
    pub(crate) fn count(&mut self, code: &'static str) {
        match self.counts.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((code, 1)),
        }
    }

    /// When there is something to sum up, if there is.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.counts.is_empty()).then(|| self.summed_up + SUMMARY_EVERY)
    }

    /// How many had no lines since the last time, by code.
    pub(crate) fn sum_up(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        self.summed_up = now;
        core::mem::take(&mut self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_burst_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut budget = Budget::new(Allowance { burst: 3, each: Duration::from_secs(2) }, start);
        let mut at = |ms: u64, tries: usize| {
            let now = start + Duration::from_millis(ms);
            (0..tries).filter(|_| budget.take(now)).count()
        };
        assert_eq!(at(0, 10), 3);
        assert_eq!(at(1_999, 10), 0);
        assert_eq!(at(2_000, 10), 1);
        // Fractions are not lost, however often somebody asks.
        assert_eq!((2_001..=12_000).map(|ms| at(ms, 1)).sum::<usize>(), 5);
        assert_eq!(at(1_000_000, 10), 3);
    }

    #[test]
    fn what_has_no_line_is_counted_by_code_and_told_once_an_interval() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        assert_eq!(refusals.due(), None);
        for _ in 0..5 {
            refusals.count("INVALID_SIGNATURE");
        }
        refusals.count("TBAC_REQUIRED");
        assert_eq!(refusals.due(), Some(start + SUMMARY_EVERY));
        let told = refusals.sum_up(start + SUMMARY_EVERY);
        assert_eq!(told, [("INVALID_SIGNATURE", 5), ("TBAC_REQUIRED", 1)]);
        assert_eq!(refusals.due(), None);
        refusals.count("TBAC_REQUIRED");
        assert_eq!(refusals.due(), Some(start + SUMMARY_EVERY * 2));
    }

    #[test]
    fn strangers_do_not_use_up_the_lines_of_who_is_known() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        let lines = (0..100_000).filter(|_| refusals.allow(Party::Stranger, start)).count();
        assert_eq!(lines, STRANGERS.burst as usize);
        assert!(refusals.allow(Party::Known, start));
    }
}
