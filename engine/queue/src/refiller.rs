//! The refiller: the one thread that mints.
//!
//! It serves partitions that asked, and looks after all of them a few times a second: observes demand, drops what has
//! become too old, lets go of sessions whose time is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use obol_token::Validity;

use crate::batch::{BatchError, BatchKey, Draft, RowHeader};
use crate::demand::{Plan, Waiting};
use crate::partition::Partition;
use crate::shared::{Chore, Session, Shared};
use crate::source::{Order, Tokens};
use crate::writer::Job;

/// How often every partition is looked after.
const TICK: Duration = Duration::from_millis(100);
/// The most tokens minted for one partition before others get their turn.
const MAX_TURN: usize = 512;
/// Wait after a first failure to mint; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between attempts to mint.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// What a token is expected to take, so that a batch is seldom moved while it is filled.
const TYPICAL_TOKEN_BYTES: usize = 512;
/// A session is kept this long after its end, in seconds, so that a clock a little off does not lose it early.
const SESSION_GRACE_SECS: u64 = 5;

pub(crate) struct Refiller {
    pub(crate) shared: Arc<Shared>,
}

impl Refiller {
    pub(crate) fn run(self) {
        let mut last = Instant::now();
        loop {
            let due = self.shared.refills.wait(TICK);
            if self.shared.is_stopping() {
                return;
            }
            // After a failure nobody asks for refills, so the wait above is a rest, and one that a stop can end.
            if self.shared.check().is_err() {
                continue;
            }
            self.shared.settle_era();
            for partition in &due {
                self.serve(partition);
            }
            let elapsed = last.elapsed();
            if elapsed >= TICK {
                last = Instant::now();
                self.look_after_all(elapsed);
            }
        }
    }

    fn look_after_all(&self, elapsed: Duration) {
        let now = self.shared.timeline.look().now;
        let sessions: Vec<_> = self.shared.sessions.read().values().cloned().collect();
        for session in sessions {
            if now > session.expires_at.saturating_add(SESSION_GRACE_SECS) {
                retire(&self.shared, &session);
            } else if session.is_active() {
                for partition in &session.partitions {
                    self.look_after(partition, now, elapsed);
                }
            }
        }
    }

    fn look_after(&self, partition: &Arc<Partition>, now: u64, elapsed: Duration) {
        partition.drop_expired(&self.shared.timeline);
        let (handed_out, _, _) = partition.used();
        let evict = {
            let mut refill = partition.refill.lock();
            refill.demand.observe(handed_out, elapsed);
            let due = partition.count.stored.load(Ordering::Relaxed) > 0
                && now.saturating_add(partition.min_life) > refill.evict_after;
            if due {
                refill.evict_after = now.saturating_add(partition.grant.ttl / 2).saturating_add(1);
            }
            due
        };
        if evict {
            self.send(Job::Evict { partition: Arc::clone(partition) });
        }
        self.serve(partition);
    }

    /// Mints and claims what the partition lacks.
    fn serve(&self, partition: &Arc<Partition>) {
        let now = self.shared.timeline.look().now;
        if partition.is_denied() || now >= partition.session_end || partition.key().key.is_none() {
            partition.renewal_done();
            return;
        }
        let Some(plan) = self.plan(partition) else { return };
        partition.set_low_water(plan.low_water);
        let turn = plan.mint.min(MAX_TURN.max(plan.claim));
        let minted = self.mint(partition, turn, plan.batch);
        if plan.claim > 0 {
            self.send(Job::Claim { partition: Arc::clone(partition), tokens: plan.claim });
        } else {
            partition.renewal_done();
        }
        match minted {
            Ok(()) if turn < plan.mint => self.shared.refills.ask(partition),
            Ok(()) => {}
            Err(error) => self.back_off(partition, &error),
        }
    }

    fn plan(&self, partition: &Partition) -> Option<Plan> {
        let mut refill = partition.refill.lock();
        if refill.not_before.is_some_and(|time| Instant::now() < time) {
            return None;
        }
        let ready = partition.ready_len() + refill.claiming;
        if ready == 0 && partition.renewal_pending() {
            refill.demand.missed();
        }
        let on_disk =
            partition.count.stored.load(Ordering::Relaxed) + partition.count.storing.load(Ordering::Relaxed);
        let stored = usize::try_from(on_disk).unwrap_or(usize::MAX).saturating_sub(refill.claiming);
        let usable = Duration::from_secs(partition.grant.ttl.saturating_sub(partition.min_life));
        let waiting = Waiting { ready, stored, next_batch: refill.next_batch };
        let plan = refill.demand.plan(waiting, usable, &self.shared.settings.limits);
        if plan.claim > 0 {
            refill.claiming += plan.claim;
            refill.asked_at.get_or_insert_with(Instant::now);
        }
        Some(plan)
    }

