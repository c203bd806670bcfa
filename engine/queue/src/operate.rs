//! What an operator does to a queue: provision, flush, set policy.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use obol_session::AgentHalf;
use obol_token::SessionId;

use crate::error::{ProvisionError, Unavailable};
use crate::grant::Grant;
use crate::partition::{Partition, PartitionKey};
use crate::queue::Queue;
use crate::row::{PartitionPlace, RowHeader};
use crate::seal::{SealingKey, SlotSecret};

use crate::shared::{Chore, Identity, Policy, Session, SessionState, Shared};
use crate::slots::{ROOT, SlotError};
use crate::values::MAX_NOTE_BYTES;
use crate::writer::Job;

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

/// What a flush did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Tool and audience pairs whose tokens were destroyed.
    pub partitions: u64,
    /// Tokens that were waiting, in memory and on disk.
    pub tokens_discarded: u64,
}

impl Queue {
    /// Takes a session over, durably, and begins to mint for it. It becomes the current session.
    pub fn provision(&self, document: AgentHalf) -> Result<SessionId, ProvisionError> {
        let shared = &self.shared;
        shared.check()?;
        let (session, row, flushes) = {
            let admin = shared.admin.lock();
            self.check_new(&document)?;
            let (session, row) = draft(shared, document)?;
            (session, row, *admin)
        };
        let id = session.id;
        let written = self.write(|reply| Job::Session { id, row, reply });

        let admin = shared.admin.lock();
        written?;
        let overtaken = *admin != flushes;
        if overtaken {
            // Whether that flush meant this session it could not know, so the session ends.
            end_where(shared, std::slice::from_ref(&session), |_| true)?;
        }
        self.adopt(&session);
        if overtaken { Err(ProvisionError::Flushed(id)) } else { Ok(id) }
    }

    fn check_new(&self, document: &AgentHalf) -> Result<(), ProvisionError> {
        let sessions = self.shared.sessions.read();
        if sessions.contains_key(&document.session_id) {
            return Err(ProvisionError::Exists(document.session_id));
        }
        if sessions.len() >= self.shared.settings.max_sessions {
            return Err(ProvisionError::TooMany(self.shared.settings.max_sessions));
        }
        if self.shared.timeline.look().now >= document.expires_at {
            return Err(ProvisionError::Expired);
        }
        Ok(())
    }

