//! What is counted while the daemon runs, and the text in which Prometheus reads it.
//!
//! Labels are error codes and tools' names, of which there are few; never a token, a session or a person. Beyond
//! [`MAX_TOOLS`] tools the rest is one line, so that nobody's grants blow up somebody's monitoring.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;

use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_probe::metrics::{self, Audit};
use obol_queue::ToolStatus;

use crate::http::NotReady;

/// The most tools that have lines of their own.
const MAX_TOOLS: usize = 256;
/// Stands for the tools that have none.
const OTHER_TOOLS: &str = "(other)";

/// Upper bounds of the histograms' buckets, in microseconds.
const BOUNDS: [u64; 12] = [10, 25, 50, 100, 250, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000, 30_000_000];

/// Refusals that have a counter.
const CODES: [ErrorCode; 8] = [
    ErrorCode::QueueEmpty { renewal_pending: false, retry_after_ms: 0 },
    ErrorCode::PolicyDeny,
    ErrorCode::NoSession,
    ErrorCode::SessionFlushed,
    ErrorCode::Overloaded { retry_after_ms: 0 },
    ErrorCode::Unavailable,
    ErrorCode::MethodNotAllowed,
    ErrorCode::InvalidArgument,
];

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// Notes that `times` things took this long each.
    pub(crate) fn record(&self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound);
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get(bucket)) {
            bucket.fetch_add(times, Ordering::Relaxed);
        }
        self.count.fetch_add(times, Ordering::Relaxed);
        self.micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        heading(out, name, help, "histogram");
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            line(out, format_args!("{name}_bucket{{le=\"{}\"}} {sum}", seconds(*bound)));
        }
        let count = self.count.load(Ordering::Relaxed).max(sum);
        line(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        line(out, format_args!("{name}_sum {}", seconds(self.micros.load(Ordering::Relaxed))));
        line(out, format_args!("{name}_count {count}"));
    }
}

/// What is not counted here but looked up when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Why the daemon is not ready, if it is not.
    pub(crate) not_ready: Option<&'static str>,
    /// How the audit log is, where there is one.
    pub(crate) audit: Option<Audit>,
    pub(crate) connections: usize,
    /// When the last session ends or ended, in Unix seconds, if there was one.
    pub(crate) last_end: Option<u64>,
    pub(crate) log_lines_dropped: Option<u64>,
    pub(crate) tools: &'a [ToolStatus],
}

/// Everything that is counted here; the queue counts its tokens itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    answered: AtomicU64,
    refused: [AtomicU64; CODES.len()],
    flushes: AtomicU64,
    /// From when a request was read until its answer was written.
    pub(crate) answers: Histogram,
    /// From when a request that had to wait was read until there was an answer.
    pub(crate) waits: Histogram,
}

impl Counters {
    /// Notes how a request ended.
    pub(crate) fn ended<T>(&self, outcome: &Result<T, Refusal>) {
        let counter = match outcome {
            Ok(_) => Some(&self.answered),
            Err(refusal) => {
                let code = CODES.iter().position(|code| code.name() == refusal.code().name());
                code.and_then(|code| self.refused.get(code))
            }
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    /// The text for Prometheus.
    pub(crate) fn render(&self, seen: &Seen<'_>) -> String {
        let mut out = String::with_capacity(8 << 10);
        let out_ref = &mut out;
        metrics::build_info(out_ref);
        metrics::readiness(out_ref, "Whether tokens can be handed out.", &NotReady::NAMES, seen.not_ready);
        metrics::audit(out_ref, seen.audit);
        let connections = u64::try_from(seen.connections).unwrap_or(u64::MAX);
        gauge(out_ref, "obol_connections", "Connections on the agent's socket.", connections);
        if let Some(end) = seen.last_end {
            let help = "When the last session ends or ended, in Unix seconds.";
            gauge(out_ref, "obol_session_expires_timestamp_seconds", help, end);
        }
        if let Some(lines) = seen.log_lines_dropped {
            const NAME: &str = "obol_log_lines_dropped_total";
            heading(
                out_ref,
                NAME,
                "Lines of the log that were given up because nobody read them in time.",
                "counter",
            );
            line(out_ref, format_args!("{NAME} {lines}"));
        }
        self.render_outcomes(out_ref);
        heading(out_ref, "obol_flushes_total", "Flushes that were carried out.", "counter");
        line(out_ref, format_args!("obol_flushes_total {}", self.flushes.load(Ordering::Relaxed)));
        self.answers.render(out_ref, "obol_answer_seconds", "From reading a request to writing its answer.");
        self.waits.render(out_ref, "obol_wait_seconds", "How long requests waited for a token.");
        render_tools(out_ref, seen.tools);
        out
    }

    fn render_outcomes(&self, out: &mut String) {
        heading(out, "obol_requests_total", "Requests on the agent's socket by outcome.", "counter");
        line(
            out,
            format_args!("obol_requests_total{{outcome=\"OK\"}} {}", self.answered.load(Ordering::Relaxed)),
        );
        for (code, count) in CODES.iter().zip(&self.refused) {
            let count = count.load(Ordering::Relaxed);
            line(out, format_args!("obol_requests_total{{outcome=\"{}\"}} {count}", code.name()));
        }
    }
}

/// One number about a tool: its name, what it means, of which kind, and where it is.
type Column = (&'static str, &'static str, &'static str, fn(&ToolStatus) -> u64);

const COLUMNS: [Column; 9] = [
    ("obol_tokens_ready", "Tokens in memory, ready to be handed out.", "gauge", |tool| tool.ready),
    ("obol_tokens_stored", "Tokens on disk.", "gauge", |tool| tool.stored),
    ("obol_renewal_pending", "Whether tokens are being minted or fetched.", "gauge", |tool| {
        u64::from(tool.renewal_pending)
    }),
    ("obol_denied", "Whether policy denies the tool.", "gauge", |tool| u64::from(tool.denied)),
    ("obol_tokens_minted_total", "Tokens minted since the start.", "counter", |tool| tool.minted),
    ("obol_mint_failures_total", "Attempts to mint that failed since the start.", "counter", |tool| {
        tool.mint_failures
    }),
    ("obol_tokens_handed_out_total", "Tokens handed out since the start.", "counter", |tool| tool.handed_out),
    ("obol_tokens_expired_total", "Tokens that expired unused since the start.", "counter", |tool| {
        tool.expired
    }),
    (
        "obol_tokens_discarded_total",
        "Tokens given up since the start, by a flush for instance.",
        "counter",
        |tool| tool.discarded,
    ),
];

/// A tool's numbers, over all sessions and audiences.
fn render_tools(out: &mut String, tools: &[ToolStatus]) {
    let mut sums: BTreeMap<&str, [u64; COLUMNS.len()]> = BTreeMap::new();
    for tool in tools {
        let known = sums.contains_key(tool.tool.as_str()) || sums.len() < MAX_TOOLS;
        let row = sums.entry(if known { &tool.tool } else { OTHER_TOOLS }).or_default();
        for (sum, (.., number)) in row.iter_mut().zip(&COLUMNS) {
            *sum += number(tool);
        }
    }
    for (column, (name, help, kind, _)) in COLUMNS.iter().enumerate() {
        heading(out, name, help, kind);
        for (tool, row) in &sums {
            let number = row.get(column).copied().unwrap_or_default();
            line(out, format_args!("{name}{{tool=\"{}\"}} {number}", Label(tool)));
        }
    }
}

/// A label's value; tools' names may hold quotes and backslashes.
struct Label<'a>(&'a str);

impl core::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '"' | '\\' => write!(f, "\\{letter}"),
            '\n' => f.write_str("\\n"),
            _ => f.write_char(letter),
        })
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    heading(out, name, help, "gauge");
    line(out, format_args!("{name} {value}"));
}

