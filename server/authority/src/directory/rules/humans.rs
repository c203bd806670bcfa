//! What is known of each human, and the index of the agents that they answer for.

use crate::directory::rows::{Agent, AgentStatus, Human, Person};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{MAX_PAGE, MAX_PERSONS};
use crate::id::AgentId;
use crate::refused::Refused;

/// Whether the index was made for what was there before it.
const INDEXED: &[u8] = b"owners_indexed";

/// A human as an index has them. The issuer's length keeps two names from reading as one.
pub(super) fn name(human: &Human) -> String {
    format!("{}:{}{}", human.issuer.len(), human.issuer, human.subject)
}

/// Keeps the index true for an agent that is about to be written.
pub(super) fn note(transaction: &mut Transaction<'_>, agent: &Agent) -> Kept<()> {
    let id = agent.id.as_str().as_bytes();
    if let Some(before) = transaction.get::<Agent>(Table::Agent, id)? {
        transaction.remove(Table::OwnerAgent, &transaction.under(&name(&before.owner), id));
    }
    if agent.status != AgentStatus::Revoked {
        transaction.mark(Table::OwnerAgent, &transaction.under(&name(&agent.owner), id));
    }
    Ok(())
}

/// Makes the index for agents behind `after` that were there before it; where the next page begins, if there is more.
pub(crate) fn index(transaction: &mut Transaction<'_>, after: Option<&AgentId>) -> Kept<Option<AgentId>> {
    if transaction.get_bytes(Table::Meta, INDEXED)?.is_some() {
        return Ok(None);
    }
    let after = after.map(|id| id.as_str().as_bytes());
    let agents: Vec<Agent> = transaction.list(Table::Agent, after, MAX_PAGE)?;
    for agent in &agents {
        note(transaction, agent)?;
    }
    match agents.last().filter(|_| agents.len() == MAX_PAGE) {
        Some(last) => Ok(Some(last.id.clone())),
        None => {
            transaction.mark(Table::Meta, INDEXED);
            Ok(None)
        }
    }
}

pub(super) fn person(transaction: &Transaction<'_>, human: &Human) -> Kept<Option<Person>> {
    transaction.get(Table::Person, &transaction.hidden(&name(human)))
}

pub(super) fn put(transaction: &mut Transaction<'_>, person: &Person) -> Kept<Result<(), Refused>> {
    let key = transaction.hidden(&name(&person.human));
    if transaction.get_bytes(Table::Person, &key)?.is_none() {
        let known = transaction.number(Number::Persons)?;
        if known >= MAX_PERSONS {
            return Ok(Err(Refused::Full("human")));
        }
        transaction.set_number(Number::Persons, known + 1)?;
    }
    transaction.put(Table::Person, &key, person)?;
    Ok(Ok(()))
}
