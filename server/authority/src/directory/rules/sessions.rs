//! Opening sessions: the number, the halves, the chain that shows copies of a key, and their event, all at once.

use obol_secret::compare::ct_eq_32;
use obol_session::{ResourceHalf, SessionId};
use zeroize::Zeroizing;

use super::handshakes::Decided;
use super::{at, keys, number_behind};
use crate::directory::event::Happening;
use crate::directory::rows::{Agent, AgentStatus, Ending, SessionRow};
use crate::directory::tables::{HIDDEN_BYTES, Kept, Number, Table, Transaction, Unavailable};
use crate::directory::{ClonePolicy, HalvesPage, MAX_LIVE_SESSIONS, MAX_PAGE, Opened, SessionPlan};
use crate::id::AgentId;
use crate::refused::Refused;

/// How long a session that another took the place of goes on after the last token that may be minted from it, in seconds.
const CLOSE_GRACE_SECS: u64 = 30;
/// How long a session that has ended can be looked at, in seconds.
pub(super) const ENDED_KEPT_SECS: u64 = 86_400;

pub(super) fn open(transaction: &mut Transaction<'_>, plan: SessionPlan, now: u64) -> Kept<Decided<Opened>> {
    let refused = |why| Ok(Decided::Done(Err(why)));
    let mut agent = keys::agent(transaction, &plan.row.agent)?;
    match agent.status {
        AgentStatus::Active if agent.is_expired(now) => return refused(Refused::ApprovalExpired),
        AgentStatus::Active => {}
        AgentStatus::Suspended => return refused(Refused::Suspended),
        AgentStatus::Revoked => return refused(Refused::Revoked),
    }
    let epoch = transaction.number(Number::PolicyEpoch)?;
    if agent.version != plan.agent_version || plan.row.policy_epoch != epoch {
        return Ok(Decided::Stale);
    }
    for tool in &plan.row.tools {
        if transaction.get_bytes(Table::DeniedTool, &transaction.hidden(tool))?.is_some() {
            return Ok(Decided::Stale);
        }
    }
    if plan.row.id.as_u64() <= transaction.number(Number::LastSession)? {
        // A number once used never comes again; the next attempt takes a higher one.
        return Ok(Decided::Stale);
    }
    let forked = agent.chain.is_some_and(|expected| !presents(&plan.presented, &expected));
    if forked && suspect(transaction, &mut agent, plan.clones, now)? {
        return refused(Refused::Suspended);
    }
    if let Some(previous) = plan.previous {
        close_later(transaction, &agent.id, previous, now)?;
    }
    let superseded = supersede(transaction, &agent.id, now)?;
    agent.chain = Some(plan.chain);
    agent.last_session_at = Some(now);
    keys::put_known(transaction, &agent)?;
    keep(transaction, &plan, now)?;
    let event = transaction.number(Number::LastEvent)?;
    Ok(Decided::Done(Ok(Opened { session: plan.row, clone_suspected: forked, superseded, event })))
}

/// Whether one of the values is the one that is expected. Looks at all of them.
fn presents(presented: &[[u8; 32]], expected: &[u8; 32]) -> bool {
    presented.iter().fold(false, |found, value| ct_eq_32(value, expected) | found)
}

/// Notes that the agent's key seems to have a copy; whether that ends the matter.
fn suspect(
    transaction: &mut Transaction<'_>,
    agent: &mut Agent,
    clones: ClonePolicy,
    now: u64,
) -> Kept<bool> {
    agent.clone_suspected = true;
    agent.version += 1;
    transaction.emit(now, Happening::CloneSuspected { agent: agent.id.clone() })?;
    if clones == ClonePolicy::Alert {
        return Ok(false);
    }
    super::ending::suspend(transaction, agent, "a copy of its key is suspected", now)?;
    Ok(true)
}

fn keep(transaction: &mut Transaction<'_>, plan: &SessionPlan, now: u64) -> Kept<()> {
    let row = &plan.row;
    let number = row.id.as_u64().to_be_bytes();
    transaction.set_number(Number::LastSession, row.id.as_u64())?;
    transaction.put(Table::Session, &number, row)?;
    for half in &plan.halves {
        let key = half_key(transaction, row.id, &half.keys.aud);
        transaction.put_bytes(Table::SessionAudience, &key, Zeroizing::new(half.to_json().to_vec()));
    }
    transaction.mark(Table::AgentSession, &transaction.under(row.agent.as_str(), &number));
    for tool in &row.tools {
        transaction.mark(Table::ToolSession, &transaction.under(tool, &number));
    }
    transaction.mark(Table::SessionEnd, &at(row.expires_at, &number));
    let (session, agent, audiences) = (row.id, row.agent.clone(), row.audiences.clone());
    transaction.emit(now, Happening::SessionOpen { session, agent, audiences })
}

/// Has a session of the agent closed once the tokens that may be minted from it now are over.
fn close_later(
    transaction: &mut Transaction<'_>,
    agent: &AgentId,
    previous: SessionId,
    now: u64,
) -> Kept<()> {
    let number = previous.as_u64().to_be_bytes();
    let found: Option<SessionRow> = transaction.get(Table::Session, &number)?;
    let is_theirs = |row: &SessionRow| row.agent == *agent && row.ended.is_none() && row.closes_at.is_none();
    let Some(mut row) = found.filter(is_theirs) else { return Ok(()) };
    let mut longest = 0;
    for audience in &row.audiences {
        let half = half(transaction, previous, audience)?;
        let ttls = half.iter().flat_map(|half| half.grants.iter().flatten()).map(|grant| grant.ttl);
        longest = longest.max(ttls.max().unwrap_or(0));
    }
    let closes_at = now.saturating_add(longest).saturating_add(CLOSE_GRACE_SECS);
    if closes_at < row.expires_at {
        row.closes_at = Some(closes_at);
        transaction.put(Table::Session, &number, &row)?;
        transaction.mark(Table::SessionEnd, &at(closes_at, &number));
    }
    Ok(())
}

