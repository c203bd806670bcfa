//! What a guard writes into its audit log, and how a flood of refusals is kept from filling the disk.
//!
//! An acceptance has a line of its own, always: there is at most one for each token that somebody with the session's key
//! made. A refusal costs nothing to bring about. So refusals have lines of their own only as far as an allowance goes;
//! beyond it they are counted, and every [`SUMMARY_EVERY`] one line for each code says how many there were. Tokens that were
//! shown to be genuine have an allowance apart, so that garbage does not hide what a real agent is refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use obol_audit::{AuditLog, Decision, Entry, Event, Place, Suspended};
use obol_token::SessionId;
use obol_verify::{Code, Denial, FailedCheck, Verified};

/// How often refusals without lines of their own are summed up.
pub(crate) const SUMMARY_EVERY: Duration = Duration::from_secs(10);
/// Lines at once about refusals of genuine tokens, and how long it takes until there may be one more. At worst half a
/// gigabyte a day.
const GENUINE: Allowance = Allowance::new(1_000, Duration::from_millis(100));
/// The same about all others, at worst 40 megabytes a day.
const UNPROVEN: Allowance = Allowance::new(100, Duration::from_secs(1));
/// The longest name that is written, in bytes. What is longer, and only then, was not made by Obol.
const MAX_NAME_BYTES: usize = 256;

/// Writes lines.
#[derive(Debug)]
pub(crate) struct Auditor {
    log: Arc<AuditLog>,
    refusals: Mutex<Refusals>,
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
        Self { log, refusals: Mutex::new(Refusals::new(Instant::now())) }
    }

    pub(crate) fn health(&self) -> Result<(), Denial> {
        self.log.health().map_err(|suspended| refuse(&suspended))
    }

    /// A place for what is about to be spent; without one it must not be.
    pub(crate) fn begin(&self, token: &Verified) -> Result<Pending<'_>, Denial> {
        let place = self.log.reserve().map_err(|suspended| refuse(&suspended))?;
        let scope = token.scope();
        let entry = Entry {
            decision: Some(Decision::Allow),
            session: Some(token.session_id().0),
            agent: Some(short(&scope.agent_instance_id)),
            tool: Some(short(&scope.tool)),
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
        let now = Instant::now();
        let writes = self.log.health().is_ok();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let has_line = writes && refusals.allow(genuine, now);
        if !has_line {
            refusals.count(denial.code);
        }
        let sums = if writes { refusals.due(now) } else { Vec::new() };
        drop(refusals);
        if has_line {
            self.log.note(Entry {
                decision: Some(Decision::Deny),
                // A session that somebody merely claims is not blamed for what it did not do.
                session: about.session.filter(|_| genuine).map(|session| session.0),
                tool: about.tool.map(short),
                jti: about.jti,
                code: Some(denial.code.as_str()),
                check: Some(denial.failed_check.as_str()),
                ..Entry::new(Event::Denial)
            });
        }
        self.sum_up(sums);
    }

    /// Writes how many refusals had no lines of their own, if it is time to.
    pub(crate) fn tick(&self) {
        if self.log.health().is_ok() {
            let now = Instant::now();
            let sums = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).due(now);
            self.sum_up(sums);
        }
    }

    fn sum_up(&self, sums: Vec<(Code, u64)>) {
        for (code, count) in sums {
            self.log.note(Entry {
                decision: Some(Decision::Deny),
                code: Some(code.as_str()),
                count: Some(count),
                ..Entry::new(Event::Denials)
            });
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        let sums = self.refusals.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.sum_up(sums);
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
    held: Option<(Place<'a>, Entry)>,
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
            let gone = "whoever asked has gone; the token may be burned";
            let denial = Denial::new(Code::Unavailable, FailedCheck::SpentSet, gone);
            self.auditor.refused(&denial, &about(&entry));
        }
    }
}

