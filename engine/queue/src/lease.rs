//! How long sessions are drawn from while the service that opened them is not heard.
//!
//! A session that came from an Authentication Service says for how many seconds: its lease. Whoever hears the service says so
//! ([`Queue::heard`](crate::Queue::heard)); where nobody does for that long nothing of the session is handed out, and once it
//! is heard again the session goes on. The clocks are looked at when somebody draws, so no timer has to run for a lease to end,
//! and a machine that slept wakes up with leases that are over. A session that was made by hand has none.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use obol_session::clock::Reading;
use parking_lot::Mutex;

/// When the service was heard last.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    heard: AtomicBool,
    wall: AtomicU64,
    monotonic: AtomicU64,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Contact {
    /// The last time, if there was one since the start. Whoever reads while it is written may see one clock's time from before:
    /// the longer time counts, so that ends a lease too early at worst.
    pub(crate) fn last(&self) -> Option<Reading> {
        let heard = self.heard.load(Ordering::Acquire);
        heard.then(|| Reading {
            wall: self.wall.load(Ordering::Acquire),
            monotonic: self.monotonic.load(Ordering::Acquire),
        })
    }

    /// It was heard at this time.
    pub(crate) fn note(&self, at: Reading) {
        let _one_at_a_time = self.writing.lock();
        // A report that was overtaken by a later one takes nothing away.
        if self.last().is_none_or(|last| at.monotonic >= last.monotonic) {
            self.wall.store(at.wall, Ordering::Release);
            self.monotonic.store(at.monotonic, Ordering::Release);
            self.heard.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_was_overtaken_changes_nothing() {
        let contact = Contact::default();
        assert_eq!(contact.last(), None);
        let later = Reading { wall: 1_000, monotonic: 50 };
        contact.note(later);
        contact.note(Reading { wall: 999, monotonic: 49 });
        assert_eq!(contact.last(), Some(later));
        // Somebody set the wall's clock back: what was heard since is measured by that.
        let set_back = Reading { wall: 900, monotonic: 51 };
        contact.note(set_back);
        assert_eq!(contact.last(), Some(set_back));
    }
}