/// Ends the oldest sessions of an agent until one more has room.
fn supersede(transaction: &mut Transaction<'_>, agent: &AgentId, now: u64) -> Kept<Vec<SessionId>> {
    let live = live_keys(transaction, agent)?;
    let too_many = (live.len() + 1).saturating_sub(MAX_LIVE_SESSIONS);
    let mut ended = Vec::new();
    for key in live.iter().take(too_many) {
        let session = row(transaction, number_behind(key)?)?;
        ended.push(session.id);
        end(transaction, session, "superseded", now)?;
    }
    Ok(ended)
}

/// An agent's live sessions, the oldest first.
pub(super) fn live(transaction: &Transaction<'_>, agent: &AgentId) -> Kept<Vec<SessionRow>> {
    live_keys(transaction, agent)?.iter().map(|key| row(transaction, number_behind(key)?)).collect()
}

/// Their places in the index.
fn live_keys(transaction: &Transaction<'_>, agent: &AgentId) -> Kept<Vec<Vec<u8>>> {
    let hidden = transaction.hidden(agent.as_str());
    transaction.keys(Table::AgentSession, &hidden, None, MAX_LIVE_SESSIONS + 1)
}

/// Live sessions of all agents, in the order of their index.
pub(super) fn all_live(
    transaction: &Transaction<'_>,
    after: Option<(&AgentId, SessionId)>,
    most: usize,
) -> Kept<Vec<SessionRow>> {
    let after = after.map(|(agent, id)| transaction.under(agent.as_str(), &id.as_u64().to_be_bytes()));
    let keys = transaction.keys(Table::AgentSession, &[], after.as_deref(), most)?;
    keys.iter().map(|key| row(transaction, number_behind(key)?)).collect()
}

pub(super) fn row(transaction: &Transaction<'_>, id: SessionId) -> Kept<SessionRow> {
    let found = transaction.get(Table::Session, &id.as_u64().to_be_bytes())?;
    found.ok_or_else(|| Unavailable::new("an index names a session that is not there"))
}

fn half_key(transaction: &Transaction<'_>, session: SessionId, audience: &str) -> Vec<u8> {
    [&session.as_u64().to_be_bytes()[..], &transaction.hidden(audience)].concat()
}

/// What a resource server verifies a live session by.
pub(super) fn half(
    transaction: &Transaction<'_>,
    session: SessionId,
    audience: &str,
) -> Kept<Option<ResourceHalf>> {
    let key = half_key(transaction, session, audience);
    let row = transaction.get_bytes(Table::SessionAudience, &key)?;
    row.map(|row| ResourceHalf::from_json(&row).map_err(Unavailable::new)).transpose()
}

/// The halves of live sessions for one resource server, of the next sessions behind `after`.
pub(super) fn halves(
    transaction: &Transaction<'_>,
    audience: &str,
    after: Option<SessionId>,
) -> Kept<HalvesPage> {
    let hidden = transaction.hidden(audience);
    // Behind every audience of that session.
    let after = after.map(|after| [&after.as_u64().to_be_bytes()[..], &[0xff; HIDDEN_BYTES]].concat());
    let rows = transaction.scan(Table::SessionAudience, &[], after.as_deref(), MAX_PAGE)?;
    let mut page = HalvesPage::default();
    let is_full = rows.len() == MAX_PAGE;
    for (key, row) in rows {
        let (number, of) = key.split_at_checked(8).unwrap_or_default();
        let number = number_behind(number)?;
        // The page may have cut a session in two; its rest is read again with the next.
        if is_full {
            page.next = Some(SessionId::from_u64(number.as_u64().saturating_sub(1)));
        }
        if of == hidden {
            page.halves.push((number, row));
        }
    }
    Ok(page)
}

/// Ends a live session: its keys go, and those who verify its tokens are told.
pub(super) fn end(
    transaction: &mut Transaction<'_>,
    mut session: SessionRow,
    reason: &str,
    now: u64,
) -> Kept<()> {
    drop_keys(transaction, &session);
    let number = session.id.as_u64().to_be_bytes();
    transaction.remove(Table::SessionEnd, &at(session.expires_at, &number));
    transaction.mark(Table::SessionEnd, &at(now.saturating_add(ENDED_KEPT_SECS), &number));
    session.ended = Some(Ending { at: now, reason: reason.to_owned() });
    transaction.put(Table::Session, &number, &session)?;
    transaction.emit(
        now,
        Happening::SessionEnd {
            session: session.id,
            agent: session.agent,
            audiences: session.audiences,
            reason: reason.to_owned(),
        },
    )
}

/// Takes a session off every list of live ones, and its keys with it.
pub(super) fn drop_keys(transaction: &mut Transaction<'_>, session: &SessionRow) {
    let number = session.id.as_u64().to_be_bytes();
    for audience in &session.audiences {
        transaction.remove(Table::SessionAudience, &half_key(transaction, session.id, audience));
    }
    transaction.remove(Table::AgentSession, &transaction.under(session.agent.as_str(), &number));
    for tool in &session.tools {
        transaction.remove(Table::ToolSession, &transaction.under(tool, &number));
    }
}
