//! Resource servers and their copies: a code that is good for one copy, once, and what each copy has applied.

use obol_handshake::IdentityPublic;

use super::keys;
use crate::directory::event::Happening;
use crate::directory::rows::{AgentStatus, JoinCode, Replica, ResourceServer, key_digest};
use crate::directory::tables::{Kept, Table, Transaction};
use crate::directory::{Follower, Follows, KeyStanding, NewReplica};
use crate::id::ReplicaId;
use crate::refused::Refused;

/// The most resource servers.
pub(super) const MAX_SERVERS: usize = 10_000;
/// The most copies of them in all.
pub(super) const MAX_REPLICAS: usize = 10_000;

pub(super) fn add(
    transaction: &mut Transaction<'_>,
    server: &ResourceServer,
    code_hash: &[u8; 32],
    expires_at: u64,
) -> Kept<Result<(), Refused>> {
    let key = transaction.hidden(&server.audience);
    let known = transaction.get_bytes(Table::ResourceServer, &key)?.is_some();
    if !known && transaction.keys(Table::ResourceServer, &[], None, MAX_SERVERS)?.len() >= MAX_SERVERS {
        return Ok(Err(Refused::Full("resource server")));
    }
    transaction.put(Table::ResourceServer, &key, server)?;
    let code = JoinCode { audience: server.audience.clone(), expires_at };
    transaction.put(Table::JoinCode, code_hash, &code)?;
    Ok(Ok(()))
}

pub(super) fn join(
    transaction: &mut Transaction<'_>,
    new: NewReplica,
    now: u64,
) -> Kept<Result<Replica, Refused>> {
    let code: Option<JoinCode> = transaction.get(Table::JoinCode, &new.code_hash)?;
    let Some(code) = code.filter(|code| now < code.expires_at) else {
        return Ok(Err(Refused::JoinCode));
    };
    let digest = key_digest(&new.identity);
    let in_use = transaction.get_bytes(Table::ReplicaKey, &digest)?.is_some();
    if in_use || keys::owner(transaction, &new.identity)?.is_some() {
        return Ok(Err(Refused::KeyInUse));
    }
    if transaction.keys(Table::Replica, &[], None, MAX_REPLICAS)?.len() >= MAX_REPLICAS {
        return Ok(Err(Refused::Full("copy of a resource server")));
    }
    transaction.remove(Table::JoinCode, &new.code_hash);
    let replica = Replica {
        id: new.id,
        audience: code.audience,
        identity: new.identity,
        joined_at: now,
        cursor: 0,
        seen_at: now,
        lease_secs: None,
    };
    transaction.put(Table::Replica, replica.id.as_str().as_bytes(), &replica)?;
    transaction.put(Table::ReplicaKey, &digest, &replica.id)?;
    let (id, audience) = (replica.id.clone(), replica.audience.clone());
    transaction.emit(now, Happening::Joined { replica: id, audience })?;
    Ok(Ok(replica))
}

pub(super) fn replica_with(transaction: &Transaction<'_>, key: &IdentityPublic) -> Kept<Option<Replica>> {
    let id: Option<ReplicaId> = transaction.get(Table::ReplicaKey, &key_digest(key))?;
    id.map(|id| transaction.get(Table::Replica, id.as_str().as_bytes())).transpose().map(Option::flatten)
}

pub(super) fn acknowledge(
    transaction: &mut Transaction<'_>,
    id: &ReplicaId,
    cursor: u64,
    now: u64,
) -> Kept<()> {
    let found: Option<Replica> = transaction.get(Table::Replica, id.as_str().as_bytes())?;
    let Some(mut replica) = found else { return Ok(()) };
    replica.cursor = replica.cursor.max(cursor);
    replica.seen_at = replica.seen_at.max(now);
    transaction.put(Table::Replica, id.as_str().as_bytes(), &replica)
}

/// Takes a copy off the list. The row of its key stays, so that the key never joins again.
pub(super) fn remove(
    transaction: &mut Transaction<'_>,
    id: &ReplicaId,
    now: u64,
) -> Kept<Result<Replica, Refused>> {
    let found: Option<Replica> = transaction.get(Table::Replica, id.as_str().as_bytes())?;
    let Some(replica) = found else { return Ok(Err(Refused::Unknown("copy of a resource server"))) };
    transaction.remove(Table::Replica, id.as_str().as_bytes());
    let (id, audience) = (replica.id.clone(), replica.audience.clone());
    transaction.emit(now, Happening::Removed { replica: id, audience })?;
    Ok(Ok(replica))
}

/// Who follows with this key, if it may.
pub(super) fn follower(
    transaction: &mut Transaction<'_>,
    follows: Follows,
    now: u64,
) -> Kept<Result<Follower, Refused>> {
    match follows {
        Follows::Replica(key, lease_secs) => match replica_with(transaction, &key)? {
            None => Ok(Err(Refused::NotJoined)),
            Some(mut replica) => {
                replica.seen_at = replica.seen_at.max(now);
                replica.lease_secs = Some(lease_secs);
                transaction.put(Table::Replica, replica.id.as_str().as_bytes(), &replica)?;
                Ok(Ok(Follower::Replica(replica)))
            }
        },
        // A suspended agent may listen: it hears when it is let in again. One that has ended for good need not.
        Follows::Agent(key) => Ok(match keys::standing(transaction, &key, now)? {
            KeyStanding::Agent(agent) if agent.status == AgentStatus::Revoked => Err(Refused::Revoked),
            KeyStanding::Agent(agent) => Ok(Follower::Agent(agent)),
            KeyStanding::Pending => Err(Refused::PendingApproval),
            KeyStanding::Retired => Err(Refused::Revoked),
            KeyStanding::Unknown => Err(Refused::NotRegistered),
        }),
    }
}
