//! From a request to an agent: what may wait, who may approve how much, and what an approval makes.

use super::handshakes::Decided;
use super::{at, ending, heard, humans, keys, waiting};
use crate::directory::event::Happening;
use crate::directory::rows::{
    Agent, AgentStatus, Human, Invitation, KeyOwner, Person, PersonStatus, Registration, RegistrationState,
    key_digest,
};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{
    ATTESTED, Approval, Attested, MAX_AGENTS, MAX_APPROVALS_PER_HOUR, NewRegistration, PENDING_SECS,
    Registered,
};
use crate::id::{AgentId, RegistrationId};
use crate::refused::Refused;

/// How approvals of one human are counted, in seconds.
const HOUR_SECS: u64 = 3_600;
/// The most invitations.
const MAX_INVITATIONS: usize = 1_000;
/// Why an agent's sessions end when it changes hands: they say whose it was, and grant what that human could give.
const CHANGED_HANDS: &str = "another answers for the agent now";

pub(super) fn register(
    transaction: &mut Transaction<'_>,
    new: NewRegistration,
    now: u64,
) -> Kept<Decided<Registered>> {
    let refused = |why| Ok(Decided::Done(Err(why)));
    let renews = match keys::owner(transaction, &new.identity)? {
        None => None,
        Some(KeyOwner { until: Some(_), .. }) => return refused(Refused::Revoked),
        Some(owner) => Some(keys::agent(transaction, &owner.agent)?),
    };
    match renews.as_ref().map(|agent| agent.status) {
        Some(AgentStatus::Revoked) => return refused(Refused::Revoked),
        Some(AgentStatus::Suspended) => return refused(Refused::Suspended),
        Some(AgentStatus::Active) | None => {}
    }
    if let Some(hash) = new.ticket_hash {
        return invited(transaction, new, &hash, renews.as_ref(), now).map(Decided::Done);
    }
    if let Some(word) = new.attested.clone() {
        return attested(transaction, new, &word, renews.as_ref(), now).map(Decided::Done);
    }
    if transaction.get_bytes(Table::RegistrationCode, &new.code_hash)?.is_some() {
        // Somebody else has this code: another is made.
        return Ok(Decided::Stale);
    }
    let earlier = waiting::with_key(transaction, &new.identity, now)?;
    let in_its_place = earlier.as_ref().is_some_and(|earlier| earlier.source == new.source);
    if !waiting::has_room(transaction, &new.source, in_its_place, now)? {
        return refused(Refused::TooManyPending);
    }
    if let Some(earlier) = earlier {
        waiting::leave(transaction, &earlier)?;
        transaction.remove(Table::Registration, earlier.id.as_str().as_bytes());
    }
    let registration = Registration {
        id: new.id,
        wanted: new.wanted,
        identity: new.identity,
        sek: new.sek,
        source: new.source,
        created_at: now,
        expires_at: now.saturating_add(PENDING_SECS),
        renews: renews.map(|agent| agent.id),
        flow: new.flow,
        state: RegistrationState::Pending,
        poll_hash: new.poll_hash,
        code_hash: new.code_hash,
    };
    waiting::enter(transaction, &registration)?;
    Ok(Decided::Done(Ok(Registered::Waits(registration.id))))
}

#[expect(clippy::needless_pass_by_value, reason = "an approval is used once")]
pub(super) fn approve(
    transaction: &mut Transaction<'_>,
    approval: Approval,
    now: u64,
) -> Kept<Result<Agent, Refused>> {
    match waiting::if_it_waits(waiting::row(transaction, &approval.registration)?, now) {
        None => Ok(Err(Refused::NoSuchCode)),
        Some(registration) => make_agent(transaction, registration, &approval, now),
    }
}

