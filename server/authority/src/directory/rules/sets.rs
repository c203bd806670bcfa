//! Security events from outside: that one was heard, and what it brings about, in one transaction. So none has its effect
//! twice, and none is taken for heard that had none.

use obol_session::SessionId;
use sha2::{Digest as _, Sha256};

use super::{heard, people, sessions};
use crate::directory::rows::SessionRow;
use crate::directory::tables::{Kept, Number, Table, Transaction, Unavailable};
use crate::directory::{Ended, HeardSet, OwnerEnd, SET_KEPT_SECS, Subject, TakenSet};

/// Where a token is remembered: by who said it and its `jti`.
fn place(transaction: &Transaction<'_>, set: &HeardSet) -> Vec<u8> {
    let digest: [u8; 32] = Sha256::digest(set.jti.as_bytes()).into();
    transaction.under(&set.issuer, &digest)
}

pub(super) fn take(transaction: &mut Transaction<'_>, set: &HeardSet, now: u64) -> Kept<TakenSet> {
    let place = place(transaction, set);
    if transaction.get_bytes(Table::Set, &place)?.is_some() {
        return Ok(TakenSet::Again);
    }
    let taken = match (&set.subject, set.deed) {
        (Some(subject), Some(deed)) => act(transaction, subject, deed, &set.reason, now)?,
        _ => TakenSet::Done(Ended { event: transaction.number(Number::LastEvent)?, ..Ended::default() }),
    };
    // Where there is more to end it is not heard yet: whoever dies now is sent it again.
    if !matches!(&taken, TakenSet::Done(ended) if ended.more) {
        heard::remember(transaction, &place, set.replayable_until, now.saturating_add(SET_KEPT_SECS), now)?;
    }
    Ok(taken)
}

fn act(
    transaction: &mut Transaction<'_>,
    subject: &Subject,
    deed: OwnerEnd,
    reason: &str,
    now: u64,
) -> Kept<TakenSet> {
    let human = &subject.human;
    // One that nobody knows here is the provider's own, and the event is about all that its human has.
    let known = match subject.session {
        Some(id) => transaction.get::<SessionRow>(Table::Session, &id.as_u64().to_be_bytes())?,
        None => None,
    };
    if let Some(session) = known {
        let agent = people::agent_of(transaction, human, &session.agent)?;
        let agent = agent.filter(|agent| subject.agent.as_ref().is_none_or(|named| *named == agent.id));
        return match agent {
            None => Ok(TakenSet::Unknown),
            Some(_) if deed == OwnerEnd::Sessions && session.ended.is_some() => {
                done(transaction, Vec::new(), Vec::new())
            }
            Some(_) if deed == OwnerEnd::Sessions => {
                let id = session.id;
                sessions::end(transaction, session, reason, now)?;
                done(transaction, Vec::new(), vec![id])
            }
            // More than a session's end is about whoever has it.
            agent => one(transaction, agent, deed, reason, now),
        };
    }
    if let Some(id) = &subject.agent {
        let agent = people::agent_of(transaction, human, id)?;
        return one(transaction, agent, deed, reason, now);
    }
    // Nothing is kept of somebody of whom nothing is known.
    if !people::is_known(transaction, human)? {
        return Ok(TakenSet::Unknown);
    }
    match people::end(transaction, human, deed, reason, now)? {
        Ok(ended) => Ok(TakenSet::Done(ended)),
        Err(refused) => Err(Unavailable::new(refused)),
    }
}

fn one(
    transaction: &mut Transaction<'_>,
    agent: Option<crate::directory::Agent>,
    deed: OwnerEnd,
    reason: &str,
    now: u64,
) -> Kept<TakenSet> {
    let Some(agent) = agent else { return Ok(TakenSet::Unknown) };
    if !people::concerns(transaction, &agent, deed)? {
        return done(transaction, Vec::new(), Vec::new());
    }
    let id = agent.id.clone();
    let ended = people::end_agent(transaction, agent, deed, reason, now)?;
    done(transaction, vec![id], ended)
}

fn done(
    transaction: &Transaction<'_>,
    agents: Vec<crate::id::AgentId>,
    sessions: Vec<SessionId>,
) -> Kept<TakenSet> {
    super::ending::whole(transaction, agents, sessions, false).map(TakenSet::Done)
}
