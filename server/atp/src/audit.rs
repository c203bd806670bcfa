//! What a provider writes into its audit log. Nothing is issued, rotated, revoked or spent without a place in it; refusals have
//! lines of their own as far as an allowance goes, and are counted beyond it.

use core::net::IpAddr;
use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event, Reservation};
use obol_probe::metrics::Audit;
use obol_probe::rate::{Bucket, Rate, Start};
use parking_lot::Mutex;

use crate::denied::Denied;

/// Lines about refusals a second, and how many at once: at worst 40 megabytes a day.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 100;

/// Writes lines, where there is a log.
#[derive(Debug)]
pub(crate) struct Auditor {
    log: Option<Arc<AuditLog>>,
    origin: Box<str>,
    refusals: Mutex<Refusals>,
    started: Start,
}

/// The allowance for lines about refusals, and how many refusals had none since the last line.
#[derive(Debug, Default)]
struct Refusals {
    allowance: Bucket,
    uncounted: u64,
}

/// What is known about a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) address: Option<IpAddr>,
    pub(crate) agent: Option<Box<str>>,
    /// How it was proven who asks: `own secret`, `shared secret`, `master`, `token`.
    pub(crate) proof: Option<&'static str>,
    pub(crate) scopes: Option<Box<str>>,
    pub(crate) purpose: Option<Box<str>>,
    pub(crate) jti: Option<Box<str>>,
    pub(crate) expires_at: Option<u64>,
}

impl About {
    fn entry(&self, event: Event, decision: Decision, audience: &str) -> Entry {
        Entry {
            decision: Some(decision),
            client: self.address.map(|address| address.to_string().into()),
            agent: self.agent.clone(),
            audience: Some(audience.into()),
            token_id: self.jti.clone(),
            expires_at: self.expires_at,
            check: self.proof,
            scope: self.scopes.clone(),
            reason: self.purpose.as_deref().map(printable),
            ..Entry::new(event)
        }
    }
}

/// Escapes everything beyond printable ASCII.
fn printable(text: &str) -> Box<str> {
    text.chars()
        .flat_map(|character| {
            let plain = matches!(character, ' '..='~');
            let escaped = (!plain).then(|| character.escape_unicode());
            plain.then_some(character).into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

impl Auditor {
    pub(crate) fn new(log: Option<Arc<AuditLog>>, origin: &str) -> Self {
        Self { log, origin: origin.into(), refusals: Mutex::default(), started: Start::now() }
    }

    /// Keeps a place for a line about what is going to be done; without one it must not be.
    pub(crate) fn reserve(&self) -> Result<Reserved<'_>, Denied> {
        let Some(log) = &self.log else { return Ok(Reserved { auditor: self, place: None }) };
        match log.reserve() {
            Ok(place) => Ok(Reserved { auditor: self, place: Some(place) }),
            Err(suspended) => {
                tracing::error!(%suspended, "nothing is done unaudited");
                Err(Denied::unavailable())
            }
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.health().is_ok())
    }

    /// How the log is, where there is one.
    pub(crate) fn seen(&self) -> Option<Audit> {
        self.log.as_ref().map(|log| {
            let totals = log.totals();
            Audit { is_suspended: log.health().is_err(), refused: totals.refused, dropped: totals.dropped }
        })
    }

    /// Writes a refusal, or counts it.
    pub(crate) fn refused(&self, denied: &Denied, about: &About) {
        let Some(log) = &self.log else { return };
        let rate = Rate::new(REFUSALS_PER_SECOND).map(|rate| rate.with_burst(REFUSALS_AT_ONCE));
        let mut refusals = self.refusals.lock();
        let now = self.started.nanoseconds();
        if rate.is_some_and(|rate| refusals.allowance.take(now, rate).is_err()) {
            refusals.uncounted += 1;
            return;
        }
        let uncounted = core::mem::take(&mut refusals.uncounted);
        drop(refusals);
        if uncounted > 0 {
            let decision = Some(Decision::Deny);
            log.note(Entry { decision, count: Some(uncounted), ..Entry::new(Event::Denials) });
        }
        log.note(Entry {
            code: Some(denied.code.as_str()),
            ..about.entry(Event::Denial, Decision::Deny, &self.origin)
        });
    }
}

/// A place for one line.
#[must_use]
pub(crate) struct Reserved<'a> {
    auditor: &'a Auditor,
    place: Option<Reservation<'a>>,
}

impl Reserved<'_> {
    /// Writes what was done.
    pub(crate) fn done(self, event: Event, about: &About) {
        if let Some(place) = self.place {
            place.put(about.entry(event, Decision::Allow, &self.auditor.origin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_cannot_change_how_the_log_looks() {
        assert_eq!(&*printable("Plan 9 \"x\""), "Plan 9 \"x\"");
        assert_eq!(&*printable("é\u{a0}"), "\\u{e9}\\u{a0}");
    }
}