/// Whether this human may say yes to this registration now; the agent whose approval it renews.
pub(super) fn may_approve(
    transaction: &Transaction<'_>,
    registration: &Registration,
    approval: &Approval,
    now: u64,
) -> Kept<Result<Option<Agent>, Refused>> {
    if let Some(refused) =
        name_is_taken(transaction, &registration.wanted.name, registration.renews.as_ref())?
    {
        return Ok(Err(refused));
    }
    if !may_give(transaction, approval)? {
        return Ok(Err(Refused::ApprovalDenied));
    }
    let by = approval.by.to_string();
    let since = transaction.under(&by, &now.saturating_sub(HOUR_SECS).to_be_bytes());
    let recent =
        transaction.keys(Table::ApprovalTime, &transaction.hidden(&by), None, MAX_APPROVALS_PER_HOUR)?;
    if recent.iter().filter(|key| **key >= since).count() >= MAX_APPROVALS_PER_HOUR {
        return Ok(Err(Refused::TooManyApprovals));
    }
    let renewed = match renewed(transaction, registration)? {
        Ok(renewed) => renewed,
        Err(refused) => return Ok(Err(refused)),
    };
    if renewed.as_ref().is_some_and(|agent| agent.status != AgentStatus::Active) {
        return Ok(Err(Refused::Suspended));
    }
    if !is_reached(renewed.as_ref(), approval.reached.as_ref()) {
        return Ok(Err(Refused::Changed));
    }
    if renewed.is_none() && transaction.number(Number::Agents)? >= MAX_AGENTS {
        return Ok(Err(Refused::Full("agent")));
    }
    Ok(Ok(renewed))
}

/// The agent that a registration renews, if its key is still that agent's, or nobody's as it was when it came.
fn renewed(
    transaction: &Transaction<'_>,
    registration: &Registration,
) -> Kept<Result<Option<Agent>, Refused>> {
    match (keys::owner(transaction, &registration.identity)?, &registration.renews) {
        (None, None) => Ok(Ok(None)),
        (Some(KeyOwner { until: Some(_), .. }), _) => Ok(Err(Refused::Revoked)),
        (Some(owner), Some(id)) if owner.agent == *id => Ok(Ok(Some(keys::agent(transaction, id)?))),
        _ => Ok(Err(Refused::Changed)),
    }
}

/// Whether whoever answers for an agent is who was found to be reached by the one who says yes. Who is of which organisation, and
/// reaches whom, is decided before a transaction; this holds the transaction to it.
fn is_reached(renewed: Option<&Agent>, reached: Option<&Human>) -> bool {
    renewed.is_none_or(|agent| reached == Some(&agent.owner))
}

/// Makes a registration an agent, if this human may say yes to it.
pub(super) fn make_agent(
    transaction: &mut Transaction<'_>,
    mut registration: Registration,
    approval: &Approval,
    now: u64,
) -> Kept<Result<Agent, Refused>> {
    let renewed = match may_approve(transaction, &registration, approval, now)? {
        Ok(renewed) => renewed,
        Err(refused) => return Ok(Err(refused)),
    };
    let made = make(&registration, approval, renewed.as_ref(), now);
    count(transaction, &registration.id, &approval.by.to_string(), now)?;
    waiting::leave(transaction, &registration)?;
    registration.state = RegistrationState::Approved { agent: made.id.clone(), expires_at: made.expires_at };
    transaction.put(Table::Registration, registration.id.as_str().as_bytes(), &registration)?;
    keep(transaction, &made, renewed.as_ref(), now)?;
    Ok(Ok(made))
}

/// Counts an approval, and forgets those that are older than an hour.
fn count(transaction: &mut Transaction<'_>, id: &RegistrationId, by: &str, now: u64) -> Kept<()> {
    let since = transaction.under(by, &now.saturating_sub(HOUR_SECS).to_be_bytes());
    let known =
        transaction.keys(Table::ApprovalTime, &transaction.hidden(by), None, MAX_APPROVALS_PER_HOUR)?;
    known.iter().filter(|key| **key < since).for_each(|key| transaction.remove(Table::ApprovalTime, key));
    let time = transaction.under(by, &at(now, id.as_str().as_bytes()));
    transaction.mark(Table::ApprovalTime, &time);
    Ok(())
}

