//! What the service counts, for `/metrics`.

use std::collections::BTreeMap;

use obol_probe::metrics::{Audit, Kind, Page};
use parking_lot::Mutex;

/// What `/readyz` says no for.
const NOT_READY: [&str; 2] = ["directory", "audit_log"];

/// What others know.
pub(super) struct Seen {
    pub(super) not_ready: Option<&'static str>,
    /// Of resource servers, and of agents.
    pub(super) streams: (usize, usize),
    pub(super) stolen_tokens: u64,
    pub(super) notices_left_out: u64,
    pub(super) audit: Option<Audit>,
}

/// Answers by their code. Codes are the program's own, so there are few.
#[derive(Debug, Default)]
pub(super) struct Counters {
    answers: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(super) fn answered(&self, code: &'static str) {
        *self.answers.lock().entry(code).or_default() += 1;
    }

    /// The text that Prometheus reads.
    pub(super) fn text(&self, seen: &Seen) -> String {
        let mut page = Page::new();
        let help = "Answers to agents and resource servers, by code.";
        let mut answers = page.series("obol_authority_answers_total", Kind::Counter, help);
        for (code, count) in &*self.answers.lock() {
            answers.value(&[("code", code)], count);
        }
        let help = "Whether sessions can be opened and ended.";
        page.number("obol_authority_ready", Kind::Gauge, help, u64::from(seen.not_ready.is_none()));
        page.readiness(help, &NOT_READY, seen.not_ready);
        page.audit(seen.audit);
        let help = "How often agents reported that someone else spent one of their tokens.";
        page.number("obol_authority_stolen_tokens_total", Kind::Counter, help, seen.stolen_tokens);
        let help = "Notices dropped because there were too many.";
        page.number("obol_authority_notices_left_out_total", Kind::Counter, help, seen.notices_left_out);
        let help = "Streams that are open, by who follows.";
        let (replicas, agents) = seen.streams;
        let mut streams = page.series("obol_authority_streams", Kind::Gauge, help);
        streams.value(&[("of", "resource_servers")], replicas);
        streams.value(&[("of", "agents")], agents);
        page.into_text()
    }
}
