//! What a gate writes into its audit log.
//!
//! An acceptance has a line of its own, always: there is at most one for each token that somebody with the session's key
//! made. A refusal costs nothing to bring about, and has one as far as the log's allowance goes. Tokens that were shown to
//! be genuine have an allowance apart, so that garbage does not hide what a real agent is refused.

use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event, Party, Reservation, Suspended};
use obol_probe::metrics::Audit;
use obol_token::SessionId;
use obol_verify::{Code, Denial, FailedCheck, Verified};

/// Writes lines.
#[derive(Debug)]
pub(crate) struct Auditor {
    log: Arc<AuditLog>,
}

/// What is known of a token that was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About<'a> {
    /// The session that the token claims.
    pub(crate) session: Option<SessionId>,
    /// The name that the token claims.
    pub(crate) jti: Option<[u8; 22]>,
    /// The tool that was to be called.
    pub(crate) tool: Option<&'a str>,
}

impl Auditor {
    pub(crate) fn new(log: Arc<AuditLog>) -> Self {
        Self { log }
    }

    pub(crate) fn health(&self) -> Result<(), Denial> {
        self.log.health().map_err(|suspended| refuse(&suspended))
    }

    /// How the log is.
    pub(crate) fn seen(&self) -> Audit {
        let totals = self.log.totals();
        Audit { is_suspended: self.log.health().is_err(), refused: totals.refused, dropped: totals.dropped }
    }

    /// A place for what is about to be spent; without one it must not be.
    pub(crate) fn begin(&self, token: &Verified) -> Result<Pending<'_>, Denial> {
        let place = self.log.reserve().map_err(|suspended| refuse(&suspended))?;
        let scope = token.scope();
        let entry = Entry {
            decision: Some(Decision::Allow),
            session: Some(token.session_id().as_u64()),
            agent: Some(scope.agent_instance_id.as_str().into()),
            tool: Some(scope.tool.as_str().into()),
            jti: Some(*token.jti().as_bytes()),
            ..Entry::new(Event::Spend)
        };
        Ok(Pending { auditor: self, held: Some((place, entry)) })
    }

    /// Writes a refusal, or counts it.
    pub(crate) fn refused(&self, denial: &Denial, about: &About<'_>) {
        // The log counts those itself.
        if denial.failed_check == FailedCheck::AuditLog {
            return;
        }
        let genuine = is_genuine(denial);
        let party = if genuine { Party::Known } else { Party::Stranger };
        self.log.refusal(party, denial.code.as_str(), || Entry {
            decision: Some(Decision::Deny),
            // A session that somebody merely claims is not blamed for what it did not do.
            session: about.session.filter(|_| genuine).map(SessionId::as_u64),
            tool: about.tool.map(Into::into),
            jti: about.jti,
            code: Some(denial.code.as_str()),
            check: Some(denial.failed_check.as_str()),
            ..Entry::new(Event::Denial)
        });
    }
}

fn refuse(suspended: &Suspended) -> Denial {
    Denial::new(Code::Unavailable, FailedCheck::AuditLog, suspended.to_string())
}

/// A token on its way to be spent. Where whoever asked has gone before there is an answer, nothing was accepted, and the
/// token may be burned all the same; that is a refusal.
#[must_use]
pub(crate) struct Pending<'a> {
    auditor: &'a Auditor,
    held: Option<(Reservation<'a>, Entry)>,
}

impl Pending<'_> {
    /// Writes what came of it.
    pub(crate) fn settle(mut self, refused: Option<&Denial>) {
        let Some((place, entry)) = self.held.take() else { return };
        match refused {
            None => place.put(entry),
            Some(denial) => {
                drop(place);
                self.auditor.refused(denial, &about(&entry));
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some((place, entry)) = self.held.take() {
            drop(place);
            let gone = "the caller has gone; the token may be burned";
            let denial = Denial::new(Code::Unavailable, FailedCheck::SpentSet, gone);
            self.auditor.refused(&denial, &about(&entry));
        }
    }
}

fn about(entry: &Entry) -> About<'_> {
    About { session: entry.session.map(SessionId::from_u64), jti: entry.jti, tool: entry.tool.as_deref() }
}

/// Whether who was refused had a token that only a holder of the session's key can make. Codes that are also answered
/// before that is known do not count.
fn is_genuine(denial: &Denial) -> bool {
    match denial.code {
        Code::MutualAuthMismatch
        | Code::VerifierSecretMismatch
        | Code::ScopeFieldMissing
        | Code::TokenReplayed
        | Code::EpochExpired
        | Code::PrivilegeSigInvalid
        | Code::InsufficientPrivilege
        | Code::OrgIdMismatch
        | Code::ChannelEncryptionRequired
        | Code::ApprovalDigestMismatch
        | Code::CibaApprovalExpired
        | Code::IntentIntegrityFailed
        | Code::IntentPayloadTooLarge
        | Code::PopRequired
        | Code::PopFailed => true,
        // The fence aside, which is a matter of time, the spent set is asked about opened tokens only.
        Code::Unavailable => denial.failed_check == FailedCheck::SpentSet,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_can_come_before_decryption_counts_as_unproven() {
        let check = FailedCheck::FramingCheck;
        let genuine = Code::ALL.iter().filter(|code| is_genuine(&Denial::new(**code, check, ""))).count();
        assert_eq!(genuine, 15);
        for code in [
            Code::TbacRequired,
            Code::MalformedToken,
            Code::SessionNotFound,
            Code::SessionExpired,
            Code::StaleTimestamp,
            Code::AudMismatch,
            Code::InvalidSignature,
            Code::DecryptionFailed,
            Code::MalformedRequest,
            Code::Unavailable,
        ] {
            assert!(!is_genuine(&Denial::new(code, check, "")), "{code}");
        }
    }
}