    fn adopt(&self, session: &Arc<Session>) {
        let shared = &self.shared;
        let policy = shared.policy.lock();
        for partition in &session.partitions {
            partition.set_denied(policy.denied_tools.contains(partition.tool()));
        }
        drop(policy);
        shared.sessions.write().insert(session.id, Arc::clone(session));
        shared.current.store(Some(Arc::clone(session)));
        for partition in &session.partitions {
            // Later: ten thousand new tools must not keep those in use waiting. A caller who finds nothing asks at once.
            if !std::mem::replace(&mut partition.refill.lock().queued, true) {
                shared.refills.ask_later(partition);
            }
        }
        shared.refills.wake();
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
    pub fn flush(&self, scope: &FlushScope, reason: &str) -> Result<Flushed, Unavailable> {
        let shared = &self.shared;
        let mut admin = shared.admin.lock();
        *admin += 1;
        tracing::warn!(%scope, reason, "flush");
        let sessions = || shared.sessions.read().values().cloned().collect::<Vec<_>>();
        match scope {
            FlushScope::All => flush_all(shared, &sessions()),
            FlushScope::Session(id) => end_where(shared, &sessions(), |session| session.id == *id),
            FlushScope::Agent(agent) => {
                end_where(shared, &sessions(), |session| session.agent_instance_id == *agent)
            }
            FlushScope::Tool(tool) => flush_tool(shared, &sessions(), tool),
        }
    }

    /// Sets what may be handed out, whatever was granted, durably. A tool that is denied is refused from the moment
    /// this begins; one that is no longer denied is handed out once this has returned. Tokens minted under an older
    /// epoch are given up.
    pub fn set_policy(&self, epoch: u64, denied_tools: BTreeSet<String>) -> Result<(), Unavailable> {
        let shared = &self.shared;
        let _admin = shared.admin.lock();
        shared.for_each_partition(|partition| {
            if denied_tools.contains(partition.tool()) {
                partition.set_denied(true);
                partition.available.notify(usize::MAX);
            }
        });
        let policy = Policy { epoch: epoch.max(shared.policy.lock().epoch), denied_tools };
        if shared.min_policy_epoch.fetch_max(policy.epoch, Ordering::SeqCst) < policy.epoch {
            give_up_older(shared);
        }
        let written = policy.clone();
        self.write(|reply| Job::Policy { policy: written, reply })?;
        shared.for_each_partition(|partition| {
            partition.set_denied(policy.denied_tools.contains(partition.tool()));
        });
        *shared.policy.lock() = policy;
        Ok(())
    }

    /// What [`Self::set_note`] wrote last; empty in a new store.
    pub fn note(&self) -> Vec<u8> {
        self.shared.note.lock().clone()
    }

    /// Remembers a few bytes of the embedder's own, at most 256, sealed and durable with the store. So another file that
    /// belongs to the store can be missed when it is gone.
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
    let fresh = {
        let mut slots = shared.slots.lock();
        slots.allocate(&shared.slots_key, 1 + document.grants.len()).map_err(failed)?
    };
    let mut fresh = fresh.into_iter();
    let (slot, secret) = fresh.next().ok_or_else(|| failed(SlotError::NotAKeyFile))?;
    let (grants, text) = (Grant::all_of(&document), document.to_json());
    let AgentHalf { session_id: id, suite, agent, established_at, expires_at, policy_epoch, .. } = document;
    let order = shared.next_order.fetch_add(1, Ordering::SeqCst);
    let first = shared.next_partition.fetch_add(grants.len() as u64, Ordering::SeqCst);
    let places: Vec<(PartitionPlace, SlotSecret)> =
        (first..).zip(fresh).map(|(id, (slot, own))| (PartitionPlace { id, slot }, own)).collect();

    let root = shared.root.read();
    let key = SealingKey::for_session(&shared.master, &shared.store_id, &root, &secret, id.0);
    let header = RowHeader { state: SessionState::Active, order, expires_at, slot };
    let bare: Vec<PartitionPlace> = places.iter().map(|(place, _)| *place).collect();
    let row = header
        .seal(id, &key, &bare, &text)
        .map_err(|_| ProvisionError::Unavailable(shared.fail(&"no randomness")))?;

    let agent_instance_id = agent.agent_instance_id;
    let identity =
        Identity { id, agent_instance_id, suite, established_at, expires_at, policy_epoch, order, slot };
    let partitions = places
        .iter()
        .zip(grants)
        .map(|((place, own), grant)| {
            let key = SealingKey::for_batches(&shared.store_id, &root, &secret, own, place.id);
            let key = PartitionKey { key: Some(Arc::new(key)), slot: place.slot, floor: 0 };
            Arc::new(Partition::new(place.id, &identity, grant, shared.settings.min_life, key))
        })
        .collect();
    Ok((Arc::new(Session::new(identity, partitions, SessionState::Active)), row))
}

/// Ends every session: one new root secret, and nothing that was sealed before opens any more.
fn flush_all(shared: &Shared, sessions: &[Arc<Session>]) -> Result<Flushed, Unavailable> {
    let ended: Vec<_> = sessions.iter().filter(|session| session.is_active()).collect();
    let done = end_in_memory(&ended);
    let mut fresh =
        shared.slots.lock().write_fresh(&shared.slots_key, &[ROOT]).map_err(|error| shared.fail(&error))?;
    if let Some((_, root)) = fresh.pop() {
        *shared.root.write() = root;
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
        shared.slots.lock().destroy(&slots).map_err(|error| shared.fail(&error))?;
    }
    for session in ended {
        let partitions = session.partitions.iter().map(|partition| partition.key().slot).collect();
        clear_away(shared, session, partitions);
    }
    Ok(done)
}

fn end_in_memory(sessions: &[&Arc<Session>]) -> Flushed {
    sessions.iter().fold(Flushed::default(), |sum, session| Flushed {
        sessions_ended: sum.sessions_ended + 1,
        partitions: sum.partitions + session.partitions.len() as u64,
        tokens_discarded: sum.tokens_discarded + session.end(),
    })
}

/// Leaves the rest of an ended session to the writer: rows, a note that it was flushed, slots.
fn clear_away(shared: &Shared, session: &Session, slots: Vec<u32>) {
    let header = RowHeader {
        state: SessionState::Flushed,
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
            done.tokens_discarded += partition.seal_off(|| shared.sequence.load(Ordering::SeqCst));
            affected.push((session, partition));
        }
    }
    if affected.is_empty() {
        return Ok(done);
    }
    let failed = |error: SlotError| shared.fail(&error);
    let mut slots = shared.slots.lock();
    let indices: Vec<u32> = affected.iter().map(|(_, partition)| partition.key().slot).collect();
    let fresh = slots.write_fresh(&shared.slots_key, &indices).map_err(failed)?;
    let root = shared.root.read();
    for ((session, partition), (_, own)) in affected.into_iter().zip(fresh) {
        let Some(secret) = slots.peek(&shared.slots_key, session.slot).map_err(failed)? else { continue };
        let sealing = SealingKey::for_batches(&shared.store_id, &root, &secret, &own, partition.id);
        let mut key = partition.key();
        key.key = Some(Arc::new(sealing));
        shared.chore(Chore::Discard { partition: partition.id, below: key.floor });
    }
    Ok(done)
}

/// Gives up what was minted under an older policy epoch.
fn give_up_older(shared: &Shared) {
    let below = shared.sequence.load(Ordering::SeqCst);
    shared.for_each_partition(|partition| {
        partition.give_up(below);
        shared.chore(Chore::Discard { partition: partition.id, below });
    });
}
