//! A human's yes to calls: what may wait, and what a word does. A yes and the event by which resource servers and agent hear
//! of it are one transaction.

use super::at;
use super::handshakes::Decided;
use crate::directory::MAX_PAGE;
use crate::directory::calls::{
    CallApproval, CallDecision, CallPlace, CallState, MAX_CALL_APPROVALS, NewCallApproval,
};
use crate::directory::event::Happening;
use crate::directory::rows::{Agent, AgentStatus};
use crate::directory::tables::{HIDDEN_BYTES, Kept, Number, Table, Transaction};
use crate::id::{AgentId, ApprovalId};
use crate::refused::Refused;

/// How requests of one agent are counted, in seconds.
const HOUR_SECS: u64 = 3_600;
/// How long a request is kept, in seconds: longer than any event of it.
const KEPT_SECS: u64 = 2 * HOUR_SECS;
/// The most rows that one call forgets.
const MAX_AT_ONCE: usize = 500;

pub(super) fn ask(
    transaction: &mut Transaction<'_>,
    new: NewCallApproval,
    now: u64,
) -> Kept<Decided<CallApproval>> {
    let NewCallApproval { approval, decided_by, per_hour } = new;
    let refused = |why| Ok(Decided::Done(Err(why)));
    let Some(agent) = agent(transaction, &approval.agent)? else { return refused(Refused::NotRegistered) };
    if let Some(why) = cannot_act(&agent, now) {
        return refused(why);
    }
    if !still_holds(transaction, &agent, &approval, decided_by)? {
        return Ok(Decided::Stale);
    }
    let since = transaction.under(agent.id.as_str(), &at(now.saturating_sub(HOUR_SECS), &[]));
    let hidden = transaction.hidden(agent.id.as_str());
    if transaction.keys(Table::CallApprovalAgent, &hidden, Some(&since), per_hour)?.len() >= per_hour {
        return refused(Refused::TooManyAsked);
    }
    let kept = transaction.number(Number::CallApprovals)?;
    if kept >= MAX_CALL_APPROVALS {
        return refused(Refused::Full("request for a human's yes"));
    }
    let id = approval.id.as_str().as_bytes().to_vec();
    transaction.put(Table::CallApproval, &id, &approval)?;
    let place = transaction.under(agent.id.as_str(), &at(now, &id));
    transaction.mark(Table::CallApprovalAgent, &place);
    transaction.mark(Table::CallApprovalWaiting, &at(approval.expires_at, &id));
    transaction.mark(Table::CallApprovalEnd, &at(now.saturating_add(KEPT_SECS), &id));
    transaction.set_number(Number::CallApprovals, kept + 1)?;
    Ok(Decided::Done(Ok(approval)))
}

fn agent(transaction: &Transaction<'_>, id: &AgentId) -> Kept<Option<Agent>> {
    transaction.get(Table::Agent, id.as_str().as_bytes())
}

/// Why the agent can make no calls.
fn cannot_act(agent: &Agent, now: u64) -> Option<Refused> {
    match agent.status {
        AgentStatus::Active if agent.is_expired(now) => Some(Refused::ApprovalExpired),
        AgentStatus::Active => None,
        AgentStatus::Suspended => Some(Refused::Suspended),
        AgentStatus::Revoked => Some(Refused::Revoked),
    }
}

/// Whether what it was decided by is as it was.
fn still_holds(
    transaction: &Transaction<'_>,
    agent: &Agent,
    approval: &CallApproval,
    (version, epoch): (u64, u64),
) -> Kept<bool> {
    for call in &approval.calls {
        if transaction.get_bytes(Table::DeniedTool, &transaction.hidden(&call.scope.tool))?.is_some() {
            return Ok(false);
        }
    }
    Ok(agent.version == version && transaction.number(Number::PolicyEpoch)? == epoch)
}

pub(super) fn get(transaction: &Transaction<'_>, id: &ApprovalId) -> Kept<Option<CallApproval>> {
    transaction.get(Table::CallApproval, id.as_str().as_bytes())
}

/// Those that wait, the one whose time is over next first: those behind a place, so many at most.
pub(super) fn waiting(
    transaction: &Transaction<'_>,
    now: u64,
    behind: Option<&CallPlace>,
    most: usize,
) -> Kept<Vec<CallApproval>> {
    let first = at(now.saturating_add(1), &[]);
    let behind = behind.map(|(expires_at, id)| at(*expires_at, id.as_str().as_bytes()));
    let after = behind.map_or(first.clone(), |behind| behind.max(first));
    let keys = transaction.keys(Table::CallApprovalWaiting, &[], Some(&after), most.min(MAX_PAGE))?;
    let rows = keys.iter().map(|key| transaction.get(Table::CallApproval, key.get(8..).unwrap_or_default()));
    rows.filter_map(Result::transpose).collect()
}