/// Whether whoever approves has the roles that they give, as last known.
fn may_give(transaction: &Transaction<'_>, approval: &Approval) -> Kept<bool> {
    if approval.by.is_local() {
        return Ok(true);
    }
    let person = humans::person(transaction, &approval.by)?;
    let has_all = |person: Person| person.bounds(&approval.roles).len() == approval.roles.len();
    Ok(person.filter(|person| person.status == PersonStatus::Active).is_some_and(has_all))
}

/// The agent that an approval makes: a new one, or `renewed` with what changed.
pub(crate) fn make(
    registration: &Registration,
    approval: &Approval,
    renewed: Option<&Agent>,
    now: u64,
) -> Agent {
    Agent {
        id: renewed.map_or_else(|| approval.agent.clone(), |agent| agent.id.clone()),
        wanted: registration.wanted.clone(),
        owner: approval.by.clone(),
        identity: registration.identity,
        sek: registration.sek,
        roles: approval.roles.clone(),
        status: AgentStatus::Active,
        flow: approval.flow.to_owned(),
        registered_at: renewed.map_or(now, |agent| agent.registered_at),
        approved_at: now,
        approved_by: approval.by.clone(),
        expires_at: now.saturating_add(approval.secs),
        min_suite: renewed.and_then(|agent| agent.min_suite),
        // Who looked at it again has seen that a copy is suspected.
        clone_suspected: false,
        chain: renewed.and_then(|agent| agent.chain),
        last_session_at: renewed.and_then(|agent| agent.last_session_at),
        version: renewed.map_or(1, |agent| agent.version + 1),
    }
}

fn keep(transaction: &mut Transaction<'_>, made: &Agent, renewed: Option<&Agent>, now: u64) -> Kept<()> {
    if let Some(before) = renewed.filter(|before| before.wanted.name != made.wanted.name) {
        transaction.remove(Table::AgentName, &transaction.hidden(&before.wanted.name));
    }
    if renewed.is_none() {
        let agents = transaction.number(Number::Agents)?;
        transaction.set_number(Number::Agents, agents + 1)?;
    }
    transaction.put(Table::AgentName, &transaction.hidden(&made.wanted.name), &made.id)?;
    let owner = KeyOwner { agent: made.id.clone(), until: None };
    transaction.put(Table::IdentityKey, &key_digest(&made.identity), &owner)?;
    keys::put(transaction, made)?;
    if renewed.is_some_and(|before| before.owner != made.owner) {
        ending::end_what_is_open(transaction, &made.id, CHANGED_HANDS, now)?;
    }
    transaction.emit(now, Happening::AgentApproved { agent: made.id.clone() })
}

fn name_is_taken(
    transaction: &Transaction<'_>,
    name: &str,
    by_itself: Option<&AgentId>,
) -> Kept<Option<Refused>> {
    let taken: Option<AgentId> = transaction.get(Table::AgentName, &transaction.hidden(name))?;
    Ok(taken.filter(|id| Some(id) != by_itself).map(|_| Refused::NameTaken))
}

pub(super) fn deny(
    transaction: &mut Transaction<'_>,
    id: &RegistrationId,
    block_secs: u64,
    now: u64,
) -> Kept<Result<Registration, Refused>> {
    let Some(mut registration) = waiting::open_named(transaction, id, now)? else {
        return Ok(Err(Refused::NoSuchCode));
    };
    waiting::leave(transaction, &registration)?;
    registration.state = RegistrationState::Denied;
    transaction.put(Table::Registration, id.as_str().as_bytes(), &registration)?;
    if block_secs > 0 {
        let until = now.saturating_add(block_secs);
        transaction.put(Table::BlockedSource, &transaction.hidden(&registration.source), &until)?;
    }
    Ok(Ok(registration))
}

pub(super) fn invite(
    transaction: &mut Transaction<'_>,
    ticket_hash: &[u8; 32],
    invitation: &Invitation,
) -> Kept<Result<(), Refused>> {
    if transaction.keys(Table::Invitation, &[], None, MAX_INVITATIONS)?.len() >= MAX_INVITATIONS {
        return Ok(Err(Refused::Full("invitation")));
    }
    transaction.put(Table::Invitation, ticket_hash, invitation)?;
    Ok(Ok(()))
}

