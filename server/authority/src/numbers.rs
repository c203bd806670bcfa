//! Numbers of sessions: milliseconds since 1970 (42 bits) ‖ node (10) ‖ counter (12). They rise, also over a restart, a clock
//! that goes back and a directory that was put back, so that none is ever given twice.

use obol_session::SessionId;
use parking_lot::Mutex;

const NODE_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;

/// Gives out numbers.
#[derive(Debug)]
pub(crate) struct SessionNumbers {
    node: u64,
    last: Mutex<u64>,
}

impl SessionNumbers {
    /// Numbers above `last`, which was the greatest so far.
    pub(crate) fn above(last: SessionId, node: u16) -> Self {
        Self { node: u64::from(node), last: Mutex::new(last.as_u64()) }
    }

    /// The next number. `now_ms` is the time in milliseconds since 1970.
    pub(crate) fn next(&self, now_ms: u64) -> SessionId {
        let first_of = |ms: u64| (ms << (NODE_BITS + COUNTER_BITS)) | (self.node << COUNTER_BITS);
        let mut last = self.last.lock();
        let last_ms = *last >> (NODE_BITS + COUNTER_BITS);
        let next = match now_ms.cmp(&last_ms) {
            core::cmp::Ordering::Greater => first_of(now_ms),
            // Within one millisecond, or with a clock that went back: count on, into the next one if need be.
            _ => {
                let counted = last.wrapping_add(1);
                let same_node = counted >> COUNTER_BITS == first_of(last_ms) >> COUNTER_BITS;
                if same_node { counted } else { first_of(last_ms + 1) }
            }
        };
        *last = next;
        SessionId::from_u64(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_whatever_the_clock_does() {
        let numbers = SessionNumbers::above(SessionId::from_u64(0), 3);
        let mut last = 0;
        for now in [1_000, 1_000, 1_001, 999, 0, 1_001, 5_000] {
            for _ in 0..5_000 {
                let next = numbers.next(now).as_u64();
                assert!(next > last);
                assert_eq!((next >> COUNTER_BITS) & 1_023, 3, "the node stays");
                last = next;
            }
        }
        assert!(last >> 22 >= 5_000);
        let after_a_restart = SessionNumbers::above(SessionId::from_u64(last), 3).next(10);
        assert!(after_a_restart.as_u64() > last);
    }
}
