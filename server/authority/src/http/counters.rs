//! What the service counts, for `/metrics`.

use core::fmt::Write as _;
use std::collections::BTreeMap;

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
    pub(super) fn text(&self, is_ready: bool) -> String {
        let mut text = String::from(
            "# HELP obol_authority_answers_total Answers to agents and resource servers, by code.\n\
             # TYPE obol_authority_answers_total counter\n",
        );
        for (code, count) in &*self.answers.lock() {
            let _into_memory = writeln!(text, "obol_authority_answers_total{{code=\"{code}\"}} {count}");
        }
        let _into_memory = write!(
            text,
            "# HELP obol_authority_ready Whether sessions can be opened and ended.\n\
             # TYPE obol_authority_ready gauge\nobol_authority_ready {}\n",
            u8::from(is_ready)
        );
        text
    }
}
