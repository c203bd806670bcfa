//! The refiller: the one thread that mints.
//!
//! It serves partitions that asked, one batch at a time, those first whose callers wait; so no tool waits for longer than it
//! takes to mint a batch, however many others want tokens. A few times a second it looks after the partitions that are
//! in use: observes demand, drops what has become too old. Partitions that have gone cold cost it nothing.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_token::Validity;

use crate::demand::{Demand, Plan, Waiting, early};
use crate::jobs::{Chore, Job};
use crate::partition::{Partition, Refill};
use crate::session::{Session, SessionState};
use crate::shared::Shared;
use crate::source::{Order, Tokens};
use crate::store::{BatchError, BatchHeader, BatchKey, Draft};

/// How often every partition in use is looked after.
const TICK: Duration = Duration::from_millis(100);
/// How often sessions are looked through for those whose time is over.
const SESSION_TICK: Duration = Duration::from_secs(1);
/// Wait after a first failure to mint; doubles with each further one, and half as much again at most is added by chance.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between attempts to mint, before what is added by chance.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// What a token is expected to take, so that a batch is seldom moved while it is filled.
const TYPICAL_TOKEN_BYTES: usize = 512;
/// A session is kept this long after its end, in seconds, so that a clock a little off does not lose it early.
const SESSION_GRACE_SECS: u64 = 5;
/// How long before the last session ends the log warns of it, in seconds.
const END_WARNING_SECS: u64 = 600;

pub(crate) struct Refiller {
    shared: Arc<Shared>,
    /// Partitions in use.
    watched: Vec<Arc<Partition>>,
    /// The end of the last session, in Unix seconds, once it was warned of.
    warned_of: u64,
}