fn about(entry: &Entry) -> About<'_> {
    About { session: entry.session.map(SessionId), jti: entry.jti, tool: entry.tool.as_deref() }
}

/// As much of a name as is written.
fn short(name: &str) -> Box<str> {
    let end = (0..=MAX_NAME_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default().into()
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

/// How many lines there may be.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    each: Duration,
}

impl Allowance {
    const fn new(burst: u32, each: Duration) -> Self {
        Self { burst, each }
    }
}

/// What is left of an allowance.
#[derive(Debug)]
struct Budget {
    allowance: Allowance,
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, left: allowance.burst, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let Allowance { burst, each } = self.allowance;
        let earned = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= burst - self.left {
            (self.left, self.since) = (burst, now);
        } else {
            (self.left, self.since) = (self.left + earned, self.since + each * earned);
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

/// Refusals that have no lines of their own, and whether the next one may have one.
#[derive(Debug)]
struct Refusals {
    genuine: Budget,
    unproven: Budget,
    /// In the order of [`Code::ALL`].
    counts: Vec<u64>,
    any: bool,
    summed_up: Instant,
}

impl Refusals {
    fn new(now: Instant) -> Self {
        Self {
            genuine: Budget::new(GENUINE, now),
            unproven: Budget::new(UNPROVEN, now),
            counts: vec![0; Code::ALL.len()],
            any: false,
            summed_up: now,
        }
    }

    fn allow(&mut self, genuine: bool, now: Instant) -> bool {
        if genuine { self.genuine.take(now) } else { self.unproven.take(now) }
    }

    fn count(&mut self, code: Code) {
        let place = Code::ALL.iter().position(|known| *known == code);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            *count += 1;
            self.any = true;
        }
    }

    /// What is to be written by now.
    fn due(&mut self, now: Instant) -> Vec<(Code, u64)> {
        if !self.any || now.saturating_duration_since(self.summed_up) < SUMMARY_EVERY {
            return Vec::new();
        }
        self.summed_up = now;
        self.take()
    }

    fn take(&mut self) -> Vec<(Code, u64)> {
        self.any = false;
        let counts = self.counts.iter_mut().map(core::mem::take);
        Code::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_burst_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut budget = Budget::new(Allowance::new(3, Duration::from_secs(2)), start);
        let mut at = |ms: u64, tries: usize| {
            let now = start + Duration::from_millis(ms);
            (0..tries).filter(|_| budget.take(now)).count()
        };
        assert_eq!(at(0, 10), 3);
        assert_eq!(at(1_999, 10), 0);
        assert_eq!(at(2_000, 10), 1);
        // Fractions are not lost, however often somebody asks.
        assert_eq!((2_001..=12_000).map(|ms| at(ms, 1)).sum::<usize>(), 5);
        assert_eq!(at(1_000_000, 10), 3);
    }

    #[test]
    fn what_has_no_line_is_counted_by_code_and_told_once_an_interval() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        assert_eq!(refusals.due(start + SUMMARY_EVERY * 2), []);
        for _ in 0..5 {
            refusals.count(Code::InvalidSignature);
        }
        refusals.count(Code::TbacRequired);
        assert_eq!(refusals.due(start + SUMMARY_EVERY / 2), []);
        let told = refusals.due(start + SUMMARY_EVERY);
        assert_eq!(told, [(Code::TbacRequired, 1), (Code::InvalidSignature, 5)]);
        assert_eq!(refusals.due(start + SUMMARY_EVERY * 3), []);
    }

    #[test]
    fn garbage_does_not_use_up_the_lines_of_genuine_tokens() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        let lines = (0..100_000).filter(|_| refusals.allow(false, start)).count();
        assert_eq!(lines, UNPROVEN.burst as usize);
        assert!(refusals.allow(true, start));
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(&*short("search"), "search");
        let long = "é".repeat(MAX_NAME_BYTES);
        assert_eq!(short(&format!("a{long}")).len(), MAX_NAME_BYTES - 1);
    }

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
