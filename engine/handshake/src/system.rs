//! The operating system's random numbers.

use crate::keys::Random;

/// The operating system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            // Predictable bytes would be keys that others know.
            std::process::abort();
        }
    }
}
