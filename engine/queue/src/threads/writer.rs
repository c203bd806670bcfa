//! The writer: the one thread that changes the store.
//!
//! It collects all that is pending, applies it in one durable transaction, and only then lets the effects be seen:
//! claimed batches go on to the opener, callers get their answers. One fsync pays for everything in the group. When a
//! commit fails the writer stops for good and so does the queue ([`Shared::fail`]).

use core::panic::AssertUnwindSafe;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::jobs::{Chore, Claim, Job, Reply};
use crate::partition::Partition;
use crate::shared::Shared;
use crate::store::{
    BatchHeader, BatchKey, Committed, CompactWhen, Death, MintedBatch, Store, StoreError, Tables,
    UnconfirmedClaim, values,
};

/// The most jobs in one transaction.
const MAX_GROUP: usize = 256;
/// The most pieces of chores done while the queue closes.
const MAX_LAST_CHORES: usize = 256;
/// How often to check whether the file needs compacting.
const COMPACTION: Duration = Duration::from_secs(60);
/// How often chores are looked after while nothing else happens.
const IDLE: Duration = Duration::from_millis(50);

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) claims: Sender<Claim>,
    pub(crate) saved_time: u64,
    /// When the file was last found to need no compaction, or compacted.
    pub(crate) last_compaction: Instant,
}

/// What happens once the transaction is durable.
#[derive(Default)]
struct Effects {
    stored: Vec<(Arc<Partition>, MintedBatch)>,
    claimed: Vec<UnconfirmedClaims>,
    replies: Vec<Reply>,
    released: Vec<u32>,
    time: Option<u64>,
}

struct UnconfirmedClaims {
    partition: Arc<Partition>,
    batches: Vec<UnconfirmedClaim>,
    asked: usize,
    expired: u64,
    /// Tokens in the next batch, if there was no room for it.
    too_large: u16,
}

impl Writer {
    pub(crate) fn run(mut self) {
        loop {
            let (jobs, stop) = self.collect();
            if self.shared.check().is_err() {
                refuse(jobs, &self.shared);
            } else if jobs.is_empty() && !stop && self.last_compaction.elapsed() >= COMPACTION {
                self.last_compaction = Instant::now();
                if let Err(error) = self.compact() {
                    self.shared.fail(&error);
                }
            } else if let Err(error) = self.group(jobs) {
                self.shared.fail(&error);
            }
            if stop {
                return self.finish_chores();
            }
        }
    }

    /// Tidies up before the store is closed, so that the next to open it finds it clean; what does not get done is
    /// found again then.
    fn finish_chores(&mut self) {
        for _ in 0..MAX_LAST_CHORES {
            if self.shared.check().is_err() || self.shared.work.chores.lock().is_empty() {
                return;
            }
            if let Err(error) = self.group(Vec::new()) {
                self.shared.fail(&error);
            }
        }
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let compacted = catch_unwind(AssertUnwindSafe(|| self.store.compact(CompactWhen::Idle)));
        compacted.unwrap_or_else(|_| Err(StoreError::gave_up())).map(drop)
    }

