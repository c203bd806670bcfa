//! One partition: the tokens of one tool for one audience in one session.
//!
//! Why a flush and a hand-out cannot miss each other is in `ring.rs`.

mod ring;
#[cfg(test)]
mod shuttled;
mod sync;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::utils::CachePadded;
use event_listener::Event;
use obol_token::SessionId;
use parking_lot::{Mutex, MutexGuard};

use self::ring::Ring;
use crate::clock::Timeline;
use crate::demand::Demand;
use crate::grant::Grant;
use crate::identity::Identity;
use crate::keys::{KeyId, SealingKey};
use crate::store::{BatchHeader, BatchKey, OpenBatch, TokenBytes};

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
    /// Ready tokens; its gate is the lock of the key.
    ring: Ring<TokenBytes, PartitionKey>,
    denied: AtomicBool,
    /// A refill is under way, or has been asked for.
    renewal: AtomicBool,
    /// Ready tokens at which a refill is asked for.
    low_water: AtomicUsize,
    /// Tokens claimed and on their way into the ring: the writer adds, the opener takes away.
    incoming: AtomicUsize,
    pub(crate) available: Event,
    /// Apart from what a hand-out reads: the writer and the refiller change these all the time.
    pub(crate) count: CachePadded<Counters>,
    pub(crate) refill: CachePadded<Mutex<Refill>>,
}

/// Numbers that only grow, and two that go up and down. Those of the tokens in memory are the ring's.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) minted: AtomicU64,
    /// Attempts to mint that failed.
    pub(crate) mint_failures: AtomicU64,
    /// Tokens that became too old on disk.
    pub(crate) expired: AtomicU64,
    /// Tokens given up on disk, or when they came from there, for any other reason: a flush, a clock that stepped
    /// back, a damaged row.
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
    /// Tokens in the next batch on disk, where it was too large for the room there was; otherwise 0.
    pub(crate) next_batch: usize,
    /// Stored batches are looked at for eviction after this time, in Unix seconds.
    pub(crate) evict_after: u64,
    /// How often in a row minting has failed, and before when it is not tried again.
    pub(crate) failures: u32,
    pub(crate) not_before: Option<Instant>,
    /// The refiller looks after the partition.
    pub(crate) watched: bool,
    /// The partition waits among those to be served when nobody waits.
    pub(crate) queued: bool,
}

impl Refill {
    /// How long until minting is tried again after a failure.
    pub(crate) fn wait(&self) -> Duration {
        self.not_before.map_or(Duration::ZERO, |time| time.saturating_duration_since(Instant::now()))
    }

    /// Notes that minting goes well again, or that it has come to its end.
    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    /// Something is under way, or failed and will be tried again.
    pub(crate) fn is_busy(&self) -> bool {
        self.claiming > 0 || self.failures > 0 || self.queued
    }
}

impl Partition {
    /// A partition of this session for one of its grants.
    pub(crate) fn new(id: u64, session: &Identity, grant: Grant, min_life: u64, key: PartitionKey) -> Self {
        Self {
            id,
            session_id: session.id,
            min_life: grant.least_life(min_life),
            grant,
            session_end: session.expires_at,
            session_policy_epoch: session.policy_epoch,
            ring: Ring::new(key),
            denied: AtomicBool::new(false),
            renewal: AtomicBool::new(false),
            low_water: AtomicUsize::new(0),
            incoming: AtomicUsize::new(0),
            available: Event::new(),
            count: CachePadded::default(),
            refill: CachePadded::default(),
        }
    }

    pub(crate) fn tool(&self) -> &str {
        &self.grant.scope.tool
    }

    pub(crate) fn audience(&self) -> &str {
        self.grant.audience.as_str()
    }

    /// Takes a token that may be handed out at this very moment, and when it ends.
    pub(crate) fn take(&self, timeline: &Timeline) -> Option<(TokenBytes, u64)> {
        self.ring.take(|| timeline.look(), self.min_life)
    }

    /// Whether a token minted now could be handed out: what is left of the session is at least as long as the least life.
    pub(crate) fn can_mint(&self, now: u64) -> bool {
        now < self.session_end && now.saturating_add(self.min_life) <= self.session_end
    }

    /// Seconds that a token minted now can wait before it is too old to be handed out.
    pub(crate) fn usable(&self, now: u64) -> u64 {
        self.grant.ttl.min(self.session_end.saturating_sub(now)).saturating_sub(self.min_life)
    }

    /// Wipes the tokens at the front that have become too old, so that an unused tool leaves none in memory.
    pub(crate) fn drop_expired(&self, timeline: &Timeline) {
        self.ring.drop_older(timeline.look().now.saturating_add(self.min_life));
    }

    /// Tells, once, that a refill should be asked for.
    pub(crate) fn wants_refill(&self) -> bool {
        !self.renewal.load(Ordering::Relaxed)
            && self.ring.len() <= self.low_water.load(Ordering::Relaxed)
            && self.ask_refill()
    }

