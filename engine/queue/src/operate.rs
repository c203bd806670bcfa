//! What an operator does to a queue: provision, flush, hold and resume, set policy, deny and allow.

use core::fmt;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use event_listener::Listener as _;
use obol_session::AgentHalf;
use obol_session::clock::Reading;
use obol_token::SessionId;

use crate::error::{ProvisionError, Unavailable};
use crate::grant::{Grant, least_life};
use crate::identity::Identity;
use crate::jobs::{Chore, Job};
use crate::keys::{ROOT, SlotError, SlotSecret};
use crate::partition::{Partition, PartitionKey};
use crate::queue::Queue;
use crate::session::{Route, Session};
use crate::shared::Shared;
use crate::store::values::MAX_NOTE_BYTES;
use crate::store::{Hold, PartitionPlace, Policy, SessionHeader};

/// How long the first tokens of a session may take before it becomes the current one all the same.
const FIRST_TOKENS_PATIENCE: Duration = Duration::from_secs(1);

/// What a flush destroys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlushScope {
    /// Everything; all sessions end.
    All,
    /// One session; it ends.
    Session(SessionId),
    /// All sessions of one agent instance; they end.
    Agent(String),
    /// What was minted ahead for one tool, in all sessions. The sessions go on, and so does minting for the tool; to
    /// stop that as well, deny it ([`Queue::set_policy`]).
    Tool(String),
}

impl fmt::Display for FlushScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Session(id) => write!(f, "session {id}"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
            Self::Tool(tool) => write!(f, "tool {tool}"),
        }
    }
}

/// The most tools on the operator's own list of denials.
const MAX_OPERATOR_DENIALS: usize = 4096;

/// Why a denial was not noted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DenyError {
    /// There are 4,096.
    TooMany,
    /// The store failed. The tool is denied until a restart.
    Unavailable(Unavailable),
}

impl fmt::Display for DenyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                write!(f, "{MAX_OPERATOR_DENIALS} tools are denied already; allow one, or flush the agent")
            }
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DenyError {}

impl From<Unavailable> for DenyError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

/// What a flush did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Which they are, oldest first.
    pub sessions: Vec<SessionId>,
    /// Tool and audience pairs whose tokens were destroyed.
    pub partitions: u64,
    /// Tokens that were waiting, in memory and on disk.
    pub tokens_discarded: u64,
}

impl Queue {
    /// Takes a session over, durably, and begins to mint for it. It becomes the current session, once the first tokens are
    /// there of those tools that were drawn from the one before it, which serves meanwhile; after a second in any case.
    ///
    /// # Errors
    ///
    /// [`ProvisionError`].
    pub fn provision(&self, document: AgentHalf) -> Result<SessionId, ProvisionError> {
        let shared = &self.shared;
        shared.check()?;
        let (session, row, flushes_before) = {
            let flushes = shared.sessions.flushes.lock();
            // Known is known, whether new ones are held back or not.
            self.check_new(&document)?;
            if let Some(hold) = self.hold() {
                return Err(ProvisionError::Held(hold));
            }
            let (session, row) = draft(shared, document)?;
            (session, row, *flushes)
        };
        let id = session.id;
        let written = self.write(|reply| Job::Session { id, row, reply });

        let flushes = shared.sessions.flushes.lock();
        written?;
        let overtaken = *flushes != flushes_before;
        if overtaken {
            // Whether that flush meant this session it could not know, so the session ends.
            end_where(shared, core::slice::from_ref(&session), |_| true)?;
        }
        self.adopt(&session);
        drop(flushes);
        if !overtaken {
            self.wait_for_first_tokens(&session);
        }
        shared.elect();
        if overtaken { Err(ProvisionError::Flushed(id)) } else { Ok(id) }
    }

    /// Waits until a draw would find a token of each tool that is in use: a renewal is no gap for who does not wait.
    fn wait_for_first_tokens(&self, session: &Session) {
        let shared = &self.shared;
        let Some(before) = shared.sessions.current.load_full() else { return };
        let now = shared.timeline.look().now;
        if !before.is_active() || before.is_over(now) {
            return;
        }
        let deadline = Instant::now() + FIRST_TOKENS_PATIENCE;
        let in_use = before.partitions.iter().filter(|partition| partition.used().0 > 0);
        for used in in_use {
            let Route::One(partition) = session.route(used.tool(), Some(used.audience())) else { continue };
            while partition.ready_len() == 0 && !partition.is_denied() && session.is_active() {
                let ready = partition.available.listen();
                if partition.ready_len() > 0 {
                    break;
                }
                if partition.ask_refill() {
                    shared.work.refills.ask(partition);
                }
                if ready.wait_deadline(deadline).is_none() {
                    return;
                }
            }
        }
    }