    /// Everything that waits, at most one group.
    fn collect(&self) -> (Vec<Job>, bool) {
        let mut jobs = Vec::new();
        let has_chores = !self.shared.work.chores.lock().is_empty();
        let first = match self.jobs.recv_timeout(if has_chores { Duration::ZERO } else { IDLE }) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => return (jobs, false),
            Err(RecvTimeoutError::Disconnected) => return (jobs, true),
        };
        for job in core::iter::once(first).chain(self.jobs.try_iter().take(MAX_GROUP - 1)) {
            if matches!(job, Job::Stop) {
                return (jobs, true);
            }
            jobs.push(job);
        }
        (jobs, false)
    }

    fn group(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let chore = self.shared.work.chores.lock().pop_front();
        if jobs.is_empty() && chore.is_none() {
            return Ok(());
        }
        let era = self.shared.settle_era();
        let mut effects = Effects::default();
        let mut next_chore = None;
        let committed = self.guarded(|writer| {
            let ((), committed) = writer.store.commit(|tables| {
                for job in jobs {
                    writer.apply(job, tables, &mut effects)?;
                }
                if let Some(chore) = chore {
                    next_chore = do_chore(chore, tables, &mut effects)?;
                }
                writer.save_time(tables, &mut effects)
            })?;
            Ok(committed)
        });
        match committed {
            Ok(committed) => {
                self.settle(effects, era, &committed);
                if let Some(chore) = next_chore {
                    self.shared.chore(chore);
                }
                Ok(())
            }
            Err(error) => {
                let failed = self.shared.fail(&error);
                for reply in effects.replies {
                    let _gone = reply.send(Err(failed.clone()));
                }
                Err(error)
            }
        }
    }

    /// A panic inside the database, as a damaged file can cause one, is a failure like any other.
    fn guarded(
        &self,
        act: impl FnOnce(&Self) -> Result<Committed, StoreError>,
    ) -> Result<Committed, StoreError> {
        catch_unwind(AssertUnwindSafe(|| act(self))).unwrap_or_else(|_| Err(StoreError::gave_up()))
    }

    fn apply(&self, job: Job, tables: &mut Tables<'_>, effects: &mut Effects) -> Result<(), StoreError> {
        match job {
            Job::Store { partition, batch } => {
                // Given up while it waited: nobody could open it, or may.
                if batch.key.sequence < partition.key().floor {
                    let count = u64::from(batch.count);
                    partition.count.storing.fetch_sub(count, Ordering::Relaxed);
                    partition.count.discarded.fetch_add(count, Ordering::Relaxed);
                    return Ok(());
                }
                tables.put_batch(&batch)?;
                effects.stored.push((partition, batch));
            }
            Job::Claim { partition, tokens } => {
                effects.claimed.push(self.claim(partition, tokens, tables)?);
            }
            Job::Evict { partition } => {
                let is_counted = self.is_counted(&partition);
                let removed = tables.evict(partition.id, self.stale_at(&partition), is_counted)?;
                partition.forget_stored(removed.tokens);
                partition.count.expired.fetch_add(removed.tokens, Ordering::Relaxed);
            }
            Job::Session { id, row, reply } => {
                // The reply is noted first: whatever fails from here on, the caller hears of it.
                effects.replies.push(reply);
                // Read here and not where the job was made: jobs may overtake each other, the number must not go back.
                let next_partition = self.shared.next.partition.load(Ordering::SeqCst);
                tables.values.raise(values::NEXT_PARTITION, next_partition)?;
                tables.put_session(id.as_u64(), &row)?;
            }
            Job::Policy { policy, reply } => {
                effects.replies.push(reply);
                tables.values.put_policy(policy)?;
            }
            Job::Note { note, reply } => {
                effects.replies.push(reply);
                tables.values.put(values::NOTE, &note)?;
            }
            Job::Barrier { reply } => effects.replies.push(reply),
            Job::Stop => {}
        }
        Ok(())
    }

    fn claim(
        &self,
        partition: Arc<Partition>,
        asked: usize,
        tables: &mut Tables<'_>,
    ) -> Result<UnconfirmedClaims, StoreError> {
        let mut claim = UnconfirmedClaims { partition, batches: Vec::new(), asked, expired: 0, too_large: 0 };
        let partition = &claim.partition;
        let (stale_at, is_counted) = (self.stale_at(partition), self.is_counted(partition));
        let is_dead = |key: BatchKey, header| match (is_counted(key, header), key.expires_at <= stale_at) {
            (false, _) => Some(Death::Forgotten),
            (true, true) => Some(Death::Expired),
            (true, false) => None,
        };
        let mut tokens = 0;
        while tokens < asked {
            let room = partition.room(self.shared.settings.limits.max_ready);
            let claimed = tables.claim(partition.id, room, is_dead)?;
            claim.expired += claimed.expired;
            claim.too_large = claimed.too_large;
            let Some(batch) = claimed.batch else { break };
            tokens += usize::from(batch.count());
            partition.coming(usize::from(batch.count()));
            claim.batches.push(batch);
        }
        Ok(claim)
    }

    /// Tells whether a batch is among what is counted as stored, as the key and the policy stand now.
    fn is_counted(&self, partition: &Partition) -> impl Fn(BatchKey, BatchHeader) -> bool + use<> {
        let min_policy_epoch = self.shared.policy.min_epoch.load(Ordering::SeqCst);
        let key = partition.key().live();
        move |batch, header| !key.has_given_up(batch, header, min_policy_epoch)
    }

    /// Batches that end at or before this time are too old to be handed out, in Unix seconds.
    fn stale_at(&self, partition: &Partition) -> u64 {
        self.shared.timeline.look().now.saturating_add(partition.min_life).saturating_sub(1)
    }

    /// Notes the latest time seen along with whatever else is written.
    fn save_time(&self, tables: &mut Tables<'_>, effects: &mut Effects) -> Result<(), StoreError> {
        let latest = self.shared.timeline.latest();
        if latest != self.saved_time {
            tables.values.put(values::LATEST_TIME, &latest.to_be_bytes())?;
            effects.time = Some(latest);
        }
        Ok(())
    }

    fn settle(&mut self, effects: Effects, era: u64, committed: &Committed) {
        if let Some(time) = effects.time {
            self.saved_time = time;
        }
        for (partition, batch) in effects.stored {
            let stored = batch.stored(committed);
            let count = u64::from(stored.count);
            partition.count.storing.fetch_sub(count, Ordering::Relaxed);
            let key = partition.key();
            if stored.sequence >= key.floor {
                partition.count.stored.fetch_add(count, Ordering::Relaxed);
            }
        }
        for claim in effects.claimed {
            let UnconfirmedClaims { partition, batches, asked, expired, too_large } = claim;
            partition.forget_stored(expired);
            partition.count.expired.fetch_add(expired, Ordering::Relaxed);
            let batches = batches.into_iter().map(|batch| batch.confirm(committed)).collect();
            // The opener ends only after this thread.
            let _ended = self.claims.send(Claim { partition, batches, asked, too_large, era });
        }
        for reply in effects.replies {
            let _gone = reply.send(Ok(()));
        }
        if !effects.released.is_empty() {
            // The rows that hung on these slots are gone, durably; what is left is to overwrite them.
            if let Err(error) = self.shared.keys.slots.lock().destroy(&effects.released) {
                self.shared.fail(&error);
            }
        }
    }
}

/// Does a bounded piece of a chore; gives back what is left of it.
fn do_chore(
    chore: Chore,
    tables: &mut Tables<'_>,
    effects: &mut Effects,
) -> Result<Option<Chore>, StoreError> {
    match chore {
        Chore::Discard { partition, below } => {
            let removed = tables.discard(partition, below)?;
            return Ok(removed.more.then_some(Chore::Discard { partition, below }));
        }
        Chore::Tombstone { session, row } => tables.put_session(session.as_u64(), &row)?,
        Chore::Forget { session } => tables.remove_session(session.as_u64())?,
        Chore::Release { slots } => effects.released.extend(slots),
    }
    Ok(None)
}

/// Answers jobs that come after a failure.
fn refuse(jobs: Vec<Job>, shared: &Shared) {
    let Err(failed) = shared.check() else { return };
    for job in jobs {
        if let Job::Session { reply, .. }
        | Job::Policy { reply, .. }
        | Job::Note { reply, .. }
        | Job::Barrier { reply } = job
        {
            let _gone = reply.send(Err(failed.clone()));
        }
    }
}
