//! How long a provider that could not answer is left alone.

use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use obol_atp::Host;
use parking_lot::Mutex;

/// The first and the longest pause; what is waited is a random part of it.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The most that a provider can ask to wait, in seconds.
const MAX_RETRY_AFTER_SECS: u64 = 3_600;

/// Failures in a row, by host.
#[derive(Debug, Default)]
pub(crate) struct BackOff(Mutex<HashMap<Host, Failures>>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

impl BackOff {
    /// One more failure; the provider may have said how many seconds to wait.
    pub(crate) fn failed(&self, host: &Host, retry_after: Option<u64>) {
        let mut all = self.0.lock();
        let count = all.get(host).map_or(0, |failures| failures.count);
        let pause = pause(count, random()).max(Duration::from_secs(asked(retry_after)));
        let next = Failures { count: count.saturating_add(1), until: Instant::now() + pause };
        all.insert(host.clone(), next);
    }

    pub(crate) fn over(&self, host: &Host) {
        self.0.lock().remove(host);
    }

    /// Whether it is still too early.
    pub(crate) fn holds(&self, host: &Host) -> bool {
        self.left(host) > Duration::ZERO
    }

    /// How long it still is, and how many failures there were.
    pub(crate) fn left(&self, host: &Host) -> Duration {
        let all = self.0.lock();
        all.get(host)
            .map_or(Duration::ZERO, |failures| failures.until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn count(&self, host: &Host) -> u32 {
        self.0.lock().get(host).map_or(0, |failures| failures.count)
    }
}

fn asked(retry_after: Option<u64>) -> u64 {
    retry_after.unwrap_or(0).min(MAX_RETRY_AFTER_SECS)
}

/// A random part (0 to 1) of what doubles with each failure.
fn pause(failures: u32, random: f64) -> Duration {
    let longest = PAUSE.0.saturating_mul(2_u32.saturating_pow(failures)).min(PAUSE.1);
    longest.mul_f64(random)
}

fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the whole pause is waited.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_as_long_as_was_asked() {
        let whole: Vec<_> = (0..9).map(|failures| pause(failures, 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((pause(3, 0.0), pause(1_000, 0.5).as_secs()), (Duration::ZERO, 30));
        let host: Host = "a.example".parse().unwrap();
        let back_off = BackOff::default();
        assert!(!back_off.holds(&host));
        back_off.failed(&host, Some(40));
        assert!(back_off.left(&host) > Duration::from_secs(39));
        back_off.failed(&host, Some(u64::MAX));
        assert!(back_off.left(&host) <= Duration::from_secs(MAX_RETRY_AFTER_SECS));
        back_off.over(&host);
        assert!(!back_off.holds(&host));
    }
}
