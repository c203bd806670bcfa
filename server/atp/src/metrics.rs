//! Counters in the text format of Prometheus. No label holds an agent's, a person's or a token's name.

use core::time::Duration;

use obol_atp::AtpErrorCode;
use obol_probe::metrics::{Audit, Counter, Histogram, Kind, Page};

/// The routes, as they are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Issue,
    Verify,
    Revoke,
    MasterIssue,
    MasterRotate,
    MasterRevoke,
    MasterList,
    Require,
    Other,
}

const ROUTES: [(Route, &str); 9] = [
    (Route::Issue, "issue"),
    (Route::Verify, "verify"),
    (Route::Revoke, "revoke"),
    (Route::MasterIssue, "master_issue"),
    (Route::MasterRotate, "master_rotate"),
    (Route::MasterRevoke, "master_revoke"),
    (Route::MasterList, "master_list"),
    (Route::Require, "require"),
    (Route::Other, "other"),
];

/// `ok`, and every error.
const CODES: usize = AtpErrorCode::ALL.len() + 1;

/// Every reason for which nothing may be issued.
pub(crate) const NOT_READY: [&str; 3] = ["token_store", "audit_log", "spent_set"];

/// What is not counted here but looked up when somebody asks.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) tokens_live: usize,
    pub(crate) replay_marks: Option<usize>,
    /// Why nothing is issued, if nothing is.
    pub(crate) not_ready: Option<&'static str>,
    pub(crate) audit: Option<Audit>,
}

/// How many requests there were, how they ended, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[Counter; CODES]; ROUTES.len()],
    times: Histogram,
    /// Requests that an agent's previous secret signed.
    pub(crate) previous_secret: Counter,
    /// Times that an agent signed from two networks within ten minutes.
    pub(crate) two_networks: Counter,
}

impl Metrics {
    pub(crate) fn count(&self, route: Route, refused: Option<AtpErrorCode>, took: Duration) {
        let row = ROUTES.iter().position(|(known, _)| *known == route);
        let column = refused
            .and_then(|code| AtpErrorCode::ALL.iter().position(|known| *known == code))
            .map_or(0, |at| at + 1);
        if let Some(counter) = row.and_then(|row| self.requests.get(row)).and_then(|row| row.get(column)) {
            counter.increment();
        }
        self.times.record(took, 1);
    }

    pub(crate) fn render(&self, seen: &Seen) -> String {
        let mut page = Page::new();
        let help = "Requests by route and outcome.";
        let mut requests = page.series("obol_atp_requests_total", Kind::Counter, help);
        for ((_, route), row) in ROUTES.iter().zip(&self.requests) {
            let codes = core::iter::once("ok").chain(AtpErrorCode::ALL.iter().map(|code| code.as_str()));
            for (code, counter) in codes.zip(row).filter(|(_, counter)| counter.get() > 0) {
                requests.value(&[("route", route), ("code", code)], counter.get());
            }
        }
        page.histogram("obol_atp_request_seconds", "Time to answer a request.", &self.times);
        let help = "Requests signed with an agent's previous secret.";
        page.number("obol_atp_previous_secret_total", Kind::Counter, help, self.previous_secret.get());
        let help = "Times that an agent signed from two networks within ten minutes.";
        page.number("obol_atp_two_networks_total", Kind::Counter, help, self.two_networks.get());
        let help = "Tokens of masters that have not ended.";
        page.number("obol_atp_tokens_live", Kind::Gauge, help, seen.tokens_live as u64);
        if let Some(marks) = seen.replay_marks {
            page.number("obol_atp_replay_marks", Kind::Gauge, "Requests that are remembered.", marks as u64);
        }
        page.readiness("Whether tokens can be issued.", &NOT_READY, seen.not_ready);
        page.audit(seen.audit);
        page.into_text()
    }
}
