//! The opener: the thread that decrypts claimed batches and makes them ready.
//!
//! It stands between the writer, whose next commit need not wait for it, and the callers. What comes to it is durably out
//! of the store; what it does not get to, because the process ends, is burned.

use core::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;

use crate::jobs::Claim;
use crate::partition::Partition;
use crate::shared::Shared;
use crate::store::ClaimedBatch;

pub(crate) struct Opener {
    pub(crate) shared: Arc<Shared>,
    pub(crate) claims: Receiver<Claim>,
}

impl Opener {
    /// Ends when the writer has.
    pub(crate) fn run(self) {
        for claim in &self.claims {
            self.make_ready(claim);
        }
    }

    /// Opens what was claimed and makes it ready. What does not open was flushed while it waited, or is damaged.
    fn make_ready(&self, claim: Claim) {
        let partition = &claim.partition;
        for batch in claim.batches {
            let count = usize::from(batch.count());
            self.open(partition, batch, claim.era);
            partition.arrived(count);
        }
        let max_ready = self.shared.settings.limits.max_ready;
        let next_batch = usize::from(claim.too_large);
        if next_batch > 0 {
            partition.lower_low_water(max_ready.saturating_sub(next_batch));
        }
        let mut refill = partition.refill.lock();
        refill.next_batch = next_batch;
        refill.claiming = refill.claiming.saturating_sub(claim.asked);
        if let Some(asked_at) = refill.asked_at.take() {
            let took = Instant::now().saturating_duration_since(asked_at);
            refill.demand.refilled(took);
        }
        drop(refill);
        partition.renewal_done();
        partition.available.notify(usize::MAX);
    }

    fn open(&self, partition: &Partition, batch: ClaimedBatch, era: u64) {
        let (count, sequence) = (u64::from(batch.count()), batch.sequence());
        // Decrypted without the gate: the writer takes it for every batch, and its commit must not wait for this. What
        // is flushed in the meantime is found below the floor afterwards, and wiped.
        let key = partition.key().key.clone();
        let opened = key.and_then(|key| batch.open(&key));
        let gate = partition.key();
        // What lies below was taken out of the count, and counted as given up, by whatever raised the floor.
        if sequence < gate.floor {
            return;
        }
        partition.forget_stored(count);
        let min_policy_epoch = self.shared.policy.min_epoch.load(Ordering::SeqCst);
        let latest = self.shared.timeline.latest();
        let mut given_up = count;
        match opened {
            Some(mut batch) if batch.policy_epoch >= min_policy_epoch && batch.issued_at <= latest => {
                batch.tokens.truncate(self.shared.settings.limits.max_ready);
                given_up -= batch.tokens.len() as u64;
                partition.push(&gate, batch, era);
            }
            Some(_) => {
                tracing::debug!(
                    partition = partition.id,
                    "a batch of an older policy or a later time is given up"
                );
            }
            None => {
                tracing::warn!(partition = partition.id, "a batch does not open; its tokens are given up");
            }
        }
        partition.count.discarded.fetch_add(given_up, Ordering::Relaxed);
    }
}