fn heading(out: &mut String, name: &str, help: &str, kind: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: core::fmt::Arguments<'_>) {
    let _infallible = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_queue::SessionId;

    fn tool(name: &str, session: u64, ready: u64) -> ToolStatus {
        ToolStatus {
            session_id: SessionId::from_u64(session),
            tool: name.to_owned(),
            audience: "https://secret.example".to_owned(),
            ready,
            stored: 0,
            minted: 0,
            mint_failures: 0,
            handed_out: 0,
            expired: 0,
            discarded: 0,
            renewal_pending: false,
            ttl: 0,
            retry_after: None,
            denied: false,
        }
    }

    fn seen(tools: &[ToolStatus]) -> Seen<'_> {
        Seen { not_ready: None, audit: None, connections: 0, last_end: None, log_lines_dropped: None, tools }
    }

    #[test]
    fn a_tool_is_one_line_over_all_sessions_and_names_nobody_else() {
        let tools = [tool("a\"b", 77, 2), tool("a\"b", 78, 3)];
        let seen = Seen { connections: 4, last_end: Some(9), ..seen(&tools) };
        let text = Counters::default().render(&seen);
        assert!(text.contains("obol_tokens_ready{tool=\"a\\\"b\"} 5\n"), "{text}");
        assert!(!text.contains("77") && !text.contains("secret.example"), "{text}");
        assert!(text.contains("obol_connections 4\n") && text.contains("obol_ready 1\n"));
        assert!(text.contains("\nobol_session_expires_timestamp_seconds 9\n"));
    }

    #[test]
    fn labels_are_bounded() {
        let tools: Vec<_> = (0..1000).map(|number| tool(&format!("t{number}"), 1, 1)).collect();
        let text = Counters::default().render(&seen(&tools));
        assert_eq!(text.matches("obol_tokens_ready{").count(), MAX_TOOLS + 1);
        assert!(text.contains("obol_tokens_ready{tool=\"(other)\"} 744\n"));
    }

    #[test]
    fn buckets_add_up_and_bounds_are_seconds() {
        let counters = Counters::default();
        counters.answers.record(Duration::from_micros(10), 3);
        counters.answers.record(Duration::from_micros(11), 1);
        counters.answers.record(Duration::from_secs(100), 1);
        counters.ended::<()>(&Err(Refusal::overloaded(Duration::from_secs(1))));
        let text = counters.render(&seen(&[]));
        for expected in [
            "obol_answer_seconds_bucket{le=\"0.00001\"} 3\n",
            "obol_answer_seconds_bucket{le=\"0.000025\"} 4\n",
            "obol_answer_seconds_bucket{le=\"30\"} 4\n",
            "obol_answer_seconds_bucket{le=\"+Inf\"} 5\n",
            "obol_answer_seconds_count 5\n",
            "obol_answer_seconds_sum 100.000041\n",
            "obol_requests_total{outcome=\"OVERLOADED\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected}{text}");
        }
    }
}
