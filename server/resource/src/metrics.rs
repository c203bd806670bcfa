//! Counters in the text format of Prometheus. No label ever holds a token's name or a person's.

use obol_probe::metrics::{Audit, Counter, Histogram, Kind, Page};
use obol_verify::{Code, Denial, FailedCheck, Verifier};

/// Every reason for which tokens may not be accepted, as metrics name it.
const NOT_READY: [&str; 3] = ["session_table", "spent_set", "audit_log"];

/// What a refusal of everything is called among these reasons.
pub(crate) fn not_ready(denial: &Denial) -> &'static str {
    match denial.failed_check {
        FailedCheck::SessionTable => "session_table",
        FailedCheck::AuditLog => "audit_log",
        _ => "spent_set",
    }
}

/// What is not counted here but looked up when somebody asks.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Why nothing is accepted, if nothing is.
    pub(crate) not_ready: Option<&'static str>,
    /// How the audit log is, where there is one.
    pub(crate) audit: Option<Audit>,
    pub(crate) log_lines_dropped: Option<u64>,
}

/// What became of an identifier that is no token's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only the service spends such"))]
pub(crate) enum Identified {
    First,
    Again,
    NotRemembered,
    Unavailable,
}

impl Identified {
    const NAMES: [&str; 4] = ["first", "again", "not_remembered", "unavailable"];
}

/// How many tokens were accepted, how many refused for what, and how long that took.
#[derive(Debug)]
pub(crate) struct Metrics {
    accepted: Counter,
    refused: Vec<(&'static str, Counter)>,
    identifiers: [Counter; 4],
    /// Tokens that were looked at, accepted or not.
    pub(crate) times: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let refused = Code::ALL.iter().map(|code| (code.as_str(), Counter::default())).collect();
        Self {
            accepted: Counter::default(),
            refused,
            identifiers: Default::default(),
            times: Histogram::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn count(&self, refusal: Option<Code>) {
        let counter = match refusal {
            None => Some(&self.accepted),
            Some(code) => {
                self.refused.iter().find(|(name, _)| *name == code.as_str()).map(|(_, counter)| counter)
            }
        };
        if let Some(counter) = counter {
            counter.increment();
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn count_identifier(&self, outcome: Identified) {
        if let Some(counter) = self.identifiers.get(outcome as usize) {
            counter.increment();
        }
    }

    pub(crate) fn render(&self, verifier: &Verifier, seen: &Seen) -> String {
        let mut page = Page::new();
        let mut outcomes = page.series("obol_verifications_total", Kind::Counter, "Tokens by outcome.");
        let refused = self.refused.iter().map(|(code, counter)| (*code, counter));
        for (code, counter) in core::iter::once(("OK", &self.accepted)).chain(refused) {
            outcomes.value(&[("code", code)], counter.get());
        }
        let help = "Identifiers of others that were spent, by outcome.";
        let mut outcomes = page.series("obol_identifiers_total", Kind::Counter, help);
        for (outcome, counter) in Identified::NAMES.iter().zip(&self.identifiers) {
            outcomes.value(&[("outcome", outcome)], counter.get());
        }
        let help = "Time to verify and spend a token, refusals included.";
        page.histogram("obol_verification_seconds", help, &self.times);
        if let Some(marks) = verifier.spent_set().marks() {
            page.number("obol_spent_marks", Kind::Gauge, "Spent tokens that are remembered.", marks as u64);
        }
        page.readiness("Whether tokens can be spent.", &NOT_READY, seen.not_ready);
        page.audit(seen.audit);
        page.log_lines_dropped(seen.log_lines_dropped);
        page.into_text()
    }
}