    /// Mints `tokens` in batches and sends them to the writer.
    fn mint(&self, partition: &Arc<Partition>, tokens: usize, batch: u16) -> Result<(), BatchError> {
        let mut left = tokens;
        while left > 0 {
            let count = u16::try_from(left).unwrap_or(u16::MAX).min(batch.max(1));
            left -= usize::from(count);
            if !self.mint_batch(partition, count)? {
                return Ok(());
            }
        }
        partition.refill.lock().failures = 0;
        Ok(())
    }

    /// Mints one batch. Tells whether the partition could still use it.
    fn mint_batch(&self, partition: &Arc<Partition>, count: u16) -> Result<bool, BatchError> {
        let shared = &self.shared;
        let before = shared.timeline.look();
        let (key, sequence) = {
            // Under one lock: a flush sets its floor there, so what is sealed under an old key lies below it.
            let key = partition.key();
            let Some(sealing) = key.key.clone() else { return Ok(false) };
            (sealing, shared.sequence.fetch_add(1, Ordering::SeqCst))
        };
        // The sequence first, the era afterwards: see `Shared::settle_era`.
        if shared.timeline.look().era != before.era {
            return Ok(false);
        }
        let expires_at = before.now.saturating_add(partition.grant.ttl).min(partition.session_end);
        let [a, b, c, d, ..] = shared.store_id;
        let policy_epoch = shared.min_policy_epoch.load(Ordering::SeqCst).max(partition.session_policy_epoch);
        let order = Order {
            grant: &partition.grant,
            session_id: partition.session_id,
            count,
            validity: Validity { issued_at: before.now, expires_at },
            policy_epoch,
            instance: [a, b, c, d],
            first_number: shared.counter.fetch_add(u64::from(count), Ordering::SeqCst),
        };
        let place = BatchKey { partition: partition.id, expires_at, sequence };
        let header = RowHeader { count, key_id: key.id(), policy_epoch };
        let mut draft = Draft::new(place, header, before.now, TYPICAL_TOKEN_BYTES);
        shared.source.mint(&order, &mut Tokens(&mut draft))?;
        if !draft.is_full() {
            let filled = draft.filled();
            return Err(BatchError::Source(format!("the source made {filled} tokens instead of {count}")));
        }
        let batch = draft.seal(&key)?;
        let tokens = u64::from(count);
        partition.count.minted.fetch_add(tokens, Ordering::Relaxed);
        partition.count.storing.fetch_add(tokens, Ordering::Relaxed);
        self.send(Job::Store { partition: Arc::clone(partition), batch });
        Ok(true)
    }

    /// Waits longer after each failure, each partition for a time of its own.
    fn back_off(&self, partition: &Partition, error: &BatchError) {
        tracing::error!(tool = partition.tool(), %error, "minting failed");
        let mut random = [0; 1];
        let _plain_backoff_without_randomness = getrandom::fill(&mut random);
        let mut refill = partition.refill.lock();
        let wait = FIRST_BACKOFF.saturating_mul(1 << refill.failures.min(10)).min(MAX_BACKOFF);
        refill.failures = refill.failures.saturating_add(1);
        refill.not_before = Some(Instant::now() + wait + wait.mul_f64(f64::from(random[0]) / 512.0));
    }

    /// Waits while the writer is behind. After the writer has gone there is nobody left to care.
    fn send(&self, job: Job) {
        let _writer_gone = self.shared.jobs.send(job);
    }
}

/// Lets go of a session whose time is over.
fn retire(shared: &Shared, session: &Arc<Session>) {
    let _admin = shared.admin.lock();
    if shared.sessions.write().remove(&session.id).is_none() {
        return;
    }
    let was_flushed = !session.is_active();
    session.end();
    if shared.current.load().as_ref().is_some_and(|current| current.id == session.id) {
        shared.current.store(None);
    }
    for partition in &session.partitions {
        shared.chore(Chore::Discard { partition: partition.id, below: u64::MAX });
    }
    shared.chore(Chore::Forget { session: session.id });
    if !was_flushed {
        shared.chore(Chore::Release { slots: session.slots() });
    }
    tracing::info!(session = %session.id, "the session's time is over");
}
