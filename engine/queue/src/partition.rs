//! One partition: the tokens of one tool for one audience in one session.
//!
//! **Flush and hand-out.** Every ready token remembers the flush epoch it was pushed in. A flush raises the epoch,
//! takes the key away and empties the ring while it holds the key's lock; the writer pushes tokens while it holds the
//! same lock. A hand-out takes a token first and compares epochs afterwards. So a hand-out that begins after the flush
//! began finds either nothing, or a token of an older epoch, which it throws away.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam::queue::SegQueue;
use event_listener::Event;
use obol_token::SessionId;
use parking_lot::{Mutex, MutexGuard};

use crate::batch::{OpenBatch, TokenBytes};
use crate::clock::Timeline;
use crate::demand::Demand;
use crate::seal::SealingKey;
use crate::session::Grant;
use crate::shared::Identity;

/// A token in memory, durably claimed, waiting to be handed out.
pub(crate) struct Ready {
    pub(crate) token: TokenBytes,
    pub(crate) expires_at: u64,
    /// Flush epoch of the partition.
    epoch: u64,
    /// Era of the clock.
    era: u64,
}

/// The key that this partition's batches are sealed under at the moment; none while a flush is under way and after
/// the session has ended.
pub(crate) struct PartitionKey {
    pub(crate) key: Option<Arc<SealingKey>>,
    pub(crate) slot: u32,
    /// Batches below this sequence were flushed, or belong to an earlier era of the clock.
    pub(crate) floor: u64,
}

/// See the module's header.
pub(crate) struct Partition {
    pub(crate) id: u64,
    pub(crate) session_id: SessionId,
    pub(crate) grant: Grant,
    /// Tokens with less life left than this are not handed out, in seconds.
    pub(crate) min_life: u64,
    /// When the session ends, in Unix seconds; no token outlives it.
    pub(crate) session_end: u64,
    /// The policy epoch the session was established under.
    pub(crate) session_policy_epoch: u64,
    ready: SegQueue<Ready>,
    epoch: AtomicU64,
    key: Mutex<PartitionKey>,
    denied: AtomicBool,
    /// A refill is under way, or has been asked for.
    renewal: AtomicBool,
    /// Ready tokens at which a refill is asked for.
    low_water: AtomicUsize,
    /// When the token handed out last ends; the next one ends no earlier.
    front: AtomicU64,
    pub(crate) available: Event,
    pub(crate) count: Counters,
    pub(crate) refill: Mutex<Refill>,
}

/// Numbers that only grow, and two that go up and down.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) minted: AtomicU64,
    pub(crate) handed_out: AtomicU64,
    /// Tokens that became too old while they waited.
    pub(crate) expired: AtomicU64,
    /// Tokens given up for any other reason: a flush, a clock that stepped back, a damaged row.
    pub(crate) discarded: AtomicU64,
    /// Tokens on disk now.
    pub(crate) stored: AtomicU64,
    /// Tokens on their way to the disk now.
    pub(crate) storing: AtomicU64,
}

/// What the refiller knows about this partition.
#[derive(Debug, Default)]
pub(crate) struct Refill {
    pub(crate) demand: Demand,
    pub(crate) asked_at: Option<Instant>,
    /// Tokens on their way from the disk.
    pub(crate) claiming: usize,
    /// Stored batches are looked at for eviction after this time, in Unix seconds.
    pub(crate) evict_after: u64,
    pub(crate) failures: u32,
    pub(crate) not_before: Option<Instant>,
}

impl Partition {
    /// A partition of this session for one of its grants.
    pub(crate) fn new(id: u64, session: &Identity, grant: Grant, min_life: u64, key: PartitionKey) -> Self {
        Self {
            id,
            session_id: session.id,
            min_life: min_life.min(grant.ttl / 4),
            grant,
            session_end: session.expires_at,
            session_policy_epoch: session.policy_epoch,
            ready: SegQueue::new(),
            epoch: AtomicU64::new(0),
            key: Mutex::new(key),
            denied: AtomicBool::new(false),
            renewal: AtomicBool::new(false),
            low_water: AtomicUsize::new(0),
            front: AtomicU64::new(0),
            available: Event::new(),
            count: Counters::default(),
            refill: Mutex::new(Refill::default()),
        }
    }

    pub(crate) fn tool(&self) -> &str {
        &self.grant.scope.tool
    }

    pub(crate) fn audience(&self) -> &str {
        self.grant.audience.uri()
    }

