//! Counters in the text format of Prometheus. No label ever holds a token's name or a person's.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use obol_verify::{Code, Verifier};

/// How many tokens were accepted, and how many refused for what.
#[derive(Debug)]
pub(crate) struct Metrics {
    accepted: AtomicU64,
    refused: BTreeMap<&'static str, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let refused = Code::ALL.iter().map(|code| (code.as_str(), AtomicU64::new(0))).collect();
        Self { accepted: AtomicU64::new(0), refused }
    }
}

impl Metrics {
    pub(crate) fn count(&self, refusal: Option<Code>) {
        let counter = match refusal {
            None => Some(&self.accepted),
            Some(code) => self.refused.get(code.as_str()),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn render(&self, verifier: &Verifier) -> String {
        let mut out = String::from(
            "# HELP obol_verifications_total Tokens by outcome.\n# TYPE obol_verifications_total counter\n",
        );
        let ok = ("OK", &self.accepted);
        for (code, counter) in std::iter::once(ok).chain(self.refused.iter().map(|(code, n)| (*code, n))) {
            let count = counter.load(Ordering::Relaxed);
            let _infallible = writeln!(out, "obol_verifications_total{{code=\"{code}\"}} {count}");
        }
        if let Some(marks) = verifier.spent_set().marks() {
            let _infallible = write!(
                out,
                "# HELP obol_spent_marks Spent tokens that are remembered.\n# TYPE obol_spent_marks gauge\n\
                 obol_spent_marks {marks}\n"
            );
        }
        let ready = u8::from(verifier.spent_set().health().is_ok());
        let _infallible = write!(
            out,
            "# HELP obol_ready Whether tokens can be spent.\n# TYPE obol_ready gauge\nobol_ready {ready}\n"
        );
        out
    }
}
