//! What is counted while the daemon runs, and the text in which Prometheus reads it.
//!
//! Labels are error codes and tools' names, of which there are few; never a token, a session or a person. Beyond
//! [`MAX_TOOLS`] tools the rest is one line, so that nobody's grants blow up somebody's monitoring.

use std::collections::BTreeMap;

use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_probe::metrics::{Audit, Counter, Histogram, Kind, Page};
use obol_queue::ToolStatus;

/// The most tools that have lines of their own.
const MAX_TOOLS: usize = 256;
/// Stands for the tools that have none.
const OTHER_TOOLS: &str = "(other)";

/// Every reason for which no token may be handed out, as metrics name it.
pub(crate) const NOT_READY: [&str; 9] = [
    "stopping",
    "store",
    "audit_log",
    "socket",
    "no_session",
    "session_ended",
    "session_flushed",
    "sessions_held",
    "lease_over",
];

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
    answered: Counter,
    refused: [Counter; CODES.len()],
    flushes: Counter,
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
            counter.increment();
        }
    }

    pub(crate) fn flushed(&self) {
        self.flushes.increment();
    }

    /// The text for Prometheus.
    pub(crate) fn render(&self, seen: &Seen<'_>) -> String {
        let mut page = Page::new();
        page.readiness("Whether tokens can be handed out.", &NOT_READY, seen.not_ready);
        page.audit(seen.audit);
        let connections = u64::try_from(seen.connections).unwrap_or(u64::MAX);
        page.number("obol_connections", Kind::Gauge, "Connections on the agent's socket.", connections);
        if let Some(end) = seen.last_end {
            let help = "When the last session ends or ended, in Unix seconds.";
            page.number("obol_session_expires_timestamp_seconds", Kind::Gauge, help, end);
        }
        page.log_lines_dropped(seen.log_lines_dropped);
        let help = "Requests on the agent's socket by outcome.";
        let mut outcomes = page.series("obol_requests_total", Kind::Counter, help);
        outcomes.value(&[("outcome", "OK")], self.answered.get());
        for (code, counter) in CODES.iter().zip(&self.refused) {
            outcomes.value(&[("outcome", code.name())], counter.get());
        }
        let help = "Flushes that were carried out.";
        page.number("obol_flushes_total", Kind::Counter, help, self.flushes.get());
        page.histogram("obol_answer_seconds", "From reading a request to writing its answer.", &self.answers);
        page.histogram("obol_wait_seconds", "How long requests waited for a token.", &self.waits);
        render_tools(&mut page, seen.tools);
        page.into_text()
    }
}

/// One number about a tool: its name, of which kind it is, what it means, and where it is.
type Column = (&'static str, Kind, &'static str, fn(&ToolStatus) -> u64);

const COLUMNS: [Column; 9] = [
    ("obol_tokens_ready", Kind::Gauge, "Tokens in memory, ready to be handed out.", |tool| tool.ready),
    ("obol_tokens_stored", Kind::Gauge, "Tokens on disk.", |tool| tool.stored),
    ("obol_renewal_pending", Kind::Gauge, "Whether tokens are being minted or fetched.", |tool| {
        u64::from(tool.renewal_pending)
    }),
    ("obol_denied", Kind::Gauge, "Whether policy denies the tool.", |tool| u64::from(tool.denied)),
    ("obol_tokens_minted_total", Kind::Counter, "Tokens minted since the start.", |tool| tool.minted),
    ("obol_mint_failures_total", Kind::Counter, "Attempts to mint that failed since the start.", |tool| {
        tool.mint_failures
    }),
    ("obol_tokens_handed_out_total", Kind::Counter, "Tokens handed out since the start.", |tool| {
        tool.handed_out
    }),
    ("obol_tokens_expired_total", Kind::Counter, "Tokens that expired unused since the start.", |tool| {
        tool.expired
    }),
    (
        "obol_tokens_discarded_total",
        Kind::Counter,
        "Tokens given up since the start, by a flush for instance.",
        |tool| tool.discarded,
    ),
];

/// A tool's numbers, over all sessions and audiences.
fn render_tools(page: &mut Page, tools: &[ToolStatus]) {
    let mut sums: BTreeMap<&str, [u64; COLUMNS.len()]> = BTreeMap::new();
    for tool in tools {
        let known = sums.contains_key(tool.tool.as_str()) || sums.len() < MAX_TOOLS;
        let row = sums.entry(if known { &tool.tool } else { OTHER_TOOLS }).or_default();
        for (sum, (.., number)) in row.iter_mut().zip(&COLUMNS) {
            *sum += number(tool);
        }
    }
    for (column, (name, kind, help, _)) in COLUMNS.iter().enumerate() {
        let mut series = page.series(name, *kind, help);
        for (tool, row) in &sums {
            series.value(&[("tool", tool)], row.get(column).copied().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use obol_queue::SessionId;

    use super::*;

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
    fn what_ended_and_how_long_it_took_is_counted() {
        let counters = Counters::default();
        counters.answers.record(Duration::from_micros(10), 3);
        counters.waits.record(Duration::from_secs(100), 1);
        counters.ended::<()>(&Err(Refusal::overloaded(Duration::from_secs(1))));
        counters.ended(&Ok(()));
        counters.flushed();
        let text = counters.render(&seen(&[]));
        for expected in [
            "obol_answer_seconds_count 3\n",
            "obol_wait_seconds_sum 100\n",
            "obol_requests_total{outcome=\"OK\"} 1\n",
            "obol_requests_total{outcome=\"OVERLOADED\"} 1\n",
            "obol_requests_total{outcome=\"UNAVAILABLE\"} 0\n",
            "obol_flushes_total 1\n",
        ] {
            assert!(text.contains(expected), "{expected}{text}");
        }
    }
}
