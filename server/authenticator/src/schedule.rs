//! When the next session is opened, and when a failure is tried again. No clock is read here and nothing is sent.

use obol_session::clock::Reading;

/// How much earlier or later than two thirds of a session's life it is renewed, in parts of a thousand of that: so that
/// agents which began together do not come together.
const JITTER_PER_MILLE: u64 = 100;
/// How soon a session that was found is followed by another at the latest, in seconds.
const ADOPTED_SECS: u64 = 30;
/// The longest pause after a failure, in seconds.
const LONGEST_PAUSE_SECS: u64 = 60;
/// The least life that a session must have left to be answered instead of a new one, in seconds, for sessions that are long
/// enough.
const LEAST_LEFT_SECS: u64 = 60;

/// How far the wall's clock jumped against the other between two moments, in seconds: a sleep, or somebody who set it.
pub(crate) fn jump(then: Reading, now: Reading) -> u64 {
    now.wall.abs_diff(then.wall).abs_diff(now.monotonic.saturating_sub(then.monotonic))
}

/// The life of one session, as this side sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    began: Reading,
    secs: u64,
    renew_after: u64,
}

impl Life {
    /// Of a session that ends at `expires_at`; `chance` is any number. What is left at the start counts as its life, so one
    /// that was found half over is renewed in time as well.
    pub(crate) fn new(began: Reading, expires_at: u64, chance: u64) -> Self {
        let secs = expires_at.saturating_sub(began.wall);
        let jitter = secs.saturating_mul(2 * JITTER_PER_MILLE) / 1_000;
        let earliest = secs.saturating_mul(2) / 3 - jitter.div_ceil(2);
        Self { began, secs, renew_after: earliest + chance % (jitter + 1) }
    }

    /// Of a session that was found: the next one is opened within a tenth of what is left, and half a minute.
    pub(crate) fn adopted(began: Reading, expires_at: u64, chance: u64) -> Self {
        let secs = expires_at.saturating_sub(began.wall);
        Self { began, secs, renew_after: chance % (secs / 10).clamp(1, ADOPTED_SECS) }
    }

    /// Whether it is time for the next one.
    pub(crate) fn is_due(&self, now: Reading) -> bool {
        now.since(self.began) >= self.renew_after
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self, now: Reading) -> bool {
        now.since(self.began) >= self.secs
    }

    /// Whether enough is left for somebody who wants to be sure.
    pub(crate) fn is_enough(&self, now: Reading) -> bool {
        self.secs.saturating_sub(now.since(self.began)) >= LEAST_LEFT_SECS.min(self.secs / 3).max(1)
    }

    /// Whether it was opened less than so many seconds ago.
    pub(crate) fn is_younger(&self, secs: u64, now: Reading) -> bool {
        now.since(self.began) < secs
    }

    /// When the next one is opened, in Unix seconds.
    pub(crate) fn renew_at(&self) -> u64 {
        self.began.wall.saturating_add(self.renew_after)
    }

    /// The longest pause that makes sense between two attempts to renew it, in seconds.
    fn longest_pause(&self) -> u64 {
        (self.secs / 10).clamp(1, LONGEST_PAUSE_SECS)
    }
}

/// Pauses after failures: twice as long at the most after each, and by chance shorter (full jitter).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct BackOff {
    failures: u32,
    /// When it failed last, and for how many seconds to wait.
    pause: Option<(Reading, u64)>,
}

impl BackOff {
    /// It failed; how many seconds to wait. `life` is that of the session there is.
    pub(crate) fn failed(&mut self, now: Reading, life: Option<&Life>, chance: u64) -> u64 {
        let longest = life.map_or(LONGEST_PAUSE_SECS, Life::longest_pause);
        let most = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.wait(now, 1 + chance % most)
    }

    /// Nothing will have changed soon; waits the longest pause, by chance a quarter less.
    pub(crate) fn refused(&mut self, now: Reading, chance: u64) -> u64 {
        self.wait(now, LONGEST_PAUSE_SECS - chance % (LONGEST_PAUSE_SECS / 4))
    }

    fn wait(&mut self, now: Reading, secs: u64) -> u64 {
        self.pause = Some((now, secs));
        secs
    }

    /// It went well, or something else changed that may make it go well.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether it may be tried.
    pub(crate) fn is_over(&self, now: Reading) -> bool {
        self.pause.is_none_or(|(since, secs)| now.since(since) >= secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_780_000_000;

    fn at(seconds: u64) -> Reading {
        Reading { wall: NOW + seconds, monotonic: 500 + seconds }
    }

    #[test]
    fn a_session_is_renewed_around_two_thirds_of_its_life_and_never_at_its_end() {
        for secs in [3, 6, 10, 900, 3_600] {
            let due: Vec<_> = (0..2_000)
                .map(|chance| {
                    let life = Life::new(at(0), NOW + secs, chance);
                    (0..=secs).find(|second| life.is_due(at(*second))).unwrap()
                })
                .collect();
            let (least, most) = (due.iter().min().unwrap(), due.iter().max().unwrap());
            assert!(*least * 10 >= secs * 5 && *most * 10 <= secs * 8, "{secs}: {least} to {most}");
            if secs >= 900 {
                assert!(most - least >= secs / 10, "{secs}: all come at once");
            }
        }
        for chance in 0..100 {
            assert!(Life::adopted(at(0), NOW + 900, chance).is_due(at(30)));
            assert!(Life::adopted(at(0), NOW + 9, chance).is_due(at(0)));
        }
        let over = Life::new(at(100), NOW, 7);
        assert!(over.is_due(at(100)) && over.is_over(at(100)) && !over.is_enough(at(100)));
    }

    #[test]
    fn a_sleep_and_a_clock_that_was_set_back_do_not_delay_it() {
        let life = Life::new(at(0), NOW + 900, 0);
        let slept = Reading { wall: NOW + 5_000, monotonic: 501 };
        assert!(life.is_due(slept) && life.is_over(slept));
        assert_eq!(jump(at(0), slept), 4_999);
        let set_back = Reading { wall: NOW - 5_000, monotonic: 500 + 700 };
        assert!(life.is_due(set_back) && !life.is_over(set_back));
        assert!(!life.is_due(at(300)) && life.is_enough(at(300)) && !life.is_enough(at(841)));
        assert_eq!(jump(at(0), at(10)), 0);
    }

    #[test]
    fn pauses_grow_to_a_minute_are_spread_and_fit_the_session() {
        let mut longest = Vec::new();
        for chance in 0..500 {
            let mut back_off = BackOff::default();
            let pauses: Vec<_> = (0..12).map(|_| back_off.failed(at(0), None, chance)).collect();
            assert!(pauses.iter().all(|pause| (1..=LONGEST_PAUSE_SECS).contains(pause)), "{pauses:?}");
            assert_eq!(pauses[0], 1);
            longest.push(pauses[11]);
            assert!(!back_off.is_over(at(0)) && back_off.is_over(at(pauses[11])));
            back_off.reset();
            assert!(back_off.is_over(at(0)));
        }
        assert!(longest.contains(&1) && longest.contains(&60), "full jitter");
        let short = Life::new(at(0), NOW + 30, 0);
        let mut back_off = BackOff::default();
        assert!((0..100).all(|chance| back_off.failed(at(0), Some(&short), chance) <= 3));
        assert!((0..100).all(|chance| (45..=60).contains(&back_off.refused(at(0), chance))));
    }
}
