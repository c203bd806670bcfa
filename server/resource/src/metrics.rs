//! Counters in the text format of Prometheus. No label ever holds a token's name or a person's.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use obol_probe::metrics::{self, Audit, Kind};
use obol_verify::{Code, Denial, FailedCheck, Verifier};

/// Upper bounds of the histogram's buckets, in nanoseconds, and as the seconds that are printed. From a refusal by the
/// header alone to the longest wait for the spent set.
const BUCKETS: [(u64, &str); 16] = [
    (5_000, "0.000005"),
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (100_000_000, "0.1"),
    (500_000_000, "0.5"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10"),
];

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

/// How many tokens were accepted, how many refused for what, and how long that took.
#[derive(Debug)]
pub(crate) struct Metrics {
    accepted: AtomicU64,
    refused: Vec<(&'static str, AtomicU64)>,
    /// How many fell into each bucket and no lower one.
    buckets: [AtomicU64; BUCKETS.len()],
    slower: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            refused: Code::ALL.iter().map(|code| (code.as_str(), AtomicU64::new(0))).collect(),
            buckets: core::array::from_fn(|_| AtomicU64::new(0)),
            slower: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
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
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A token that was looked at, accepted or not, took this long.
    pub(crate) fn time(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(bound, _)| nanoseconds <= *bound);
        let counter = bucket.and_then(|bucket| self.buckets.get(bucket)).unwrap_or(&self.slower);
        counter.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn render(&self, verifier: &Verifier, seen: &Seen) -> String {
        let mut out = String::new();
        metrics::build_info(&mut out);
        self.render_outcomes(&mut out);
        self.render_times(&mut out);
        if let Some(marks) = verifier.spent_set().marks() {
            let help = "Spent tokens that are remembered.";
            metrics::number(&mut out, "obol_spent_marks", Kind::Gauge, help, marks as u64);
        }
        metrics::readiness(&mut out, "Whether tokens can be spent.", &NOT_READY, seen.not_ready);
        metrics::audit(&mut out, seen.audit);
        if let Some(lines) = seen.log_lines_dropped {
            let help = "Lines of the log that were given up because nobody read them in time.";
            metrics::number(&mut out, "obol_log_lines_dropped_total", Kind::Counter, help, lines);
        }
        out
    }

    fn render_outcomes(&self, out: &mut String) {
        out.push_str(
            "# HELP obol_verifications_total Tokens by outcome.\n# TYPE obol_verifications_total counter\n",
        );
        let refused = self.refused.iter().map(|(code, counter)| (*code, counter));
        for (code, counter) in core::iter::once(("OK", &self.accepted)).chain(refused) {
            let count = counter.load(Ordering::Relaxed);
            let _infallible = writeln!(out, "obol_verifications_total{{code=\"{code}\"}} {count}");
        }
    }

    fn render_times(&self, out: &mut String) {
        const NAME: &str = "obol_verification_seconds";
        let _infallible = write!(
            out,
            "# HELP {NAME} Time to verify and spend a token, refusals included.\n# TYPE {NAME} histogram\n"
        );
        let mut below = 0;
        for ((_, bound), counter) in BUCKETS.iter().zip(&self.buckets) {
            below += counter.load(Ordering::Relaxed);
            let _infallible = writeln!(out, "{NAME}_bucket{{le=\"{bound}\"}} {below}");
        }
        let all = below + self.slower.load(Ordering::Relaxed);
        let total = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        let _infallible =
            write!(out, "{NAME}_bucket{{le=\"+Inf\"}} {all}\n{NAME}_sum {total}\n{NAME}_count {all}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_are_printed_as_they_are() {
        assert!(BUCKETS.is_sorted_by(|a, b| a.0 < b.0));
        for (nanoseconds, text) in BUCKETS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(nanoseconds));
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_everything() {
        let metrics = Metrics::default();
        for micros in [1, 10, 11, 20_000_000] {
            metrics.time(Duration::from_micros(micros));
        }
        let mut out = String::new();
        metrics.render_times(&mut out);
        for line in [
            "_bucket{le=\"0.000005\"} 1\n",
            "_bucket{le=\"0.00001\"} 2\n",
            "_bucket{le=\"0.000025\"} 3\n",
            "_bucket{le=\"10\"} 3\n",
            "_bucket{le=\"+Inf\"} 4\n",
            "_count 4\n",
            "_sum 20.000022\n",
        ] {
            assert!(out.contains(line), "{line} in {out}");
        }
    }
}
