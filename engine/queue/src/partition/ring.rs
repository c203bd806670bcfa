//! The ring that tokens are handed out of, and the generation that a flush raises.
//!
//! **Flush and hand-out.** Every ready token remembers the generation it was pushed in. A flush raises the generation and
//! empties the ring while it holds the gate, and whatever lets tokens be made (their key) is taken away under the same
//! gate; tokens are pushed under it too. A hand-out takes a token first and compares generations afterwards. So a hand-out
//! that begins after the flush began finds either nothing, or a token of an older generation, which it throws away.
//!
//! **What a hand-out writes.** The ring's own head and nothing else that another thread reads, or threads that draw side
//! by side would wait for each other's cache lines. So hand-outs are not counted: [`Ring::numbers`] reckons them from
//! what was pushed and what is left.
//!
//! `shuttled.rs` runs this file under a scheduler that tries interleavings; it sees no other synchronisation than
//! what `sync` gives it.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, Queue};
use crate::clock::Reading;

/// A token in memory, durably claimed, waiting to be handed out.
pub(super) struct Ready<T> {
    pub(super) token: T,
    pub(super) expires_at: u64,
    /// Flush generation of the ring.
    pub(super) generation: u64,
    /// Era of the clock.
    pub(super) era: u64,
}

/// See the module's header. `G` is what the gate guards.
pub(super) struct Ring<T, G> {
    pub(super) ready: Queue<Ready<T>>,
    pub(super) generation: AtomicU64,
    gate: Mutex<G>,
    /// When the token handed out last ends; the next one ends no earlier.
    front: AtomicU64,
    pushed: AtomicU64,
    /// Became too old in the ring.
    expired: AtomicU64,
    /// Given up in the ring for any other reason.
    discarded: AtomicU64,
}

/// What became of the tokens of a ring since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Numbers {
    /// Exact but for those that are being handed out at this very moment.
    pub(super) handed_out: u64,
    pub(super) expired: u64,
    pub(super) discarded: u64,
}

impl<T, G> Ring<T, G> {
    pub(super) fn new(gate: G) -> Self {
        Self {
            ready: Queue::new(),
            generation: AtomicU64::new(0),
            gate: Mutex::new(gate),
            front: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
        }
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, G> {
        self.gate.lock()
    }

    /// Takes a token that may be handed out at this very moment, and when it ends.
    pub(super) fn take(&self, look: impl Fn() -> Reading, min_life: u64) -> Option<(T, u64)> {
        while let Some(ready) = self.ready.pop() {
            let reading = look();
            if ready.generation != self.generation.load(Ordering::SeqCst) || ready.era != reading.era {
                self.discarded.fetch_add(1, Ordering::Relaxed);
            } else if ready.expires_at < reading.now.saturating_add(min_life) {
                self.expired.fetch_add(1, Ordering::Relaxed);
            } else {
                self.set_front(ready.expires_at);
                return Some((ready.token, ready.expires_at));
            }
        }
        None
    }

    /// Makes tokens ready. The guard proves that no flush is under way.
    pub(super) fn push(
        &self,
        _gate: &MutexGuard<'_, G>,
        tokens: impl IntoIterator<Item = T>,
        expires_at: u64,
        era: u64,
    ) {
        let generation = self.generation.load(Ordering::SeqCst);
        if self.ready.is_empty() {
            self.set_front(expires_at);
        }
        let mut pushed = 0;
        for token in tokens {
            self.ready.push(Ready { token, expires_at, generation, era });
            pushed += 1;
        }
        self.pushed.fetch_add(pushed, Ordering::Relaxed);
    }

    /// Ends the hand-out of everything pushed so far, and wipes what is in the ring. Gives back how many there were.
    pub(super) fn give_up(&self, gate: &MutexGuard<'_, G>) -> u64 {
        self.raise_generation(gate);
        self.discard_ready(gate)
    }

    pub(super) fn raise_generation(&self, _gate: &MutexGuard<'_, G>) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn discard_ready(&self, _gate: &MutexGuard<'_, G>) -> u64 {
        let mut discarded = 0;
        for _ in 0..self.ready.len() {
            if self.ready.pop().is_none() {
                break;
            }
            discarded += 1;
        }
        self.discarded.fetch_add(discarded, Ordering::Relaxed);
        discarded
    }

    /// Wipes the tokens at the front that end before `limit`, so that an unused tool leaves none in memory.
    pub(super) fn drop_older(&self, limit: u64) {
        if self.front() >= limit {
            return;
        }
        // Under the gate nobody sees the ring without the token that is put back.
        let _gate = self.gate();
        for _ in 0..self.ready.len() {
            match self.ready.pop() {
                Some(ready) if ready.expires_at < limit => {
                    self.expired.fetch_add(1, Ordering::Relaxed);
                }
                // The first good one goes to the end of the ring; its neighbours end within seconds of it.
                Some(ready) => {
                    self.set_front(ready.expires_at);
                    self.ready.push(ready);
                    return;
                }
                None => return,
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// When the next token ends, to within one batch; 0 if none is ready.
    pub(super) fn next_end(&self) -> u64 {
        if self.ready.is_empty() { 0 } else { self.front() }
    }

    fn front(&self) -> u64 {
        self.front.load(Ordering::Relaxed)
    }

    /// Written only where it changes: threads that draw read it side by side.
    fn set_front(&self, expires_at: u64) {
        if self.front() != expires_at {
            self.front.store(expires_at, Ordering::Relaxed);
        }
    }

    pub(super) fn numbers(&self) -> Numbers {
        // Under the gate nothing is pushed, so that what was pushed and what is left belong together.
        let _gate = self.gate();
        let taken = self.pushed.load(Ordering::Relaxed).saturating_sub(self.ready.len() as u64);
        let expired = self.expired.load(Ordering::Relaxed);
        let discarded = self.discarded.load(Ordering::Relaxed);
        Numbers { handed_out: taken.saturating_sub(expired + discarded), expired, discarded }
    }
}