    /// Tells whether the caller is the one who asks.
    pub(crate) fn ask_refill(&self) -> bool {
        !self.renewal.load(Ordering::Relaxed) && !self.renewal.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn renewal_pending(&self) -> bool {
        self.renewal.load(Ordering::Acquire)
    }

    /// As [`Self::renewal_pending`], or minting has failed and will be tried again; and when to ask again then.
    pub(crate) fn renewal(&self) -> Option<Duration> {
        let pending = self.renewal_pending() || self.refill.lock().failures > 0;
        pending.then(|| self.retry_after())
    }

    pub(crate) fn renewal_done(&self) {
        self.renewal.store(false, Ordering::Release);
    }

    pub(crate) fn lower_low_water(&self, tokens: usize) {
        self.low_water.fetch_min(tokens, Ordering::Relaxed);
    }

    pub(crate) fn set_low_water(&self, tokens: usize) {
        self.low_water.store(tokens, Ordering::Relaxed);
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ring.len()
    }

    /// Tokens waiting, in memory and on disk.
    pub(crate) fn depth(&self) -> u64 {
        self.ring.len() as u64 + self.count.stored.load(Ordering::Relaxed)
    }

    /// When the next token ends, to within one batch; 0 if none is ready.
    pub(crate) fn next_end(&self) -> u64 {
        self.ring.next_end()
    }

    /// When somebody who found nothing should ask again.
    pub(crate) fn retry_after(&self) -> Duration {
        let refill = self.refill.lock();
        refill.demand.retry_after().max(refill.wait())
    }

    /// Seconds left of the next token, to within one batch; 0 if none is ready. Right after the clock has stepped back
    /// tokens of before are still in the ring, and would seem to live longer than any token does.
    pub(crate) fn life_left(&self, now: u64) -> u64 {
        self.ring.next_end().saturating_sub(now).min(self.grant.ttl)
    }

    /// Tokens handed out, expired and given up since the queue was opened, in this order.
    pub(crate) fn used(&self) -> (u64, u64, u64) {
        let ring = self.ring.numbers();
        let expired = ring.expired + self.count.expired.load(Ordering::Relaxed);
        let discarded = ring.discarded + self.count.discarded.load(Ordering::Relaxed);
        (ring.handed_out, expired, discarded)
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.denied.load(Ordering::SeqCst)
    }

    pub(crate) fn set_denied(&self, denied: bool) {
        self.denied.store(denied, Ordering::SeqCst);
    }

    pub(crate) fn key(&self) -> MutexGuard<'_, PartitionKey> {
        self.ring.gate()
    }

    /// Makes the tokens of an opened batch ready. The guard proves that no flush is under way.
    pub(crate) fn push(&self, key: &MutexGuard<'_, PartitionKey>, batch: OpenBatch, era: u64) {
        self.ring.push(key, batch.tokens, batch.expires_at, era);
    }

    /// How many more tokens may be claimed, so that no more than `most` are ready. A batch from a time when `most` was
    /// larger may come into an empty ring; the opener gives up what is too much of it.
    pub(crate) fn room(&self, most: usize) -> usize {
        let _nothing_moves = self.key();
        let taken = self.ring.len() + self.incoming.load(Ordering::Relaxed);
        if taken == 0 { usize::MAX } else { most.saturating_sub(taken) }
    }

    /// Notes that tokens are no longer on disk.
    pub(crate) fn forget_stored(&self, tokens: u64) {
        let less = |stored: u64| Some(stored.saturating_sub(tokens));
        let _always = self.count.stored.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Notes that tokens were claimed and are on their way.
    pub(crate) fn coming(&self, tokens: usize) {
        self.incoming.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Notes that they are in the ring, or given up.
    pub(crate) fn arrived(&self, tokens: usize) {
        self.incoming.fetch_sub(tokens, Ordering::Relaxed);
    }

    /// Ends the hand-out of everything below `floor`: no token in memory or on disk passes any more, and the key is
    /// gone. Gives back how many there were.
    ///
    /// `floor` is asked for under the key's lock: a batch takes its key and its sequence under the same lock, so all
    /// that is sealed under the old key lies below.
    pub(crate) fn seal_off(&self, floor: impl FnOnce() -> u64) -> u64 {
        let mut key = self.key();
        key.key = None;
        self.give_up_below(&mut key, floor())
    }

    /// As [`Self::seal_off`], but the key stays: what is minted from here on is good.
    pub(crate) fn give_up(&self, floor: u64) -> u64 {
        let mut key = self.key();
        self.give_up_below(&mut key, floor)
    }

    fn give_up_below(&self, key: &mut MutexGuard<'_, PartitionKey>, floor: u64) -> u64 {
        key.floor = key.floor.max(floor);
        let stored = self.count.stored.swap(0, Ordering::Relaxed);
        self.count.discarded.fetch_add(stored, Ordering::Relaxed);
        self.ring.give_up(key) + stored
    }
}

/// What of a partition's key decides, at one moment, whether a batch is of use: see [`LiveKey::has_given_up`].
pub(crate) struct LiveKey {
    key_id: Option<KeyId>,
    floor: u64,
}

impl PartitionKey {
    pub(crate) fn live(&self) -> LiveKey {
        LiveKey { key_id: self.key.as_ref().map(|key| key.id()), floor: self.floor }
    }
}

impl LiveKey {
    /// Whether a batch was given up, or will not open: it was flushed, or belongs to an earlier era of the clock, or its
    /// tokens are of a policy older than `min_policy_epoch`. Whatever gave it up took it out of the count of what is
    /// stored.
    pub(crate) fn has_given_up(&self, batch: BatchKey, header: BatchHeader, min_policy_epoch: u64) -> bool {
        batch.sequence < self.floor
            || self.key_id != Some(header.key_id)
            || header.policy_epoch < min_policy_epoch
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.id)
            .field("tool", &self.tool())
            .field("ready", &self.ring.len())
            .finish_non_exhaustive()
    }
}
