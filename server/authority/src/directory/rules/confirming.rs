//! Between a human's yes in a browser and an agent: the yes has to come back to whoever asked for it. Who talks a human into a
//! yes for another machine's agent gains nothing by it.

use obol_secret::compare::ct_eq_32;

use super::{registering, waiting};
use crate::directory::rows::{Confirming, Human, Registration, RegistrationState};
use crate::directory::tables::{Kept, Table, Transaction};
use crate::directory::{Agent, Approval, MAX_WRONG_CODES};
use crate::id::RegistrationId;
use crate::refused::Refused;

pub(super) fn confirm(
    transaction: &mut Transaction<'_>,
    yes: Approval,
    code_hash: [u8; 32],
    now: u64,
) -> Kept<Result<Registration, Refused>> {
    let found = waiting::named(transaction, &yes.registration, now)?;
    let Some(mut registration) = found else { return Ok(Err(Refused::NoSuchCode)) };
    if let Err(refused) = registering::may_approve(transaction, &registration, &yes, now)? {
        return Ok(Err(refused));
    }
    // Nobody else finds it by its code any more.
    transaction.remove(Table::RegistrationCode, &registration.code_hash);
    registration.state = RegistrationState::Confirming(Confirming {
        by: yes.by,
        roles: yes.roles,
        secs: yes.secs,
        agent: yes.agent,
        code_hash,
        tries_left: MAX_WRONG_CODES,
    });
    put(transaction, &registration)?;
    Ok(Ok(registration))
}

fn put(transaction: &mut Transaction<'_>, registration: &Registration) -> Kept<()> {
    transaction.put(Table::Registration, registration.id.as_str().as_bytes(), registration)
}

pub(super) fn complete(
    transaction: &mut Transaction<'_>,
    id: &RegistrationId,
    (poll_hash, code_hash): (&[u8; 32], &[u8; 32]),
    reached: Option<Human>,
    now: u64,
) -> Kept<Result<Agent, Refused>> {
    let found = waiting::row(transaction, id)?;
    let theirs = found.filter(|found| ct_eq_32(&found.poll_hash, poll_hash) && now < found.expires_at);
    let Some(mut registration) = theirs else { return Ok(Err(Refused::NoSuchCode)) };
    let RegistrationState::Confirming(mut yes) = registration.state.clone() else {
        return Ok(Err(Refused::PendingApproval));
    };
    if ct_eq_32(&yes.code_hash, code_hash) {
        let approval = Approval {
            registration: id.clone(),
            agent: yes.agent,
            by: yes.by,
            roles: yes.roles,
            secs: yes.secs,
            flow: registration.flow.name(),
            reached,
        };
        return registering::make_agent(transaction, registration, &approval, now);
    }
    yes.tries_left = yes.tries_left.saturating_sub(1);
    let left = yes.tries_left;
    if left == 0 {
        waiting::leave(transaction, &registration)?;
        registration.state = RegistrationState::Denied;
    } else {
        registration.state = RegistrationState::Confirming(yes);
    }
    put(transaction, &registration)?;
    Ok(Err(Refused::WrongCode(left)))
}
