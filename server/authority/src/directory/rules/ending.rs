//! Ending things: one transaction denies, ends the sessions, and writes the events by which others hear of it.

use obol_handshake::IdentityPublic;
use obol_session::SessionId;

use super::{calls, keys, number_behind, sessions};
use crate::directory::event::Happening;
use crate::directory::rows::{Agent, AgentStatus, DeniedTool, Human, SessionRow};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{Ended, KeyStanding, MAX_PAGE};
use crate::id::AgentId;
use crate::refused::Refused;

/// The most tools that can be denied.
pub(super) const MAX_DENIED_TOOLS: usize = 1_000;

pub(super) fn end_agent(
    transaction: &mut Transaction<'_>,
    name: &str,
    for_good: bool,
    reason: &str,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    let Some(mut agent) = keys::agent_called(transaction, name)? else {
        return Ok(Err(Refused::Unknown("agent")));
    };
    if agent.status == AgentStatus::Revoked {
        return Ok(Err(Refused::Revoked));
    }
    let ended = match for_good {
        true => revoke(transaction, &mut agent, reason, now)?,
        false => suspend(transaction, &mut agent, reason, now)?,
    };
    whole(transaction, vec![agent.id], ended, false).map(Ok)
}

pub(super) fn whole(
    transaction: &Transaction<'_>,
    agents: Vec<AgentId>,
    sessions: Vec<SessionId>,
    more: bool,
) -> Kept<Ended> {
    Ok(Ended { agents, sessions, event: transaction.number(Number::LastEvent)?, more })
}

/// Lets the agent open no session, and ends those it has.
pub(super) fn suspend(
    transaction: &mut Transaction<'_>,
    agent: &mut Agent,
    reason: &str,
    now: u64,
) -> Kept<Vec<SessionId>> {
    close(transaction, agent, AgentStatus::Suspended, reason, now)
}

pub(super) fn revoke(
    transaction: &mut Transaction<'_>,
    agent: &mut Agent,
    reason: &str,
    now: u64,
) -> Kept<Vec<SessionId>> {
    // The name is free again; the key is not, for good.
    transaction.remove(Table::AgentName, &transaction.hidden(&agent.wanted.name));
    close(transaction, agent, AgentStatus::Revoked, reason, now)
}

fn close(
    transaction: &mut Transaction<'_>,
    agent: &mut Agent,
    status: AgentStatus,
    reason: &str,
    now: u64,
) -> Kept<Vec<SessionId>> {
    agent.status = status;
    agent.version += 1;
    keys::put(transaction, agent)?;
    keys::forget_rotation(transaction, &agent.id)?;
    let ended = end_what_is_open(transaction, &agent.id, reason, now)?;
    let (agent, revoked) = (agent.id.clone(), status == AgentStatus::Revoked);
    transaction.emit(now, Happening::AgentEnd { agent, revoked, reason: reason.to_owned() })?;
    Ok(ended)
}

/// Ends the sessions of an agent, what waits for a human's yes, and what it may do still by one.
pub(super) fn end_what_is_open(
    transaction: &mut Transaction<'_>,
    agent: &AgentId,
    reason: &str,
    now: u64,
) -> Kept<Vec<SessionId>> {
    let mut ended = Vec::new();
    for session in sessions::live(transaction, agent)? {
        ended.push(session.id);
        sessions::end(transaction, session, reason, now)?;
    }
    calls::end_of(transaction, agent, now)?;
    Ok(ended)
}

pub(super) fn end_session(
    transaction: &mut Transaction<'_>,
    id: SessionId,
    reason: &str,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    let found: Option<SessionRow> = transaction.get(Table::Session, &id.as_u64().to_be_bytes())?;
    match found.filter(|found| found.ended.is_none()) {
        None => Ok(Err(Refused::Unknown("live session"))),
        Some(session) => {
            sessions::end(transaction, session, reason, now)?;
            whole(transaction, Vec::new(), vec![id], false).map(Ok)
        }
    }
}

/// Denies the tool first, so that no new session has it; of the sessions that grant it as many as one transaction should.
pub(super) fn end_tool(
    transaction: &mut Transaction<'_>,
    tool: &str,
    reason: &str,
    by: &Human,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    let found: Option<DeniedTool> = transaction.get(Table::DeniedTool, &transaction.hidden(tool))?;
    let live = transaction.keys(Table::ToolSession, &transaction.hidden(tool), None, MAX_PAGE)?;
    if found.is_none() {
        let denied = transaction.keys(Table::DeniedTool, &[], None, MAX_DENIED_TOOLS)?;
        if denied.len() >= MAX_DENIED_TOOLS {
            return Ok(Err(Refused::Full("denied tool")));
        }
        let (tool, reason) = (tool.to_owned(), reason.to_owned());
        let denial = DeniedTool { tool: tool.clone(), reason: reason.clone(), by: by.clone(), at: now };
        transaction.put(Table::DeniedTool, &transaction.hidden(&tool), &denial)?;
        transaction.emit(now, Happening::ToolDenied { tool, reason })?;
    }
    let mut ended = Vec::new();
    for key in &live {
        let session = sessions::row(transaction, number_behind(key)?)?;
        ended.push(session.id);
        sessions::end(transaction, session, reason, now)?;
    }
    whole(transaction, Vec::new(), ended, live.len() == MAX_PAGE).map(Ok)
}

pub(super) fn enable_agent(
    transaction: &mut Transaction<'_>,
    name: &str,
    now: u64,
) -> Kept<Result<Agent, Refused>> {
    let Some(mut agent) = keys::agent_called(transaction, name)? else {
        return Ok(Err(Refused::Unknown("agent")));
    };
    match agent.status {
        AgentStatus::Revoked => return Ok(Err(Refused::Revoked)),
        AgentStatus::Active => return Ok(Ok(agent)),
        AgentStatus::Suspended => {}
    }
    agent.status = AgentStatus::Active;
    agent.clone_suspected = false;
    // Whichever copy comes first is the agent from now on, and the other is noticed.
    agent.chain = None;
    agent.version += 1;
    keys::put(transaction, &agent)?;
    transaction.emit(now, Happening::AgentEnabled { agent: agent.id.clone() })?;
    Ok(Ok(agent))
}

pub(super) fn enable_tool(
    transaction: &mut Transaction<'_>,
    tool: &str,
    now: u64,
) -> Kept<Result<(), Refused>> {
    if transaction.get_bytes(Table::DeniedTool, &transaction.hidden(tool))?.is_none() {
        return Ok(Err(Refused::Unknown("denied tool")));
    }
    transaction.remove(Table::DeniedTool, &transaction.hidden(tool));
    transaction.emit(now, Happening::ToolEnabled { tool: tool.to_owned() })?;
    Ok(Ok(()))
}

pub(super) fn deregister(
    transaction: &mut Transaction<'_>,
    key: &IdentityPublic,
    now: u64,
) -> Kept<Result<Ended, Refused>> {
    let mut agent = match keys::standing(transaction, key, now)? {
        KeyStanding::Agent(agent) => *agent,
        KeyStanding::Pending => return Ok(Err(Refused::PendingApproval)),
        KeyStanding::Retired => return Ok(Err(Refused::Revoked)),
        KeyStanding::Unknown => return Ok(Err(Refused::NotRegistered)),
    };
    if agent.status == AgentStatus::Revoked || agent.identity != *key {
        return Ok(Err(Refused::Revoked));
    }
    let ended = revoke(transaction, &mut agent, "deregistered by itself", now)?;
    whole(transaction, vec![agent.id], ended, false).map(Ok)
}
