//! How often, and after what waits, a change is tried that another server was faster with.
//!
//! Whoever lost draws a random wait from a range that doubles, so that of two servers in step one falls behind and the
//! other gets through. A server that always tried at once could lose every time to one that is nearer to Redis.

use core::time::Duration;

/// How often one change is tried.
const MAX_ATTEMPTS: u32 = 16;
/// The longest wait between two attempts. All of them together take half a second at most.
const MAX_WAIT: Duration = Duration::from_millis(32);

/// The attempts at one change: the first at once, each of the others after a wait of its own.
///
/// It blocks the thread that asks for the next one.
pub fn attempts() -> impl Iterator<Item = u32> {
    (0..MAX_ATTEMPTS).inspect(|&attempt| std::thread::sleep(wait_before(attempt)))
}

fn wait_before(attempt: u32) -> Duration {
    let mut random = [0xff; 4];
    let _the_longest_wait_then = getrandom::fill(&mut random);
    longest_wait_before(attempt).mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

fn longest_wait_before(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        _ => (Duration::from_millis(1) * (1 << (attempt - 1).min(5))).min(MAX_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_does_not_wait_and_all_of_them_end_within_half_a_second() {
        assert_eq!(wait_before(0), Duration::ZERO);
        let waits: Vec<_> = (0..MAX_ATTEMPTS).map(longest_wait_before).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits.iter().sum::<Duration>() < Duration::from_millis(500), "{waits:?}");
    }

    #[test]
    fn two_servers_in_step_do_not_stay_in_step() {
        let draws = || (6..MAX_ATTEMPTS).map(wait_before).collect::<Vec<_>>();
        assert_ne!(draws(), draws());
    }
}
