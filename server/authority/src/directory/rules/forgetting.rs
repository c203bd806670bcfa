//! What is over is forgotten, a little at a time, so that the file does not grow and no transaction takes long.

use super::sessions::{self, ENDED_KEPT_SECS};
use super::{at, number_behind, waiting};
use crate::directory::event::Event;
use crate::directory::rows::{Ending, Invitation, JoinCode, Registration, RegistrationState};
use crate::directory::tables::{Kept, Number, Table, Transaction};
use crate::directory::{ANSWER_KEPT_SECS, EVENT_KEPT_SECS, MAX_EVENTS};

/// Why a session ended whose time is over.
const EXPIRED: &str = "expired";
/// Why a session ended that another took the place of.
const RENEWED: &str = "renewed";
/// The most rows of one kind that one call forgets.
const MAX_AT_ONCE: usize = 500;
/// How long a registration that is over can be asked about, in seconds.
const REGISTRATION_KEPT_SECS: u64 = 3_600;

/// Whether there is more to forget at once.
pub(super) fn forget(transaction: &mut Transaction<'_>, now: u64) -> Kept<bool> {
    let most = [
        handshakes(transaction, now)?,
        registrations(transaction, now)?,
        sessions(transaction, now)?,
        events(transaction, now)?,
        sets(transaction, now)?,
        super::calls::forget(transaction, now)?,
    ];
    codes(transaction, now)?;
    Ok(most.into_iter().any(|forgotten| forgotten >= MAX_AT_ONCE))
}

/// Keys of an index by time that are due.
fn due(transaction: &Transaction<'_>, table: Table, now: u64) -> Kept<Vec<Vec<u8>>> {
    let keys = transaction.keys(table, &[], None, MAX_AT_ONCE)?;
    Ok(keys.into_iter().take_while(|key| key.as_slice() < &now.saturating_add(1).to_be_bytes()[..]).collect())
}

fn handshakes(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let Some(then) = now.checked_sub(ANSWER_KEPT_SECS) else { return Ok(0) };
    let due = due(transaction, Table::HandshakeTime, then)?;
    for key in &due {
        transaction.remove(Table::HandshakeTime, key);
        transaction.remove(Table::Handshake, key.get(8..).unwrap_or_default());
    }
    let kept = transaction.number(Number::Handshakes)?;
    if !due.is_empty() {
        transaction.set_number(Number::Handshakes, kept.saturating_sub(due.len() as u64))?;
    }
    Ok(due.len())
}

/// A registration is due twice: when nobody may approve it any more, and when nobody asks about it any more.
fn registrations(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let due = due(transaction, Table::RegistrationEnd, now)?;
    for key in &due {
        transaction.remove(Table::RegistrationEnd, key);
        let id = key.get(8..).unwrap_or_default();
        let found: Option<Registration> = transaction.get(Table::Registration, id)?;
        let Some(registration) = found else { continue };
        if matches!(registration.state, RegistrationState::Pending | RegistrationState::Confirming(_)) {
            waiting::leave(transaction, &registration)?;
        }
        let end = registration.expires_at.saturating_add(REGISTRATION_KEPT_SECS);
        match now >= end {
            true => transaction.remove(Table::Registration, id),
            false => transaction.mark(Table::RegistrationEnd, &at(end, id)),
        }
    }
    Ok(due.len())
}

/// A session is due twice: when its time is over, and when nobody looks at it any more.
fn sessions(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let due = due(transaction, Table::SessionEnd, now)?;
    for key in &due {
        transaction.remove(Table::SessionEnd, key);
        let mut session = sessions::row(transaction, number_behind(key)?)?;
        let number = session.id.as_u64().to_be_bytes();
        if let Some(ended) = &session.ended {
            // It may have been due for another reason before it was ended.
            if now >= ended.at.saturating_add(ENDED_KEPT_SECS) {
                transaction.remove(Table::Session, &number);
            }
            continue;
        }
        if now < session.expires_at {
            // Another took its place, and no token of it is good any more.
            sessions::end(transaction, session, RENEWED, now)?;
            continue;
        }
        // Resource servers know when it ends: there is no event.
        sessions::drop_keys(transaction, &session);
        session.ended = Some(Ending { at: session.expires_at, reason: EXPIRED.to_owned() });
        transaction.put(Table::Session, &number, &session)?;
        transaction.mark(Table::SessionEnd, &at(now.saturating_add(ENDED_KEPT_SECS), &number));
    }
    Ok(due.len())
}

fn events(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let (last, forgotten) =
        (transaction.number(Number::LastEvent)?, transaction.number(Number::ForgottenEvents)?);
    let oldest = transaction.list::<Event>(Table::Event, None, MAX_AT_ONCE)?;
    let is_over = |event: &Event| {
        event.at.saturating_add(EVENT_KEPT_SECS) <= now || last.saturating_sub(event.seq) >= MAX_EVENTS
    };
    let over = oldest.into_iter().take_while(is_over);
    let (mut count, mut newest) = (0, forgotten);
    for event in over {
        transaction.remove(Table::Event, &event.seq.to_be_bytes());
        (count, newest) = (count + 1, event.seq);
    }
    if newest > forgotten {
        transaction.set_number(Number::ForgottenEvents, newest)?;
    }
    Ok(count)
}

/// Security events that nobody could send again with effect.
fn sets(transaction: &mut Transaction<'_>, now: u64) -> Kept<usize> {
    let due = due(transaction, Table::SetTime, now)?;
    for key in &due {
        super::heard::forget(transaction, key);
    }
    if !due.is_empty() {
        let kept = transaction.number(Number::Sets)?;
        transaction.set_number(Number::Sets, kept.saturating_sub(due.len() as u64))?;
    }
    Ok(due.len())
}

/// Invitations, join codes and blocked sources that are over. There are few.
fn codes(transaction: &mut Transaction<'_>, now: u64) -> Kept<()> {
    for (key, row) in transaction.scan(Table::Invitation, &[], None, MAX_AT_ONCE)? {
        let invitation: Invitation = super::read_row(Table::Invitation, &row)?;
        if now >= invitation.expires_at {
            transaction.remove(Table::Invitation, &key);
        }
    }
    for (key, row) in transaction.scan(Table::JoinCode, &[], None, MAX_AT_ONCE)? {
        let code: JoinCode = super::read_row(Table::JoinCode, &row)?;
        if now >= code.expires_at {
            transaction.remove(Table::JoinCode, &key);
        }
    }
    for (key, row) in transaction.scan(Table::BlockedSource, &[], None, MAX_AT_ONCE)? {
        let until: u64 = super::read_row(Table::BlockedSource, &row)?;
        if now >= until {
            transaction.remove(Table::BlockedSource, &key);
        }
    }
    Ok(())
}
