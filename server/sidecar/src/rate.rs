//! A rate limit as arithmetic: how much of a second's allowance is used up.

use std::time::Duration;

/// What may be used at once after a pause: this much of the rate.
pub(crate) const BURST: Duration = Duration::from_secs(1);
/// How far [`Bucket::charge`] may run into debt, so that one second of borrowing is not paid for by an hour.
const MOST_DEBT: u64 = nanos(BURST);

const fn nanos(duration: Duration) -> u64 {
    // A second; fits.
    duration.as_secs() * 1_000_000_000
}

/// Requests a second, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate(u64);

impl Rate {
    /// `None` for 0, which stands for no limit.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        (per_second > 0).then_some(Self(u64::from(per_second)))
    }

    /// An equal part of this rate for each of `peers`.
    pub(crate) fn shared_by(self, peers: usize) -> Self {
        let peers = u64::try_from(peers.max(1)).unwrap_or(u64::MAX);
        Self((self.0 / peers).max(1))
    }

    /// What one request uses up, in nanoseconds of the rate.
    fn cost(self) -> u64 {
        nanos(Duration::from_secs(1)) / self.0
    }
}

/// A token bucket that holds one second's worth, kept as the time until which it is used up (the generic cell rate
/// algorithm): no timer fills it, and it is one number. Times are nanoseconds since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    used_until: u64,
}

impl Bucket {
    /// Takes one request out; where the bucket is empty, says how long until there is one.
    pub(crate) fn take(&mut self, now: u64, rate: Rate) -> Result<(), Duration> {
        let used_until = self.used_until.max(now) + rate.cost();
        let earliest = used_until.saturating_sub(nanos(BURST));
        if earliest > now {
            return Err(Duration::from_nanos(earliest - now));
        }
        self.used_until = used_until;
        Ok(())
    }

    /// Takes one request out in any case, on credit if need be.
    pub(crate) fn charge(&mut self, now: u64, rate: Rate) {
        let used_until = self.used_until.max(now) + rate.cost();
        self.used_until = used_until.min(now + nanos(BURST) + MOST_DEBT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(bucket: &mut Bucket, now: u64, rate: Rate, tries: u32) -> usize {
        (0..tries).filter(|_| bucket.take(now, rate).is_ok()).count()
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(100).unwrap());
        assert_eq!(taken(&mut bucket, SECOND, rate, 1000), 100);
        assert_eq!(taken(&mut bucket, SECOND + SECOND / 2, rate, 1000), 50);
        assert_eq!(
            taken(&mut bucket, 100 * SECOND, rate, 1000),
            100,
            "a long pause saves no more than a second"
        );
    }

    #[test]
    fn the_wait_it_names_is_enough_and_not_too_long() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(7).unwrap());
        taken(&mut bucket, SECOND, rate, 7);
        let wait = u64::try_from(bucket.take(SECOND, rate).unwrap_err().as_nanos()).unwrap();
        assert!(bucket.take(SECOND + wait - 1, rate).is_err());
        assert!(bucket.take(SECOND + wait, rate).is_ok());
    }

    #[test]
    fn debt_is_bounded() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10).unwrap());
        for _ in 0..1000 {
            bucket.charge(SECOND, rate);
        }
        let wait = bucket.take(SECOND, rate).unwrap_err();
        assert!(wait <= Duration::from_millis(1100), "{wait:?}");
    }

    #[test]
    fn zero_is_no_limit_and_shares_are_never_zero() {
        assert_eq!(Rate::new(0), None);
        assert_eq!(Rate::new(10).unwrap().shared_by(1000), Rate(1));
        assert_eq!(Rate::new(10).unwrap().shared_by(0), Rate(10));
    }
}
