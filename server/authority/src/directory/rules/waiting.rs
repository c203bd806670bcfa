//! What waits for a human's yes: its room, its lists, and how it is found again.

use obol_handshake::IdentityPublic;
use obol_secret::compare::ct_eq_32;

use super::at;
use crate::directory::rows::{Registration, RegistrationState, key_digest};
use crate::directory::tables::{HIDDEN_BYTES, Kept, Number, Table, Transaction};
use crate::directory::{MAX_PAGE, MAX_PENDING, MAX_PENDING_PER_SOURCE, PENDING_SECS, Polled};
use crate::id::RegistrationId;

pub(super) fn enter(transaction: &mut Transaction<'_>, new: &Registration) -> Kept<()> {
    let id = new.id.as_str().as_bytes();
    transaction.put(Table::Registration, id, new)?;
    transaction.put(Table::RegistrationCode, &new.code_hash, &new.id)?;
    transaction.put(Table::RegistrationKey, &key_digest(&new.identity), &new.id)?;
    transaction.mark(Table::RegistrationSource, &transaction.under(&new.source, id));
    transaction.mark(Table::RegistrationEnd, &at(new.expires_at, id));
    let pending = transaction.number(Number::Pending)?;
    transaction.set_number(Number::Pending, pending + 1)
}

/// Takes a registration off every list of those that wait. Its row stays, for whoever asks what became of it.
pub(super) fn leave(transaction: &mut Transaction<'_>, registration: &Registration) -> Kept<()> {
    let place = transaction.under(&registration.source, registration.id.as_str().as_bytes());
    if transaction.get_bytes(Table::RegistrationSource, &place)?.is_none() {
        return Ok(());
    }
    transaction.remove(Table::RegistrationSource, &place);
    transaction.remove(Table::RegistrationCode, &registration.code_hash);
    let key = key_digest(&registration.identity);
    let newest: Option<RegistrationId> = transaction.get(Table::RegistrationKey, &key)?;
    if newest.as_ref() == Some(&registration.id) {
        transaction.remove(Table::RegistrationKey, &key);
    }
    let pending = transaction.number(Number::Pending)?;
    transaction.set_number(Number::Pending, pending.saturating_sub(1))
}

/// Whether one more registration from this source may wait, or another in the place of an earlier one.
pub(super) fn has_room(
    transaction: &mut Transaction<'_>,
    source: &str,
    in_its_place: bool,
    now: u64,
) -> Kept<bool> {
    let blocked: Option<u64> = transaction.get(Table::BlockedSource, &transaction.hidden(source))?;
    if blocked.is_some_and(|until| now < until) {
        return Ok(false);
    }
    let from_here = transaction.keys(
        Table::RegistrationSource,
        &transaction.hidden(source),
        None,
        MAX_PENDING_PER_SOURCE,
    )?;
    if in_its_place {
        return Ok(true);
    }
    if from_here.len() < MAX_PENDING_PER_SOURCE {
        return Ok(transaction.number(Number::Pending)? < MAX_PENDING);
    }
    // Those whose time is over are not counted, also where nobody has forgotten them yet.
    let mut freed = false;
    for key in from_here {
        let id = key.get(HIDDEN_BYTES..).unwrap_or_default();
        let registration: Option<Registration> = transaction.get(Table::Registration, id)?;
        if let Some(over) = registration.filter(|registration| now >= registration.expires_at) {
            leave(transaction, &over)?;
            freed = true;
        }
    }
    Ok(freed && transaction.number(Number::Pending)? < MAX_PENDING)
}

pub(super) fn row(transaction: &Transaction<'_>, id: &RegistrationId) -> Kept<Option<Registration>> {
    transaction.get(Table::Registration, id.as_str().as_bytes())
}

/// Whether it may still become an agent: nobody has decided, or the yes has not come back.
fn is_open(found: &Registration, now: u64) -> bool {
    matches!(found.state, RegistrationState::Pending | RegistrationState::Confirming(_))
        && now < found.expires_at
}

pub(super) fn if_it_waits(found: Option<Registration>, now: u64) -> Option<Registration> {
    found.filter(|found| found.state == RegistrationState::Pending && now < found.expires_at)
}

pub(super) fn named(
    transaction: &Transaction<'_>,
    id: &RegistrationId,
    now: u64,
) -> Kept<Option<Registration>> {
    Ok(if_it_waits(row(transaction, id)?, now))
}

pub(super) fn open_named(
    transaction: &Transaction<'_>,
    id: &RegistrationId,
    now: u64,
) -> Kept<Option<Registration>> {
    Ok(row(transaction, id)?.filter(|found| is_open(found, now)))
}

pub(super) fn with_code(
    transaction: &Transaction<'_>,
    code_hash: &[u8; 32],
    now: u64,
) -> Kept<Option<Registration>> {
    let id: Option<RegistrationId> = transaction.get(Table::RegistrationCode, code_hash)?;
    let found = id.map(|id| row(transaction, &id)).transpose()?.flatten();
    Ok(if_it_waits(found, now))
}

/// Those that wait, the one whose time is over next first: those behind one, at most a page.
pub(super) fn page(
    transaction: &Transaction<'_>,
    now: u64,
    behind: Option<&Registration>,
) -> Kept<Vec<Registration>> {
    let mut found = Vec::new();
    // Nobody waits longer; behind it are those of which one can still ask what became of them.
    let end = at(now.saturating_add(PENDING_SECS + 1), &[]);
    let first = at(now.saturating_add(1), &[]);
    let behind = behind.map(|behind| at(behind.expires_at, behind.id.as_str().as_bytes()));
    let mut after = behind.map_or(first.clone(), |behind| behind.max(first));
    loop {
        let keys = transaction.keys(Table::RegistrationEnd, &[], Some(&after), MAX_PAGE)?;
        let Some(last) = keys.last() else { return Ok(found) };
        after = last.clone();
        for key in keys {
            if key >= end || found.len() == MAX_PAGE {
                return Ok(found);
            }
            let registration = transaction.get(Table::Registration, key.get(8..).unwrap_or_default())?;
            found.extend(if_it_waits(registration, now));
        }
    }
}

pub(super) fn with_key(
    transaction: &Transaction<'_>,
    key: &IdentityPublic,
    now: u64,
) -> Kept<Option<Registration>> {
    let id: Option<RegistrationId> = transaction.get(Table::RegistrationKey, &key_digest(key))?;
    let found = id.map(|id| row(transaction, &id)).transpose()?.flatten();
    Ok(found.filter(|found| is_open(found, now)))
}

pub(super) fn poll(
    transaction: &Transaction<'_>,
    id: &RegistrationId,
    poll_hash: &[u8; 32],
    now: u64,
) -> Kept<Option<Polled>> {
    let found = row(transaction, id)?.filter(|found| ct_eq_32(&found.poll_hash, poll_hash));
    Ok(found.map(|found| match found.state {
        RegistrationState::Approved { agent, expires_at } => Polled::Approved { agent, expires_at },
        RegistrationState::Denied => Polled::Denied,
        RegistrationState::Pending | RegistrationState::Confirming(_) if now >= found.expires_at => {
            Polled::Expired
        }
        RegistrationState::Pending => Polled::Pending,
        RegistrationState::Confirming(_) => Polled::Confirming,
    }))
}
