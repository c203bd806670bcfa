//! A directory that was put back from a copy begins another life.

use zeroize::Zeroizing;

use super::{INCARNATION, ending};
use crate::directory::rows::{Agent, AgentStatus};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{Event, MAX_PAGE, StartedOver};

const REASON: &str = "the directory was put back from a copy";
/// What was good for one use may have been used since.
const ONCE: [Table; 2] = [Table::Invitation, Table::JoinCode];

pub(super) fn start_over(
    transaction: &mut Transaction<'_>,
    incarnation: [u8; 16],
    now: u64,
) -> Kept<StartedOver> {
    let last = transaction.number(Number::LastEvent)?;
    let last: Option<Event> = transaction.get(Table::Event, &last.to_be_bytes())?;
    transaction.put_bytes(Table::Meta, INCARNATION, Zeroizing::new(incarnation.to_vec()));
    for table in ONCE {
        for key in transaction.keys(table, &[], None, usize::MAX)? {
            transaction.remove(table, &key);
        }
    }
    let mut over = StartedOver {
        known_until: last.map_or(0, |event| event.at),
        agents: Vec::new(),
        sessions: Vec::new(),
    };
    let mut after = None;
    loop {
        let agents: Vec<Agent> = transaction.list(Table::Agent, after.as_deref(), MAX_PAGE)?;
        let Some(last) = agents.last() else { return Ok(over) };
        after = Some(last.id.as_str().as_bytes().to_vec());
        for mut agent in agents.into_iter().filter(|agent| agent.status == AgentStatus::Active) {
            over.sessions.extend(ending::suspend(transaction, &mut agent, REASON, now)?);
            over.agents.push(agent.id);
        }
    }
}
