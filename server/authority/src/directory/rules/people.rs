//! Humans: what is known of each, and what follows for the agents that they answer for.

use super::{ending, humans, keys, sessions};
use crate::directory::rows::{Agent, AgentStatus, Human, Invitation, Person, PersonStatus};
use crate::directory::tables::{HIDDEN_BYTES, Kept, Table, Transaction, Unavailable};
use crate::directory::{Ended, MAX_PAGE, OwnerEnd};
use crate::id::AgentId;
use crate::refused::Refused;

/// The most agents that one transaction ends, or whose sessions it does.
const MAX_AT_ONCE: usize = 100;
/// Whether this human is known, or answers for an agent.
pub(super) fn is_known(transaction: &Transaction<'_>, human: &Human) -> Kept<bool> {
    Ok(humans::person(transaction, human)?.is_some() || !agents_of(transaction, human, None, 1)?.is_empty())
}

/// The agent with this id, if this human answers for it.
pub(super) fn agent_of(transaction: &Transaction<'_>, human: &Human, id: &AgentId) -> Kept<Option<Agent>> {
    let found = keys::agent_called(transaction, id.as_str())?;
    Ok(found.filter(|agent| agent.owner == *human))
}

/// The agents that a human answers for and that are not revoked, those behind `after`.
fn agents_of(
    transaction: &Transaction<'_>,
    human: &Human,
    after: Option<&AgentId>,
    limit: usize,
) -> Kept<Vec<Agent>> {
    let owner = humans::name(human);
    let after = after.map(|after| transaction.under(&owner, after.as_str().as_bytes()));
    let found = transaction.keys(Table::OwnerAgent, &transaction.hidden(&owner), after.as_deref(), limit)?;
    let agent = |key: &Vec<u8>| {
        let id = key.get(HIDDEN_BYTES..).and_then(|id| core::str::from_utf8(id).ok());
        let id = id.and_then(AgentId::parse);
        keys::agent(transaction, &id.ok_or_else(|| Unavailable::new("a key of an index has another form"))?)
    };
    found.iter().map(agent).collect()
}

/// Those of a human's agents for which `concerns` says so, as many as one transaction should; whether there are more.
fn some_of(
    transaction: &Transaction<'_>,
    human: &Human,
    mut concerns: impl FnMut(&Agent) -> Kept<bool>,
) -> Kept<(Vec<Agent>, bool)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = agents_of(transaction, human, after.as_ref(), MAX_AT_ONCE)?;
        let Some(last) = page.last() else { return Ok((found, false)) };
        after = Some(last.id.clone());
        for agent in page {
            if !concerns(&agent)? {
                continue;
            }
            if found.len() == MAX_AT_ONCE {
                return Ok((found, true));
            }
            found.push(agent);
        }
    }
}

/// Ends what a human answers for.
pub(super) fn end(
    transaction: &mut Transaction<'_>,
    owner: &Human,
    how: OwnerEnd,
    reason: &str,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    if how != OwnerEnd::Sessions {
        let known = humans::person(transaction, owner)?.unwrap_or_else(|| Person::unknown(owner.clone()));
        let known = Person { status: PersonStatus::Disabled, known_at: now, ..known };
        if let Err(refused) = humans::put(transaction, &known)? {
            return Ok(Err(refused));
        }
        withdraw_invitations(transaction, owner)?;
    }
    let (agents, more) = some_of(transaction, owner, |agent| concerns(transaction, agent, how))?;
    let (mut ids, mut ended) = (Vec::new(), Vec::new());
    for agent in agents {
        let id = agent.id.clone();
        ended.extend(end_agent(transaction, agent, how, reason, now)?);
        ids.push(id);
    }
    ending::whole(transaction, ids, ended, more).map(Ok)
}

/// Whether there is anything to do about an agent.
pub(super) fn concerns(transaction: &Transaction<'_>, agent: &Agent, how: OwnerEnd) -> Kept<bool> {
    Ok(match how {
        OwnerEnd::Sessions => !sessions::live(transaction, &agent.id)?.is_empty(),
        OwnerEnd::Suspend => agent.status == AgentStatus::Active,
        OwnerEnd::Revoke => agent.status != AgentStatus::Revoked,
    })
}

/// Ends one agent, or what it has open.
pub(super) fn end_agent(
    transaction: &mut Transaction<'_>,
    mut agent: Agent,
    how: OwnerEnd,
    reason: &str,
    now: u64,
) -> Kept<Vec<obol_session::SessionId>> {
    match how {
        OwnerEnd::Sessions => end_sessions(transaction, &mut agent, reason, now),
        OwnerEnd::Suspend => ending::suspend(transaction, &mut agent, reason, now),
        OwnerEnd::Revoke => ending::revoke(transaction, &mut agent, reason, now),
    }
}

/// Whoever answers for nothing any more invites nobody: an open invitation would let further agents in.
fn withdraw_invitations(transaction: &mut Transaction<'_>, human: &Human) -> Kept<()> {
    for (key, row) in transaction.scan(Table::Invitation, &[], None, MAX_PAGE)? {
        let invitation: Invitation = super::read_row(Table::Invitation, &row)?;
        if invitation.by == *human {
            transaction.remove(Table::Invitation, &key);
        }
    }
    Ok(())
}

/// Ends the sessions of an agent. One that is being opened by what was true before is decided anew.
fn end_sessions(
    transaction: &mut Transaction<'_>,
    agent: &mut Agent,
    reason: &str,
    now: u64,
) -> Kept<Vec<obol_session::SessionId>> {
    agent.version += 1;
    keys::put(transaction, agent)?;
    let mut ended = Vec::new();
    for session in sessions::live(transaction, &agent.id)? {
        ended.push(session.id);
        sessions::end(transaction, session, reason, now)?;
    }
    Ok(ended)
}

/// Notes what is known of a human. Agents that had a role through them which they have lost begin anew, with less.
pub(super) fn know(
    transaction: &mut Transaction<'_>,
    known: &Person,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    let before = humans::person(transaction, &known.human)?;
    let mut narrowed_at = before.as_ref().map_or(0, |before| before.narrowed_at);
    if let Some(before) = &before {
        let is_back = known.status == PersonStatus::Active && before.status == PersonStatus::Disabled;
        if is_back && known.login_at <= before.known_at {
            return Ok(Err(Refused::OwnerDisabled));
        }
        if !before.roles.is_subset(&known.roles) {
            narrowed_at = now;
        }
    }
    let known = Person { narrowed_at, ..known.clone() };
    if let Err(refused) = humans::put(transaction, &known)? {
        return Ok(Err(refused));
    }
    // Sessions that were opened since then follow from what is known now.
    let concerns = |agent: &Agent| {
        let has_less = agent.roles.iter().any(|role| !known.roles.contains(role));
        let live = if has_less { sessions::live(transaction, &agent.id)? } else { Vec::new() };
        Ok(live.iter().any(|session| session.established_at <= narrowed_at))
    };
    let (agents, more) = some_of(transaction, &known.human, concerns)?;
    let (mut ids, mut ended) = (Vec::new(), Vec::new());
    for mut agent in agents {
        ended.extend(end_sessions(transaction, &mut agent, "its owner has fewer roles", now)?);
        ids.push(agent.id);
    }
    ending::whole(transaction, ids, ended, more).map(Ok)
}
