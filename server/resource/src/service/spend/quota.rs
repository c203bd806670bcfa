//! How many identifiers are remembered at a time, so that there is always room for tokens.

use std::collections::BTreeMap;

use obol_verify::{MAX_LIVE_MARKS, SpendError};

/// The most identifiers of one process.
const MAX_IDENTIFIERS: u64 = 1 << 20;
/// The most marks of any kind with which one more identifier is taken.
const MAX_MARKS: usize = MAX_LIVE_MARKS / 2;
/// They are counted by when they expire, in steps of so many seconds.
const STEP_SECS: u64 = 60;

/// How many of this process's identifiers have not expired.
#[derive(Debug, Default)]
pub(super) struct Quota {
    by_end: BTreeMap<u64, u64>,
    all: u64,
}

impl Quota {
    /// Takes room for one. `marks`: how many the set holds, where that is known.
    pub(super) fn take(&mut self, expires: u64, now: u64, marks: Option<usize>) -> Result<(), SpendError> {
        let living = self.by_end.split_off(&(now / STEP_SECS));
        let ended = core::mem::replace(&mut self.by_end, living);
        self.all -= ended.into_values().sum::<u64>();
        if self.all >= MAX_IDENTIFIERS || marks.is_some_and(|marks| marks >= MAX_MARKS) {
            return Err(SpendError::Unavailable("too many identifiers have not expired yet".into()));
        }
        *self.by_end.entry(expires.max(now) / STEP_SECS).or_default() += 1;
        self.all += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_until_they_expire() {
        let mut quota = Quota::default();
        for number in 0..MAX_IDENTIFIERS {
            assert_eq!(quota.take(100 + number % 1_000, 100, None), Ok(()));
        }
        assert!(matches!(quota.take(200, 100, None), Err(SpendError::Unavailable(_))));
        assert!(matches!(quota.take(200, 119, None), Err(SpendError::Unavailable(_))));
        // The first step is over, and with it those that end in it.
        assert_eq!(quota.take(200, 180, None), Ok(()));
        assert_eq!(quota.take(9_000, 8_000, None), Ok(()));
        assert_eq!((quota.all, quota.by_end.len()), (1, 1));
    }

    #[test]
    fn identifiers_leave_room_for_tokens_also_after_a_restart() {
        let mut quota = Quota::default();
        assert!(quota.take(200, 100, Some(MAX_MARKS)).is_err());
        assert_eq!(quota.take(200, 100, Some(MAX_MARKS - 1)), Ok(()));
    }
}
