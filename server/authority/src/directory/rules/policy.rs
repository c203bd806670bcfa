//! Which policy is in force, which is looked at beside it, and those there is a way back to. What a policy says is
//! another's business; here are its number, its text, and the epoch, which only rises.

use obol_session::SessionId;

use super::{ending, keys, number_behind, sessions};
use crate::directory::event::Happening;
use crate::directory::rows::{Human, PolicyText, PolicyVersion};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{Ended, MAX_PAGE, MAX_POLICY_TEXTS, MAX_POLICY_VERSIONS, Unharmed};
use crate::refused::Refused;

/// The key of the one row of its table.
const ONLY: &[u8] = b"digest";

pub(super) fn activate(
    transaction: &mut Transaction<'_>,
    text: &PolicyText,
    unharmed: &Unharmed,
    by: Human,
    now: u64,
) -> Kept<Result<(PolicyVersion, Ended), Refused>> {
    if in_force(transaction)?.is_some_and(|before| before.digest == text.digest) {
        return Ok(Err(Refused::PolicyInForce));
    }
    let version = transaction.number(Number::PolicyVersion)? + 1;
    let epoch = transaction.number(Number::PolicyEpoch)? + 1;
    transaction.set_number(Number::PolicyVersion, version)?;
    transaction.set_number(Number::PolicyEpoch, epoch)?;
    let row = PolicyVersion { version, epoch, digest: text.digest.clone(), by, at: now };
    transaction.put(Table::Policy, &version.to_be_bytes(), &row)?;
    transaction.put(Table::PolicyText, text.digest.as_bytes(), text)?;
    if observed_digest(transaction)?.as_ref() == Some(&text.digest) {
        transaction.remove(Table::ObservedPolicy, ONLY);
    }
    forget(transaction, version)?;
    let sessions = end_of_narrowed(transaction, unharmed, now)?;
    transaction.emit(now, Happening::PolicyActivated { version, epoch })?;
    ending::whole(transaction, Vec::new(), sessions, false).map(|ended| Ok((row, ended)))
}

/// Ends the sessions of agents that the new policy takes something from, or that were not weighed as they are now: they may
/// hold what it would not grant. The agent opens the next one under the new policy.
fn end_of_narrowed(transaction: &mut Transaction<'_>, unharmed: &Unharmed, now: u64) -> Kept<Vec<SessionId>> {
    let (mut ended, mut after) = (Vec::new(), None);
    loop {
        let page = transaction.keys(Table::AgentSession, &[], after.as_deref(), MAX_PAGE)?;
        let Some(last) = page.last() else { return Ok(ended) };
        after = Some(last.clone());
        for key in &page {
            let session = sessions::row(transaction, number_behind(key)?)?;
            let agent = keys::agent(transaction, &session.agent)?;
            if unharmed.get(&agent.id) == Some(&agent.version) {
                continue;
            }
            ended.push(session.id);
            sessions::end(transaction, session, "the policy gives less now", now)?;
        }
    }
}

/// The text that is too far back to be gone back to, and the row that is too old to be told.
fn forget(transaction: &mut Transaction<'_>, newest: u64) -> Kept<()> {
    if let Some(old) = newest.checked_sub(MAX_POLICY_TEXTS) {
        let row: Option<PolicyVersion> = transaction.get(Table::Policy, &old.to_be_bytes())?;
        if let Some(row) = row {
            drop_unless_needed(transaction, &row.digest)?;
        }
    }
    if let Some(old) = newest.checked_sub(MAX_POLICY_VERSIONS) {
        transaction.remove(Table::Policy, &old.to_be_bytes());
    }
    Ok(())
}

/// Removes a text that neither one of the newest versions nor the observed one has.
fn drop_unless_needed(transaction: &mut Transaction<'_>, digest: &str) -> Kept<()> {
    let newest = versions(transaction, MAX_POLICY_TEXTS)?;
    let is_needed = newest.iter().any(|version| version.digest == digest);
    if !is_needed && observed_digest(transaction)?.as_deref() != Some(digest) {
        transaction.remove(Table::PolicyText, digest.as_bytes());
    }
    Ok(())
}

pub(super) fn in_force(transaction: &Transaction<'_>) -> Kept<Option<PolicyVersion>> {
    let version = transaction.number(Number::PolicyVersion)?;
    transaction.get(Table::Policy, &version.to_be_bytes())
}

/// The newest versions, oldest first.
pub(super) fn versions(transaction: &Transaction<'_>, most: u64) -> Kept<Vec<PolicyVersion>> {
    let before = transaction.number(Number::PolicyVersion)?.saturating_sub(most);
    transaction.list(Table::Policy, Some(&before.to_be_bytes()), usize::try_from(most).unwrap_or(usize::MAX))
}

pub(super) fn text(transaction: &Transaction<'_>, digest: &str) -> Kept<Option<PolicyText>> {
    transaction.get(Table::PolicyText, digest.as_bytes())
}

fn observed_digest(transaction: &Transaction<'_>) -> Kept<Option<String>> {
    transaction.get(Table::ObservedPolicy, ONLY)
}

pub(super) fn observed(transaction: &Transaction<'_>) -> Kept<Option<PolicyText>> {
    observed_digest(transaction)?.map(|digest| text(transaction, &digest)).transpose().map(Option::flatten)
}

pub(super) fn observe(
    transaction: &mut Transaction<'_>,
    other: Option<&PolicyText>,
) -> Kept<Result<(), Refused>> {
    let before = observed_digest(transaction)?;
    match other {
        Some(other) if in_force(transaction)?.is_some_and(|held| held.digest == other.digest) => {
            return Ok(Err(Refused::PolicyInForce));
        }
        Some(other) => {
            transaction.put(Table::PolicyText, other.digest.as_bytes(), other)?;
            transaction.put(Table::ObservedPolicy, ONLY, &other.digest)?;
        }
        None => transaction.remove(Table::ObservedPolicy, ONLY),
    }
    before.map_or(Ok(()), |before| drop_unless_needed(transaction, &before)).map(Ok)
}