    /// As [`provision`](Self::provision), also where new sessions are held back ([`flush_and_hold`](Self::flush_and_hold));
    /// none is held back any more after it. A document that is not taken changes nothing.
    ///
    /// # Errors
    ///
    /// [`ProvisionError`].
    pub fn provision_and_resume(&self, document: AgentHalf) -> Result<SessionId, ProvisionError> {
        self.check_new(&document)?;
        self.resume()?;
        self.provision(document)
    }

    fn check_new(&self, document: &AgentHalf) -> Result<(), ProvisionError> {
        let sessions = self.shared.sessions.all.read();
        if sessions.contains_key(&document.session_id) {
            return Err(ProvisionError::Exists(document.session_id));
        }
        if sessions.len() >= self.shared.settings.max_sessions {
            return Err(ProvisionError::TooMany(self.shared.settings.max_sessions));
        }
        let min_life = self.shared.settings.min_life;
        let least_life =
            document.grants.iter().map(|grant| least_life(grant.ttl, min_life)).min().unwrap_or(0);
        if self.shared.timeline.look().now.saturating_add(least_life.max(1)) > document.expires_at {
            return Err(ProvisionError::Expired);
        }
        Ok(())
    }

    fn adopt(&self, session: &Arc<Session>) {
        let shared = &self.shared;
        let policy = shared.policy.kept.lock();
        for partition in &session.partitions {
            partition.set_denied(policy.denies(partition.tool()));
        }
        drop(policy);
        shared.sessions.all.write().insert(session.id, Arc::clone(session));
        shared.warm_up(session);
        tracing::info!(session = %session.id, grants = session.partitions.len(), "session provisioned");
    }

    /// Destroys everything that was minted ahead in a scope, for good.
    ///
    /// From the moment this begins no token in the scope is handed out. When it returns, the keys the tokens are
    /// sealed under are overwritten on disk; no crash brings them back. It costs one small write and one fsync,
    /// however many tokens wait; their rows are cleared away in the background.
    ///
    /// Where it returns an error the tokens are out of reach of this process, but may be on disk still: destroy the
    /// file `….keys`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where the keys could not be overwritten.
    pub fn flush(&self, scope: &FlushScope, reason: &str) -> Result<Flushed, Unavailable> {
        let mut flushes = self.shared.sessions.flushes.lock();
        self.destroy(&mut flushes, scope, reason)
    }

    /// As [`flush`](Self::flush), and takes no new session from then on, across restarts, until [`resume`](Self::resume):
    /// who cuts an agent off does not want it back a moment later. A flush of one tool ends no session and holds none
    /// back; nor does one of a session or an agent that finds nothing, which may be a misspelt name.
    ///
    /// # Errors
    ///
    /// As for `flush`, and [`Unavailable`] where it could not be written that new sessions are to wait.
    pub fn flush_and_hold(&self, scope: &FlushScope, reason: &str) -> Result<Flushed, Unavailable> {
        let mut flushes = self.shared.sessions.flushes.lock();
        let done = self.destroy(&mut flushes, scope, reason)?;
        let holds = match scope {
            FlushScope::All => true,
            FlushScope::Session(_) | FlushScope::Agent(_) => done.sessions_ended > 0,
            FlushScope::Tool(_) => false,
        };
        if holds {
            let since = self.shared.timeline.look().now;
            let hold = Hold { since, scope: scope.to_string(), reason: reason.to_owned() };
            let policy = Policy { hold: Some(hold), ..self.policy() };
            // At once: what is not written down yet holds all the same.
            *self.shared.policy.kept.lock() = policy.clone();
            self.write_policy(policy)?;
        }
        Ok(done)
    }

