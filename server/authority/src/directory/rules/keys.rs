//! Identity keys: whose they are, how one replaces another, and that none that has ended ever returns.

use obol_handshake::{HandshakeHash, IdentityPublic};

use super::{humans, waiting};
use crate::directory::event::Happening;
use crate::directory::rows::{Agent, AgentStatus, KeyOwner, KeyRotation, key_digest};
use crate::directory::tables::{Kept, Table, Transaction, Unavailable};
use crate::directory::{Handshake, KEY_OVERLAP_SECS, KeyStanding, RotateStep};
use crate::id::AgentId;
use crate::refused::Refused;

pub(super) fn agent(transaction: &Transaction<'_>, id: &AgentId) -> Kept<Agent> {
    let found = transaction.get(Table::Agent, id.as_str().as_bytes())?;
    found.ok_or_else(|| Unavailable::new("an index names an agent that is not there"))
}

pub(super) fn put(transaction: &mut Transaction<'_>, agent: &Agent) -> Kept<()> {
    humans::note(transaction, agent)?;
    put_known(transaction, agent)
}

/// The same for one who is not revoked, and whose owner is the one that it was read with: the index of owners stays true.
pub(super) fn put_known(transaction: &mut Transaction<'_>, agent: &Agent) -> Kept<()> {
    transaction.put(Table::Agent, agent.id.as_str().as_bytes(), agent)
}

/// The agent with this name, which is not revoked, or with this id.
pub(super) fn agent_called(transaction: &Transaction<'_>, name: &str) -> Kept<Option<Agent>> {
    if AgentId::parse(name).is_some() {
        return transaction.get(Table::Agent, name.as_bytes());
    }
    let id: Option<AgentId> = transaction.get(Table::AgentName, &transaction.hidden(name))?;
    id.map(|id| agent(transaction, &id)).transpose()
}

pub(super) fn owner(transaction: &Transaction<'_>, key: &IdentityPublic) -> Kept<Option<KeyOwner>> {
    transaction.get(Table::IdentityKey, &key_digest(key))
}

pub(super) fn standing(transaction: &Transaction<'_>, key: &IdentityPublic, now: u64) -> Kept<KeyStanding> {
    match owner(transaction, key)? {
        Some(KeyOwner { until: Some(until), .. }) if now >= until => Ok(KeyStanding::Retired),
        Some(owner) => Ok(KeyStanding::Agent(Box::new(agent(transaction, &owner.agent)?))),
        None => {
            let waits = waiting::with_key(transaction, key, now)?.is_some();
            Ok(if waits { KeyStanding::Pending } else { KeyStanding::Unknown })
        }
    }
}

/// An agent that is known by this key, may act, and has it as its own.
fn acting(transaction: &Transaction<'_>, key: &IdentityPublic, now: u64) -> Kept<Result<Agent, Refused>> {
    let agent = match standing(transaction, key, now)? {
        KeyStanding::Unknown => return Ok(Err(Refused::NotRegistered)),
        KeyStanding::Pending => return Ok(Err(Refused::PendingApproval)),
        KeyStanding::Retired => return Ok(Err(Refused::Revoked)),
        KeyStanding::Agent(agent) => *agent,
    };
    Ok(match agent.status {
        AgentStatus::Suspended => Err(Refused::Suspended),
        AgentStatus::Revoked => Err(Refused::Revoked),
        AgentStatus::Active if agent.is_expired(now) => Err(Refused::ApprovalExpired),
        // A key that was replaced is still taken for sessions, and for nothing that lasts.
        AgentStatus::Active if agent.identity != *key => Err(Refused::Revoked),
        AgentStatus::Active => Ok(agent),
    })
}

pub(super) fn rotate(
    transaction: &mut Transaction<'_>,
    handshake: Handshake,
    key: &IdentityPublic,
    step: &RotateStep,
    now: u64,
) -> Kept<Result<AgentId, Refused>> {
    match step {
        RotateStep::Name(next) => name_next(transaction, handshake, key, next, now),
        RotateStep::Prove(first) => prove_next(transaction, key, *first, now),
    }
}

fn name_next(
    transaction: &mut Transaction<'_>,
    handshake: Handshake,
    key: &IdentityPublic,
    next: &IdentityPublic,
    now: u64,
) -> Kept<Result<AgentId, Refused>> {
    let agent = match acting(transaction, key, now)? {
        Ok(agent) => agent,
        Err(refused) => return Ok(Err(refused)),
    };
    if owner(transaction, next)?.is_some() {
        return Ok(Err(Refused::KeyInUse));
    }
    forget_rotation(transaction, &agent.id)?;
    let expires_at = now.saturating_add(KEY_OVERLAP_SECS);
    let rotation = KeyRotation { next: next.0, first: handshake.hash.0, expires_at };
    transaction.put(Table::Rotation, agent.id.as_str().as_bytes(), &rotation)?;
    // Until it is proven the new key belongs to nobody; the agent is found by the transcript that named it.
    transaction.put(Table::Rotation, &handshake.hash.0, &agent.id)?;
    Ok(Ok(agent.id))
}

fn prove_next(
    transaction: &mut Transaction<'_>,
    key: &IdentityPublic,
    first: HandshakeHash,
    now: u64,
) -> Kept<Result<AgentId, Refused>> {
    let no_such = || Ok(Err(Refused::Unknown("rotation of a key that waits for this one; begin it anew")));
    let Some(id) = transaction.get::<AgentId>(Table::Rotation, &first.0)? else { return no_such() };
    let rotation: Option<KeyRotation> = transaction.get(Table::Rotation, id.as_str().as_bytes())?;
    let named = rotation.filter(|rotation| rotation.first == first.0 && rotation.next == key.0);
    if named.is_none_or(|rotation| now >= rotation.expires_at) || owner(transaction, key)?.is_some() {
        return no_such();
    }
    let mut agent = agent(transaction, &id)?;
    if agent.status != AgentStatus::Active {
        return Ok(Err(Refused::Suspended));
    }
    let until = Some(now.saturating_add(KEY_OVERLAP_SECS));
    let old = KeyOwner { agent: id.clone(), until };
    transaction.put(Table::IdentityKey, &key_digest(&agent.identity), &old)?;
    transaction.put(Table::IdentityKey, &key_digest(key), &KeyOwner { agent: id.clone(), until: None })?;
    forget_rotation(transaction, &id)?;
    agent.identity = *key;
    agent.version += 1;
    put(transaction, &agent)?;
    transaction.emit(now, Happening::KeyRotated { agent: id.clone() })?;
    Ok(Ok(id))
}

/// Forgets that an agent has named another key.
pub(super) fn forget_rotation(transaction: &mut Transaction<'_>, id: &AgentId) -> Kept<()> {
    let named: Option<KeyRotation> = transaction.get(Table::Rotation, id.as_str().as_bytes())?;
    if let Some(named) = named {
        transaction.remove(Table::Rotation, &named.first);
        transaction.remove(Table::Rotation, id.as_str().as_bytes());
    }
    Ok(())
}