/// Registers an agent that has an invitation: approved at once, by whoever invited it.
fn invited(
    transaction: &mut Transaction<'_>,
    new: NewRegistration,
    ticket_hash: &[u8; 32],
    renewed: Option<&Agent>,
    now: u64,
) -> Kept<Result<Registered, Refused>> {
    let found: Option<Invitation> = transaction.get(Table::Invitation, ticket_hash)?;
    let good = found.filter(|found| {
        now < found.expires_at && found.used < found.max_agents && found.class == new.wanted.class
    });
    let good = good.filter(|_| is_reached(renewed, new.reached.as_ref()));
    let Some(mut invitation) = good else { return Ok(Err(Refused::Invitation)) };
    if let Some(refused) = has_no_place(transaction, &new.wanted.name, renewed)? {
        return Ok(Err(refused));
    }
    invitation.used += 1;
    transaction.put(Table::Invitation, ticket_hash, &invitation)?;
    let approval = Approval {
        registration: new.id.clone(),
        agent: new.agent.clone(),
        by: Human::clone(&invitation.by),
        roles: invitation.roles.clone(),
        secs: invitation.approval_secs,
        flow: "invite",
        reached: new.reached.clone(),
    };
    at_once(transaction, new, &approval, renewed, now)
}

/// Registers an agent of which somebody else gave a signed word: approved at once, by whoever answers for it. That word is spent
/// here, together with what it brings about, so that it brings it about once.
fn attested(
    transaction: &mut Transaction<'_>,
    new: NewRegistration,
    word: &Attested,
    renewed: Option<&Agent>,
    now: u64,
) -> Kept<Result<Registered, Refused>> {
    if heard::is_spent(transaction, word)? {
        return Ok(Err(Refused::AssertionUsed));
    }
    if !is_reached(renewed, new.reached.as_ref()) {
        return Ok(Err(Refused::Assertion("this key is an agent's of another organisation".to_owned())));
    }
    let owner = humans::person(transaction, &word.owner)?;
    if owner.is_some_and(|owner| owner.status == PersonStatus::Disabled) {
        return Ok(Err(Refused::OwnerDisabled));
    }
    if let Some(refused) = has_no_place(transaction, &new.wanted.name, renewed)? {
        return Ok(Err(refused));
    }
    let approval = Approval {
        registration: new.id.clone(),
        agent: new.agent.clone(),
        by: word.owner.clone(),
        roles: word.roles.clone(),
        secs: word.secs,
        flow: ATTESTED,
        reached: new.reached.clone(),
    };
    if !may_give(transaction, &approval)? {
        return Ok(Err(Refused::ApprovalDenied));
    }
    heard::spend(transaction, word, now)?;
    at_once(transaction, new, &approval, renewed, now)
}

/// Why there is no place for an agent of this name, if there is none.
fn has_no_place(transaction: &Transaction<'_>, name: &str, renewed: Option<&Agent>) -> Kept<Option<Refused>> {
    if let Some(refused) = name_is_taken(transaction, name, renewed.map(|agent| &agent.id))? {
        return Ok(Some(refused));
    }
    let is_full = renewed.is_none() && transaction.number(Number::Agents)? >= MAX_AGENTS;
    Ok(is_full.then_some(Refused::Full("agent")))
}

/// Makes an agent for which nobody has to be waited.
fn at_once(
    transaction: &mut Transaction<'_>,
    new: NewRegistration,
    approval: &Approval,
    renewed: Option<&Agent>,
    now: u64,
) -> Kept<Result<Registered, Refused>> {
    let registration = Registration {
        id: new.id,
        wanted: new.wanted,
        identity: new.identity,
        sek: new.sek,
        source: new.source,
        created_at: now,
        expires_at: now,
        renews: None,
        flow: new.flow,
        state: RegistrationState::Pending,
        poll_hash: new.poll_hash,
        code_hash: new.code_hash,
    };
    let made = make(&registration, approval, renewed, now);
    keep(transaction, &made, renewed, now)?;
    Ok(Ok(Registered::Active(Box::new(made))))
}