    /// Takes new sessions again, durably, and lets older sessions take over where a younger one was flushed. Gives back
    /// why none was taken, if so.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where it could not be written down; then no session is taken.
    pub fn resume(&self) -> Result<Option<Hold>, Unavailable> {
        let shared = &self.shared;
        let _one_at_a_time = shared.sessions.flushes.lock();
        let before = self.policy();
        let resumed = shared.next.order.load(Ordering::SeqCst);
        let policy = Policy { hold: None, resumed, ..before.clone() };
        self.write_policy(policy.clone())?;
        *shared.policy.kept.lock() = policy;
        shared.elect();
        if before.hold.is_some() {
            tracing::warn!("new sessions are taken again");
        }
        Ok(before.hold)
    }

    /// Why no new session is taken, while none is.
    pub fn hold(&self) -> Option<Hold> {
        self.shared.policy.kept.lock().hold.clone()
    }

    fn destroy(&self, flushes: &mut u64, scope: &FlushScope, reason: &str) -> Result<Flushed, Unavailable> {
        let shared = &self.shared;
        *flushes += 1;
        tracing::warn!(%scope, reason, "flush");
        let sessions = shared.sessions.by_age();
        let done = match scope {
            FlushScope::All => flush_all(shared, &sessions),
            FlushScope::Session(id) => end_where(shared, &sessions, |session| session.id == *id),
            FlushScope::Agent(agent) => {
                end_where(shared, &sessions, |session| session.agent_instance_id == *agent)
            }
            FlushScope::Tool(tool) => flush_tool(shared, &sessions, tool),
        };
        shared.sessions.approved.forget(match scope {
            FlushScope::Tool(tool) => Some(tool),
            FlushScope::All | FlushScope::Session(_) | FlushScope::Agent(_) => None,
        });
        done
    }

    /// The Authentication Service was heard so many seconds ago: the leases of its sessions begin anew then. After a start
    /// nothing of them is handed out before this was said once.
    pub fn heard(&self, secs_ago: u64) {
        let now = self.shared.timeline.both();
        self.shared.sessions.contact.note(Reading {
            wall: now.wall.saturating_sub(secs_ago),
            monotonic: now.monotonic.saturating_sub(secs_ago),
        });
    }

    /// Sets what may be handed out, whatever was granted, durably. A tool that is denied is refused from the moment
    /// this begins; one that is no longer denied is handed out once this has returned. Tokens minted under an older
    /// epoch are given up. The operator's own list ([`deny`](Self::deny)) stays as it is.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where it could not be written down.
    pub fn set_policy(&self, epoch: u64, denied_tools: BTreeSet<String>) -> Result<(), Unavailable> {
        let shared = &self.shared;
        let _one_at_a_time = shared.sessions.flushes.lock();
        let before = self.policy();
        let policy = Policy { epoch: epoch.max(before.epoch), denied_tools, ..before };
        self.deny_at_once(&policy);
        if shared.policy.min_epoch.fetch_max(policy.epoch, Ordering::SeqCst) < policy.epoch {
            give_up_older(shared);
        }
        self.put_in_force(policy)
    }

    /// Denies a tool on the operator's own list, durably, whether it is granted or not: from the moment this begins
    /// nobody is given a token for it. Tells whether any session grants it.
    ///
    /// # Errors
    ///
    /// [`DenyError`] where the list is full, or could not be written down.
    pub fn deny(&self, tool: &str) -> Result<bool, DenyError> {
        let _one_at_a_time = self.shared.sessions.flushes.lock();
        let mut policy = self.policy();
        if policy.operator_denied.len() >= MAX_OPERATOR_DENIALS && !policy.operator_denied.contains(tool) {
            return Err(DenyError::TooMany);
        }
        policy.operator_denied.insert(tool.to_owned());
        tracing::warn!(tool, "denied by the operator");
        self.deny_at_once(&policy);
        self.put_in_force(policy)?;
        Ok(self.is_granted(tool))
    }

    /// Takes a tool off the operator's own list, durably. Tells whether it was there. What the other list denies stays
    /// denied.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where it could not be written down; then it stays denied.
    pub fn allow(&self, tool: &str) -> Result<bool, Unavailable> {
        let _one_at_a_time = self.shared.sessions.flushes.lock();
        let mut policy = self.policy();
        if !policy.operator_denied.remove(tool) {
            return Ok(false);
        }
        tracing::warn!(tool, "no longer denied by the operator");
        self.put_in_force(policy)?;
        Ok(true)
    }

