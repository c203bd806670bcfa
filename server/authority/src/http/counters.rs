//! What the service counts, for `/metrics`.

use std::collections::BTreeMap;

use obol_probe::metrics::{Kind, Page};
use parking_lot::Mutex;

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
    pub(super) fn text(
        &self,
        is_ready: bool,
        (replicas, agents): (usize, usize),
        (stolen_tokens, notices_left_out): (u64, u64),
    ) -> String {
        let mut page = Page::new();
        let help = "Answers to agents and resource servers, by code.";
        let mut answers = page.series("obol_authority_answers_total", Kind::Counter, help);
        for (code, count) in &*self.answers.lock() {
            answers.value(&[("code", code)], count);
        }
        let help = "Whether sessions can be opened and ended.";
        page.number("obol_authority_ready", Kind::Gauge, help, u64::from(is_ready));
        let help = "How often agents said that somebody else spent a token of theirs.";
        page.number("obol_authority_stolen_tokens_total", Kind::Counter, help, stolen_tokens);
        let help = "Notices that nobody was told of because there were too many.";
        page.number("obol_authority_notices_left_out_total", Kind::Counter, help, notices_left_out);
        let help = "Streams that are open, by who follows.";
        let mut streams = page.series("obol_authority_streams", Kind::Gauge, help);
        streams.value(&[("of", "resource_servers")], replicas);
        streams.value(&[("of", "agents")], agents);
        page.into_text()
    }
}