impl Refiller {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, watched: Vec::new(), warned_of: 0 }
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.for_each_partition(|partition| self.watch(partition));
        let (mut last, mut last_sessions) = (Instant::now(), Instant::now());
        loop {
            let asked = shared.work.refills.next(TICK.saturating_sub(last.elapsed()));
            if shared.is_stopping() {
                return;
            }
            // After a failure nobody asks for refills, so the wait above is a rest, and one that a stop can end.
            if shared.check().is_err() {
                last = Instant::now();
                continue;
            }
            shared.settle_era();
            if let Some(partition) = asked {
                self.watch(&partition);
                self.serve(&partition);
            }
            let elapsed = last.elapsed();
            if elapsed >= TICK {
                last = Instant::now();
                shared.elect_if_over();
                self.look_after_all(elapsed);
            }
            if last_sessions.elapsed() >= SESSION_TICK {
                last_sessions = Instant::now();
                self.retire_sessions();
                // Also for a clock that stepped back: what was over may not be any more.
                shared.elect();
                self.warn_of_the_end();
            }
        }
    }

    fn watch(&mut self, partition: &Arc<Partition>) {
        if !core::mem::replace(&mut partition.refill.lock().watched, true) {
            self.watched.push(Arc::clone(partition));
        }
    }

    fn retire_sessions(&self) {
        let now = self.shared.timeline.look().now;
        for session in self.shared.sessions.by_age() {
            let is_over = now > session.expires_at.saturating_add(SESSION_GRACE_SECS);
            if is_over && !self.shared.holds_back_others(&session, now) {
                retire(&self.shared, &session);
            }
        }
    }

    /// Says, once, that the last session ends soon.
    fn warn_of_the_end(&mut self) {
        let (now, sessions) = (self.shared.timeline.look().now, self.shared.sessions.by_age());
        let states = self.shared.states(&sessions, now);
        let active = sessions.iter().zip(states).filter(|(_, state)| *state == SessionState::Active);
        let Some((last, _)) = active.max_by_key(|(session, _)| session.expires_at) else { return };
        let seconds = last.expires_at.saturating_sub(now);
        if seconds <= END_WARNING_SECS && self.warned_of != last.expires_at {
            self.warned_of = last.expires_at;
            tracing::warn!(
                session = %last.id, seconds,
                "the last session ends soon; provision the next one, or nothing is handed out after that"
            );
        }
    }

    fn look_after_all(&mut self, elapsed: Duration) {
        let now = self.shared.timeline.look().now;
        let mut watched = core::mem::take(&mut self.watched);
        watched.retain(|partition| {
            let in_use = self.look_after(partition, now, elapsed);
            if !in_use {
                partition.refill.lock().watched = false;
            }
            in_use
        });
        self.watched = watched;
    }

    /// Tells whether the partition is in use still.
    fn look_after(&self, partition: &Arc<Partition>, now: u64, elapsed: Duration) -> bool {
        if partition.key().key.is_none() {
            return false;
        }
        partition.drop_expired(&self.shared.timeline);
        let (handed_out, _, _) = partition.used();
        let on_disk = partition.count.stored.load(Ordering::Relaxed) > 0;
        if !partition.can_mint(now) {
            partition.refill.lock().succeeded();
        }
        let (evict, wants) = {
            let mut refill = partition.refill.lock();
            refill.demand.observe(handed_out, elapsed);
            let evict = on_disk && now.saturating_add(partition.min_life) > refill.evict_after;
            if evict {
                refill.evict_after = now.saturating_add(partition.grant.ttl / 2).saturating_add(1);
            }
            let plan = self.plan(partition, &refill, &mut refill.demand.clone());
            (evict, plan.mint > 0 || plan.claim > 0)
        };
        if evict {
            self.send(Job::Evict { partition: Arc::clone(partition) });
        }
        let asked = partition.renewal_pending();
        if wants || asked {
            self.ask_later(partition);
        }
        wants || asked || on_disk || partition.ready_len() > 0 || partition.refill.lock().is_busy()
    }

    /// Has the partition served once nobody waits.
    fn ask_later(&self, partition: &Arc<Partition>) {
        if !core::mem::replace(&mut partition.refill.lock().queued, true) {
            self.shared.work.refills.ask_later(partition);
        }
    }

    /// Claims what the partition lacks, and mints a batch if more is wanted.
    fn serve(&self, partition: &Arc<Partition>) {
        let now = self.shared.timeline.look().now;
        if partition.is_denied() || !partition.can_mint(now) || partition.key().key.is_none() {
            partition.renewal_done();
            return;
        }
        let plan = {
            let mut refill = partition.refill.lock();
            let mut demand = refill.demand.clone();
            let plan = self.plan(partition, &refill, &mut demand);
            refill.demand = demand;
            refill.claiming += plan.claim;
            if plan.claim > 0 {
                refill.asked_at.get_or_insert_with(Instant::now);
            }
            plan
        };
        partition.set_low_water(plan.low_water);
        // What waits on the disk can come while more is minted.
        let claim = |tokens| {
            if tokens > 0 {
                self.send(Job::Claim { partition: Arc::clone(partition), tokens });
            }
        };
        let waits = partition.count.stored.load(Ordering::Relaxed) > 0;
        if waits {
            claim(plan.claim);
        }
        let minted = self.mint(partition, plan.mint, plan.batch);
        if !waits {
            claim(plan.claim);
        }
        match minted {
            Ok(minted) => {
                if plan.claim == 0 {
                    partition.renewal_done();
                }
                if minted < plan.mint {
                    self.ask_later(partition);
                }
            }
            Err(error) => self.back_off(partition, &error),
        }
    }

    /// What the partition lacks now.
    fn plan(&self, partition: &Partition, refill: &Refill, demand: &mut Demand) -> Plan {
        let now = self.shared.timeline.look().now;
        let ready = partition.ready_len() + refill.claiming;
        if ready == 0 && partition.renewal_pending() {
            demand.missed();
        }
        let on_disk =
            partition.count.stored.load(Ordering::Relaxed) + partition.count.storing.load(Ordering::Relaxed);
        let stored = usize::try_from(on_disk).unwrap_or(usize::MAX).saturating_sub(refill.claiming);
        let soon = now + partition.min_life + early(partition.id, partition.grant.ttl);
        let ending = Some(partition.next_end()).filter(|end| *end > 0 && *end < soon);
        let waiting = Waiting { ready, stored, next_batch: refill.next_batch, ending };
        let plan =
            demand.plan(waiting, Duration::from_secs(partition.usable(now)), &self.shared.settings.limits);
        if !partition.can_mint(now) {
            Plan::default()
        } else if refill.wait().is_zero() {
            plan
        } else {
            // Minting fails at the moment; what is there already can be had.
            Plan { mint: 0, claim: plan.claim.min(stored), ..plan }
        }
    }

    /// Mints a batch of at most `tokens` and sends it to the writer. Gives back how many were minted.
    fn mint(&self, partition: &Arc<Partition>, tokens: usize, batch: u16) -> Result<usize, BatchError> {
        let count = u16::try_from(tokens).unwrap_or(u16::MAX).min(batch.max(1));
        if count == 0 || !self.mint_batch(partition, count)? {
            // If not for want of need, then because the batch could not be used: a flush or a step of the clock.
            return Ok(tokens);
        }
        partition.refill.lock().succeeded();
        Ok(usize::from(count))
    }

    /// Mints one batch. Tells whether the partition could still use it.
    fn mint_batch(&self, partition: &Arc<Partition>, count: u16) -> Result<bool, BatchError> {
        let shared = &self.shared;
        let before = shared.timeline.look();
        let (key, sequence) = {
            // Under one lock: a flush sets its floor there, so what is sealed under an old key lies below it.
            let key = partition.key();
            let Some(sealing) = key.key.clone() else { return Ok(false) };
            (sealing, shared.next.sequence.fetch_add(1, Ordering::SeqCst))
        };
        // The sequence first, the era afterwards: see `Shared::settle_era`.
        if shared.timeline.look().era != before.era {
            return Ok(false);
        }
        let expires_at = before.now.saturating_add(partition.grant.ttl).min(partition.session_end);
        let [a, b, c, d, ..] = shared.keys.store_id;
        let policy_epoch = shared.policy.min_epoch.load(Ordering::SeqCst).max(partition.session_policy_epoch);
        let order = Order {
            grant: &partition.grant,
            session_id: partition.session_id,
            count,
            validity: Validity { issued_at: before.now, expires_at },
            policy_epoch,
            instance: [a, b, c, d],
            first_number: shared.next.token.fetch_add(u64::from(count), Ordering::SeqCst),
        };
        let place = BatchKey { partition: partition.id, expires_at, sequence };
        let header = BatchHeader { count, key_id: key.id(), policy_epoch };
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

    /// Waits longer after each failure, each partition for a time of its own. Until then a renewal is pending; callers are
    /// told when to ask again.
    fn back_off(&self, partition: &Partition, error: &BatchError) {
        tracing::error!(tool = partition.tool(), %error, "minting failed");
        partition.count.mint_failures.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 1];
        let _plain_backoff_without_randomness = getrandom::fill(&mut random);
        let mut refill = partition.refill.lock();
        let wait = FIRST_BACKOFF.saturating_mul(1 << refill.failures.min(10)).min(MAX_BACKOFF);
        refill.failures = refill.failures.saturating_add(1);
        refill.not_before = Some(Instant::now() + wait + wait.mul_f64(f64::from(random[0]) / 512.0));
    }

    /// Waits while the writer is behind. After the writer has gone there is nobody left to care.
    fn send(&self, job: Job) {
        let _writer_gone = self.shared.work.jobs.send(job);
    }
}

/// Lets go of a session whose time is over.
fn retire(shared: &Shared, session: &Arc<Session>) {
    let _one_at_a_time = shared.sessions.flushes.lock();
    if shared.sessions.all.write().remove(&session.id).is_none() {
        return;
    }
    let was_flushed = !session.is_active();
    session.end();
    if !was_flushed {
        shared.sessions.last_end.fetch_max(session.expires_at, Ordering::SeqCst);
    }
    shared.elect();
    for partition in &session.partitions {
        shared.chore(Chore::Discard { partition: partition.id, below: u64::MAX });
    }
    shared.chore(Chore::Forget { session: session.id });
    if !was_flushed {
        shared.chore(Chore::Release { slots: session.slots() });
    }
    tracing::info!(session = %session.id, "a session whose time is over was forgotten");
}

#[cfg(test)]
mod tests;
