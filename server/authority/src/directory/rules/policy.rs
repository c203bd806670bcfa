//! Which policy is in force. Its text is another's; here are its number, its digest and the epoch, which only rises.

use crate::directory::event::Happening;
use crate::directory::rows::{Human, PolicyVersion};
use crate::directory::tables::{Kept, Number, Table, Transaction};

pub(super) fn activate(
    transaction: &mut Transaction<'_>,
    digest: String,
    by: Human,
    now: u64,
) -> Kept<PolicyVersion> {
    let version = transaction.number(Number::PolicyVersion)? + 1;
    let epoch = transaction.number(Number::PolicyEpoch)? + 1;
    transaction.set_number(Number::PolicyVersion, version)?;
    transaction.set_number(Number::PolicyEpoch, epoch)?;
    let row = PolicyVersion { version, epoch, digest, by, at: now };
    transaction.put(Table::Policy, &version.to_be_bytes(), &row)?;
    transaction.emit(now, Happening::PolicyActivated { version, epoch })?;
    Ok(row)
}

pub(super) fn in_force(transaction: &Transaction<'_>) -> Kept<Option<PolicyVersion>> {
    let version = transaction.number(Number::PolicyVersion)?;
    transaction.get(Table::Policy, &version.to_be_bytes())
}
