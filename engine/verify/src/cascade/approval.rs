//! Step 13, trust level 3: the human's yes that a token claims is one that the Authentication Service told of.
//!
//! r41 lets whoever mints assert it. Here a token of that level is accepted only for an approval in the table
//! ([`crate::Approvals`]), whose digest, time and arguments are the token's and the request's; and each approval once, in the
//! same step as the token is spent.

use subtle::ConstantTimeEq as _;

use super::check_fence;
use super::evaluation::Subject;
use super::possession::arguments_hash;
use crate::approvals::KnownApproval;
use crate::denial::{Code, Denial, FailedCheck};
use crate::parts::Parts;
use crate::request::Arguments;
use crate::spent::Mark;

/// What the mark of an approval is made with.
const LABEL: &[u8] = b"obol-approval-v1";

/// An approval that a token stands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandsOn {
    transaction: [u8; 16],
    approval: KnownApproval,
}

impl StandsOn {
    /// What is spent with the token. The same for every token of the approval.
    pub(crate) fn mark(&self) -> Mark {
        Mark::labelled(LABEL, &self.approval.digest, self.approval.expires_at)
    }

    /// Time may have passed, and the service may have ended it.
    pub(crate) fn check_still_holds(&self, parts: &Parts) -> Result<(), Denial> {
        let known = parts.approvals.as_ref().and_then(|table| table.find(&self.transaction));
        if known != Some(self.approval) {
            return Err(unknown());
        }
        check_time(parts, &self.approval)
    }

    /// What was approved before marks were lost may have been used.
    pub(crate) fn check_fence(&self, parts: &Parts) -> Result<(), Denial> {
        check_fence(parts, self.approval.confirmed_at)
    }
}

fn unknown() -> Denial {
    let code = Code::ApprovalDigestMismatch;
    let detail = "the Authentication Service told of no such approval";
    Denial::new(code, FailedCheck::CibaDigestValidation, detail)
}

fn check_time(parts: &Parts, approval: &KnownApproval) -> Result<(), Denial> {
    if parts.clock.now() <= approval.expires_at.saturating_add(parts.limits.clock_skew) {
        return Ok(());
    }
    let code = Code::CibaApprovalExpired;
    Err(Denial::new(code, FailedCheck::CibaValidation, "the time after the human's yes is over"))
}

/// The approval that the token stands on; none where it needs none: below trust level 3, and at a server that follows no
/// service, in sessions that say nothing of approvals.
pub(super) fn check(subject: &Subject<'_>) -> Result<Option<StandsOn>, Denial> {
    let (parts, scope) = (subject.parts, subject.scope);
    if scope.trust_level < 3 {
        return Ok(None);
    }
    let Some(table) = &parts.approvals else {
        let asks = subject.session.grants().is_some_and(|grants| grants.asks_for_approval(&scope.tool));
        return if asks { Err(unknown()) } else { Ok(None) };
    };
    let transaction = scope.txn_id.ok_or_else(unknown)?;
    let approval = table.find(&transaction).ok_or_else(unknown)?;
    let is_it = scope.approval_digest.is_some_and(|digest| bool::from(digest.ct_eq(&approval.digest)));
    if !is_it || scope.human_confirmed_at != approval.confirmed_at {
        return Err(unknown());
    }
    check_time(parts, &approval)?;
    check_fence(parts, approval.confirmed_at)?;
    check_arguments(subject, &approval)?;
    Ok(Some(StandsOn { transaction, approval }))
}

/// Where the human saw the arguments, the call has these and no others.
fn check_arguments(subject: &Subject<'_>, approval: &KnownApproval) -> Result<(), Denial> {
    let Some(approved) = approval.arguments else { return Ok(()) };
    let arguments = match subject.arguments {
        Arguments::Plain(arguments) | Arguments::Opened(arguments) if !subject.rounded => {
            arguments_hash(arguments)
        }
        _ => None,
    };
    if arguments.is_some_and(|arguments| bool::from(arguments.ct_eq(&approved))) {
        return Ok(());
    }
    let code = Code::ApprovalDigestMismatch;
    let detail = "the call's arguments are not those that a human saw, or this server cannot see them";
    Err(Denial::new(code, FailedCheck::CibaDigestValidation, detail))
}