pub(super) fn decide(
    transaction: &mut Transaction<'_>,
    decision: CallDecision,
    now: u64,
) -> Kept<Result<CallApproval, Refused>> {
    let CallDecision { id, by, approve, decided_by } = decision;
    let found = get(transaction, &id)?;
    let is_open = |found: &CallApproval| found.state == CallState::Waiting && now < found.expires_at;
    let Some(mut approval) = found.filter(is_open) else { return Ok(Err(Refused::NoSuchApproval)) };
    if approve {
        let Some(agent) = agent(transaction, &approval.agent)? else {
            return Ok(Err(Refused::NotRegistered));
        };
        if let Some(why) = cannot_act(&agent, now) {
            return Ok(Err(why));
        }
        if !still_holds(transaction, &agent, &approval, decided_by)? {
            return Ok(Err(Refused::Unavailable("what is granted changed meanwhile".to_owned())));
        }
    }
    let id = approval.id.as_str().as_bytes();
    transaction.remove(Table::CallApprovalWaiting, &at(approval.expires_at, id));
    let event = transaction.number(Number::LastEvent)? + 1;
    approval.state =
        if approve { CallState::Approved { by, at: now, event } } else { CallState::Denied { by } };
    tell(transaction, &approval, now)?;
    Ok(Ok(approval))
}

/// Keeps what was decided, and has everybody told whom it concerns.
fn tell(transaction: &mut Transaction<'_>, approval: &CallApproval, now: u64) -> Kept<()> {
    transaction.put(Table::CallApproval, approval.id.as_str().as_bytes(), approval)?;
    // Who never heard of a yes need not hear of a no.
    let audiences = match approval.state {
        CallState::Waiting | CallState::Denied { .. } => Vec::new(),
        CallState::Approved { .. } | CallState::Ended => approval.audiences(),
    };
    let (id, agent) = (approval.id.clone(), approval.agent.clone());
    transaction.emit(now, Happening::CallsDecided { approval: id, agent, audiences })
}

/// An agent is ended: what waits for it, and what it may do still, is over.
pub(super) fn end_of(transaction: &mut Transaction<'_>, agent: &AgentId, now: u64) -> Kept<()> {
    let since = transaction.under(agent.as_str(), &at(now.saturating_sub(HOUR_SECS), &[]));
    let hidden = transaction.hidden(agent.as_str());
    for key in transaction.keys(Table::CallApprovalAgent, &hidden, Some(&since), MAX_PAGE)? {
        let id = key.get(HIDDEN_BYTES + 8..).unwrap_or_default();
        let found: Option<CallApproval> = transaction.get(Table::CallApproval, id)?;
        let Some(mut approval) = found else { continue };
        match approval.state {
            CallState::Waiting => {
                transaction.remove(Table::CallApprovalWaiting, &at(approval.expires_at, id));
            }
            CallState::Approved { .. } => {}
            CallState::Denied { .. } | CallState::Ended => continue,
        }
        approval.state = CallState::Ended;
        tell(transaction, &approval, now)?;
    }
    Ok(())
}

/// Forgets some of what is over; how many rows.
pub(super) fn forget(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let over = |key: &Vec<u8>| key.as_slice() < &now.saturating_add(1).to_be_bytes()[..];
    let waited = transaction.keys(Table::CallApprovalWaiting, &[], None, MAX_AT_ONCE)?;
    let waited: Vec<_> = waited.into_iter().take_while(over).collect();
    waited.iter().for_each(|key| transaction.remove(Table::CallApprovalWaiting, key));
    let due = transaction.keys(Table::CallApprovalEnd, &[], None, MAX_AT_ONCE)?;
    let due: Vec<_> = due.into_iter().take_while(over).collect();
    let mut forgotten = 0;
    for key in &due {
        transaction.remove(Table::CallApprovalEnd, key);
        let id = key.get(8..).unwrap_or_default();
        let Some(approval) = transaction.get::<CallApproval>(Table::CallApproval, id)? else { continue };
        let place = transaction.under(approval.agent.as_str(), &at(approval.created_at, id));
        transaction.remove(Table::CallApprovalAgent, &place);
        transaction.remove(Table::CallApproval, id);
        forgotten += 1;
    }
    if forgotten > 0 {
        let kept = transaction.number(Number::CallApprovals)?;
        transaction.set_number(Number::CallApprovals, kept.saturating_sub(forgotten))?;
    }
    Ok(due.len().max(waited.len()))
}
