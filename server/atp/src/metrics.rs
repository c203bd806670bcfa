//! Counters in the text format of Prometheus. No label holds an agent's, a person's or a token's name.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use obol_atp::ErrorCode;
use obol_probe::metrics::{self, Audit};

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
const CODES: usize = ErrorCode::ALL.len() + 1;

/// Upper bounds of the histogram's buckets, in microseconds, and as the seconds that are printed.
const BUCKETS: [(u64, &str); 10] = [
    (10, "0.00001"),
    (50, "0.00005"),
    (100, "0.0001"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (5_000, "0.005"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (2_500_000, "2.5"),
];

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
    requests: [[AtomicU64; CODES]; ROUTES.len()],
    buckets: [AtomicU64; BUCKETS.len()],
    slower: AtomicU64,
    microseconds: AtomicU64,
    /// Requests that an agent's previous secret signed.
    pub(crate) previous_secret: AtomicU64,
    /// Times that an agent signed from two networks within ten minutes.
    pub(crate) two_networks: AtomicU64,
}

impl Metrics {
    pub(crate) fn count(&self, route: Route, refused: Option<ErrorCode>, took: Duration) {
        let row = ROUTES.iter().position(|(known, _)| *known == route);
        let column = refused
            .and_then(|code| ErrorCode::ALL.iter().position(|known| *known == code))
            .map_or(0, |at| at + 1);
        if let Some(counter) = row.and_then(|row| self.requests.get(row)).and_then(|row| row.get(column)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket =
            BUCKETS.iter().position(|(bound, _)| micros <= *bound).and_then(|at| self.buckets.get(at));
        bucket.unwrap_or(&self.slower).fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn render(&self, seen: &Seen) -> String {
        let mut out = String::new();
        metrics::build_info(&mut out);
        head(&mut out, "obol_atp_requests_total", "counter", "Requests by route and outcome.");
        for ((_, route), row) in ROUTES.iter().zip(&self.requests) {
            let codes = core::iter::once("ok").chain(ErrorCode::ALL.iter().map(|code| code.as_str()));
            for (code, counter) in codes.zip(row) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    let _infallible =
                        writeln!(out, "obol_atp_requests_total{{route=\"{route}\",code=\"{code}\"}} {count}");
                }
            }
        }
        self.render_times(&mut out);
        let previous = self.previous_secret.load(Ordering::Relaxed);
        head(
            &mut out,
            "obol_atp_previous_secret_total",
            "counter",
            "Requests signed with an agent's previous secret.",
        );
        let _infallible = writeln!(out, "obol_atp_previous_secret_total {previous}");
        let two_networks = self.two_networks.load(Ordering::Relaxed);
        head(
            &mut out,
            "obol_atp_two_networks_total",
            "counter",
            "Times that an agent signed from two networks within ten minutes.",
        );
        let _infallible = writeln!(out, "obol_atp_two_networks_total {two_networks}");
        head(&mut out, "obol_atp_tokens_live", "gauge", "Tokens of masters that have not ended.");
        let _infallible = writeln!(out, "obol_atp_tokens_live {}", seen.tokens_live);
        if let Some(marks) = seen.replay_marks {
            head(&mut out, "obol_atp_replay_marks", "gauge", "Requests that are remembered.");
            let _infallible = writeln!(out, "obol_atp_replay_marks {marks}");
        }
        metrics::readiness(&mut out, "Whether tokens can be issued.", &NOT_READY, seen.not_ready);
        metrics::audit(&mut out, seen.audit);
        out
    }

    fn render_times(&self, out: &mut String) {
        const NAME: &str = "obol_atp_request_seconds";
        head(out, NAME, "histogram", "Time to answer a request.");
        let mut below = 0;
        for ((_, bound), counter) in BUCKETS.iter().zip(&self.buckets) {
            below += counter.load(Ordering::Relaxed);
            let _infallible = writeln!(out, "{NAME}_bucket{{le=\"{bound}\"}} {below}");
        }
        let all = below + self.slower.load(Ordering::Relaxed);
        let total = Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64();
        let _infallible =
            writeln!(out, "{NAME}_bucket{{le=\"+Inf\"}} {all}\n{NAME}_sum {total}\n{NAME}_count {all}");
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