    /// Takes a token that may be handed out at this very moment.
    pub(crate) fn take(&self, timeline: &Timeline) -> Option<Ready> {
        while let Some(ready) = self.ready.pop() {
            let moment = timeline.look();
            if ready.epoch != self.epoch.load(Ordering::SeqCst) || ready.era != moment.era {
                self.count.discarded.fetch_add(1, Ordering::Relaxed);
            } else if ready.expires_at < moment.now.saturating_add(self.min_life) {
                self.count.expired.fetch_add(1, Ordering::Relaxed);
            } else {
                self.count.handed_out.fetch_add(1, Ordering::Relaxed);
                self.front.store(ready.expires_at, Ordering::Relaxed);
                return Some(ready);
            }
        }
        None
    }

    /// Wipes the tokens at the front that have become too old, so that an unused tool leaves none in memory.
    pub(crate) fn drop_expired(&self, timeline: &Timeline) {
        let limit = timeline.look().now.saturating_add(self.min_life);
        if self.front.load(Ordering::Relaxed) >= limit {
            return;
        }
        for _ in 0..self.ready.len() {
            match self.ready.pop() {
                Some(ready) if ready.expires_at < limit => {
                    self.count.expired.fetch_add(1, Ordering::Relaxed);
                }
                // The first good one goes to the end of the ring; its neighbours end within seconds of it.
                Some(ready) => {
                    self.front.store(ready.expires_at, Ordering::Relaxed);
                    self.ready.push(ready);
                    return;
                }
                None => return,
            }
        }
    }

    /// Tells, once, that a refill should be asked for.
    pub(crate) fn wants_refill(&self) -> bool {
        self.ready.len() <= self.low_water.load(Ordering::Relaxed) && self.ask_refill()
    }

    /// Tells whether the caller is the one who asks.
    pub(crate) fn ask_refill(&self) -> bool {
        !self.renewal.load(Ordering::Relaxed) && !self.renewal.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn renewal_pending(&self) -> bool {
        self.renewal.load(Ordering::Acquire)
    }

    pub(crate) fn renewal_done(&self) {
        self.renewal.store(false, Ordering::Release);
    }

    pub(crate) fn set_low_water(&self, tokens: usize) {
        self.low_water.store(tokens, Ordering::Relaxed);
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Tokens waiting, in memory and on disk.
    pub(crate) fn depth(&self) -> u64 {
        self.ready.len() as u64 + self.count.stored.load(Ordering::Relaxed)
    }

    /// Seconds left of the next token, to within one batch; 0 if none is ready. Right after the clock has stepped back
    /// tokens of before are still in the ring, and would seem to live longer than any token does.
    pub(crate) fn life_left(&self, now: u64) -> u64 {
        let ends = if self.ready.is_empty() { 0 } else { self.front.load(Ordering::Relaxed) };
        ends.saturating_sub(now).min(self.grant.ttl)
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.denied.load(Ordering::SeqCst)
    }

    pub(crate) fn set_denied(&self, denied: bool) {
        self.denied.store(denied, Ordering::SeqCst);
    }

    pub(crate) fn key(&self) -> MutexGuard<'_, PartitionKey> {
        self.key.lock()
    }

    /// Makes the tokens of an opened batch ready. The guard proves that no flush is under way.
    pub(crate) fn push(&self, _key: &MutexGuard<'_, PartitionKey>, batch: OpenBatch, era: u64) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        if self.ready.is_empty() {
            self.front.store(batch.expires_at, Ordering::Relaxed);
        }
        for token in batch.tokens {
            self.ready.push(Ready { token, expires_at: batch.expires_at, epoch, era });
        }
    }

    /// Ends the hand-out of everything below `floor`: no token in memory or on disk passes any more, and the key is
    /// gone. Gives back how many there were.
    ///
    /// `floor` is asked for under the key's lock: a batch takes its key and its sequence under the same lock, so all
    /// that is sealed under the old key lies below.
    pub(crate) fn seal_off(&self, floor: impl FnOnce() -> u64) -> u64 {
        let mut key = self.key.lock();
        key.key = None;
        self.give_up_below(&mut key, floor())
    }

    /// As [`Self::seal_off`], but the key stays: what is minted from here on is good.
    pub(crate) fn give_up(&self, floor: u64) -> u64 {
        let mut key = self.key.lock();
        self.give_up_below(&mut key, floor)
    }

    fn give_up_below(&self, key: &mut PartitionKey, floor: u64) -> u64 {
        key.floor = key.floor.max(floor);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.discard_ready() + self.count.stored.swap(0, Ordering::Relaxed)
    }

    /// Wipes what is ready now.
    fn discard_ready(&self) -> u64 {
        let mut discarded = 0;
        for _ in 0..self.ready.len() {
            if self.ready.pop().is_none() {
                break;
            }
            discarded += 1;
        }
        self.count.discarded.fetch_add(discarded, Ordering::Relaxed);
        discarded
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.id)
            .field("tool", &self.tool())
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}