    /// The tools that the operator denies, and those that the policy of the epoch denies.
    pub fn denied_tools(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let Policy { operator_denied, denied_tools, .. } = self.policy();
        (operator_denied, denied_tools)
    }

    fn is_granted(&self, tool: &str) -> bool {
        let mut granted = false;
        self.shared.for_each_partition(|partition| granted |= partition.tool() == tool);
        granted
    }

    fn policy(&self) -> Policy {
        self.shared.policy.kept.lock().clone()
    }

    /// What is denied from now on is denied before that is written down.
    fn deny_at_once(&self, policy: &Policy) {
        self.shared.for_each_partition(|partition| {
            if policy.denies(partition.tool()) {
                partition.set_denied(true);
                partition.available.notify(usize::MAX);
            }
        });
    }

    /// Writes a policy down; what it no longer denies is allowed only then.
    fn put_in_force(&self, policy: Policy) -> Result<(), Unavailable> {
        self.write_policy(policy.clone())?;
        self.shared.for_each_partition(|partition| partition.set_denied(policy.denies(partition.tool())));
        *self.shared.policy.kept.lock() = policy;
        Ok(())
    }

    fn write_policy(&self, policy: Policy) -> Result<(), Unavailable> {
        self.write(|reply| Job::Policy { policy, reply })
    }

    /// What [`Self::set_note`] wrote last; empty in a new store.
    pub fn note(&self) -> Vec<u8> {
        self.shared.note.lock().clone()
    }

    /// Remembers a few bytes of the embedder's own, at most 256, sealed and durable with the store. So another file that
    /// belongs to the store can be missed when it is gone.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where it could not be written down.
    pub fn set_note(&self, note: &[u8]) -> Result<(), Unavailable> {
        let note = note.get(..note.len().min(MAX_NOTE_BYTES)).unwrap_or_default().to_vec();
        let written = note.clone();
        self.write(|reply| Job::Note { note: written, reply })?;
        *self.shared.note.lock() = note;
        Ok(())
    }
}

/// Writes a new session's secrets into slots and seals its row under them. Nobody uses it yet.
fn draft(shared: &Shared, document: AgentHalf) -> Result<(Arc<Session>, Vec<u8>), ProvisionError> {
    let failed = |error: SlotError| ProvisionError::Unavailable(shared.fail(&error));
    let (grants, per_call) = Grant::of(&document);
    let fresh = {
        let mut slots = shared.keys.slots.lock();
        slots.allocate(&shared.keys.slots_key, 1 + grants.len()).map_err(failed)?
    };
    let mut fresh = fresh.into_iter();
    let (slot, secret) = fresh.next().ok_or_else(|| failed(SlotError::NotAKeyFile))?;
    let text = document.to_json();
    let AgentHalf {
        session_id: id, suite, agent, established_at, expires_at, policy_epoch, lease_secs, ..
    } = document;
    let order = shared.next.order.fetch_add(1, Ordering::SeqCst);
    let first = shared.next.partition.fetch_add(grants.len() as u64, Ordering::SeqCst);
    let places: Vec<(PartitionPlace, SlotSecret)> =
        (first..).zip(fresh).map(|(id, (slot, own))| (PartitionPlace { id, slot }, own)).collect();

    let root = shared.keys.root.read();
    let key = shared.keys.of_session(&root, &secret, id.as_u64());
    let header = SessionHeader { is_flushed: false, order, expires_at, slot };
    let bare: Vec<PartitionPlace> = places.iter().map(|(place, _)| *place).collect();
    let row = header
        .seal(id, &key, &bare, &text)
        .map_err(|_| ProvisionError::Unavailable(shared.fail(&"no randomness")))?;

    let agent_instance_id = agent.agent_instance_id;
    let identity = Identity {
        id,
        agent_instance_id,
        suite,
        established_at,
        expires_at,
        policy_epoch,
        lease_secs,
        order,
        slot,
    };
    let partitions = places
        .iter()
        .zip(grants)
        .map(|((place, own), grant)| {
            let key = shared.keys.of_partition(&root, &secret, own, place.id);
            let key = PartitionKey { key: Some(Arc::new(key)), slot: place.slot, floor: 0 };
            Arc::new(Partition::new(place.id, &identity, grant, shared.settings.min_life, key))
        })
        .collect();
    Ok((Arc::new(Session::new(identity, partitions, per_call, true)), row))
}

/// Ends every session: one new root secret, and nothing that was sealed before opens any more.
fn flush_all(shared: &Shared, sessions: &[Arc<Session>]) -> Result<Flushed, Unavailable> {
    let ended: Vec<_> = sessions.iter().filter(|session| session.is_active()).collect();
    let done = end_in_memory(&ended);
    let mut fresh = shared
        .keys
        .slots
        .lock()
        .write_fresh(&shared.keys.slots_key, &[ROOT])
        .map_err(|error| shared.fail(&error))?;
    if let Some((_, root)) = fresh.pop() {
        *shared.keys.root.write() = root;
    }
    for session in ended {
        clear_away(shared, session, session.slots());
    }
    Ok(done)
}

/// Ends the sessions that `matches` picks, by overwriting their slots.
fn end_where(
    shared: &Shared,
    sessions: &[Arc<Session>],
    matches: impl Fn(&Session) -> bool,
) -> Result<Flushed, Unavailable> {
    let ended: Vec<_> = sessions.iter().filter(|session| session.is_active() && matches(session)).collect();
    let done = end_in_memory(&ended);
    let slots: Vec<u32> = ended.iter().map(|session| session.slot).collect();
    if !slots.is_empty() {
        shared.keys.slots.lock().destroy(&slots).map_err(|error| shared.fail(&error))?;
    }
    for session in ended {
        let partitions = session.partitions.iter().map(|partition| partition.key().slot).collect();
        clear_away(shared, session, partitions);
    }
    Ok(done)
}

fn end_in_memory(sessions: &[&Arc<Session>]) -> Flushed {
    Flushed {
        sessions_ended: sessions.len() as u64,
        sessions: sessions.iter().map(|session| session.id).collect(),
        partitions: sessions.iter().map(|session| session.partitions.len() as u64).sum(),
        tokens_discarded: sessions.iter().map(|session| session.end()).sum(),
    }
}

/// Leaves the rest of an ended session to the writer: rows, a note that it was flushed, slots.
fn clear_away(shared: &Shared, session: &Session, slots: Vec<u32>) {
    let header = SessionHeader {
        is_flushed: true,
        order: session.order,
        expires_at: session.expires_at,
        slot: session.slot,
    };
    for partition in &session.partitions {
        shared.chore(Chore::Discard { partition: partition.id, below: u64::MAX });
    }
    shared.chore(Chore::Tombstone { session: session.id, row: header.tombstone() });
    shared.chore(Chore::Release { slots });
}

/// Destroys what waits for one tool, by giving each of its partitions a new secret.
fn flush_tool(shared: &Shared, sessions: &[Arc<Session>], tool: &str) -> Result<Flushed, Unavailable> {
    let mut done = Flushed::default();
    let mut affected = Vec::new();
    for session in sessions.iter().filter(|session| session.is_active()) {
        for partition in session.partitions.iter().filter(|partition| partition.tool() == tool) {
            done.partitions += 1;
            done.tokens_discarded += partition.seal_off(|| shared.next.sequence.load(Ordering::SeqCst));
            affected.push((session, partition));
        }
    }
    if affected.is_empty() {
        return Ok(done);
    }
    let failed = |error: SlotError| shared.fail(&error);
    let mut slots = shared.keys.slots.lock();
    let indices: Vec<u32> = affected.iter().map(|(_, partition)| partition.key().slot).collect();
    let fresh = slots.write_fresh(&shared.keys.slots_key, &indices).map_err(failed)?;
    let root = shared.keys.root.read();
    for ((session, partition), (_, own)) in affected.into_iter().zip(fresh) {
        let Some(secret) = slots.peek(&shared.keys.slots_key, session.slot).map_err(failed)? else {
            continue;
        };
        let sealing = shared.keys.of_partition(&root, &secret, &own, partition.id);
        let mut key = partition.key();
        key.key = Some(Arc::new(sealing));
        shared.chore(Chore::Discard { partition: partition.id, below: key.floor });
    }
    Ok(done)
}

/// Gives up what was minted under an older policy epoch.
fn give_up_older(shared: &Shared) {
    let below = shared.next.sequence.load(Ordering::SeqCst);
    shared.for_each_partition(|partition| {
        partition.give_up(below);
        shared.chore(Chore::Discard { partition: partition.id, below });
    });
}
