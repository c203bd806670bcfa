//! What happened, line by line, and how long things took.

use core::time::Duration;

use serde_json::{Value, json};

use crate::output::{self, Table};
use crate::settings::args::Output;

/// One line of the story.
#[derive(Debug)]
struct Line {
    what: &'static str,
    expected: String,
    got: String,
}

impl Line {
    fn as_expected(&self) -> bool {
        self.expected == self.got
    }
}

/// Durations of one kind of call.
#[derive(Debug)]
struct Latency {
    name: &'static str,
    p50: Duration,
    p99: Duration,
    samples: usize,
}

#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<Line>,
    latencies: Vec<Latency>,
    /// What happened once, and how long it took.
    times: Vec<(&'static str, Duration)>,
    /// Whether lines are printed as they come.
    live: bool,
}

impl Report {
    pub(crate) fn new(live: bool) -> Self {
        if live {
            output::line(
                "A token's life from a human's approval to its end, on real processes, sockets and files:\n",
            );
        }
        Self { lines: Vec::new(), latencies: Vec::new(), times: Vec::new(), live }
    }

    /// Notes what was expected and what came.
    pub(crate) fn line(&mut self, what: &'static str, expected: impl Into<String>, got: impl Into<String>) {
        let line = Line { what, expected: expected.into(), got: got.into() };
        if self.live {
            let mark = if line.as_expected() { "ok" } else { "NO" };
            let wanted =
                if line.as_expected() { String::new() } else { format!("   expected: {}", line.expected) };
            output::line(&format!("  {mark}  {:<66}  {}{wanted}", line.what, line.got));
        }
        self.lines.push(line);
    }

    /// Notes how long calls took.
    pub(crate) fn latency(&mut self, name: &'static str, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        let at = |share: usize| samples.get(samples.len() * share / 100).copied().unwrap_or_default();
        self.latencies.push(Latency { name, p50: at(50), p99: at(99), samples: samples.len() });
    }

    /// Notes how long something took that happened once.
    pub(crate) fn time(&mut self, name: &'static str, took: Duration) {
        self.times.push((name, took));
    }

    pub(crate) fn all_as_expected(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(Line::as_expected)
    }

    /// Prints the end of the story, or all of it as JSON.
    pub(crate) fn finish(&self, output: Output) {
        if output.json {
            output::json(&self.to_json());
            return;
        }
        output::line("");
        let mut table = Table::new(&["measured here", "p50", "p99", "calls"]);
        for latency in &self.latencies {
            table.row([
                latency.name.to_owned(),
                microseconds(latency.p50),
                microseconds(latency.p99),
                latency.samples.to_string(),
            ]);
        }
        for (name, took) in &self.times {
            table.row([(*name).to_owned(), milliseconds(*took), String::new(), "1".to_owned()]);
        }
        table.print();
        let good = self.lines.iter().filter(|line| line.as_expected()).count();
        output::line(&format!("\n{good} of {} lines are as expected.", self.lines.len()));
    }

    fn to_json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({"what": line.what, "expected": line.expected, "got": line.got, "ok": line.as_expected()})
            })
            .collect();
        let latencies: Vec<Value> = self
            .latencies
            .iter()
            .map(|latency| {
                json!({
                    "name": latency.name, "p50_us": latency.p50.as_micros(), "p99_us": latency.p99.as_micros(),
                    "calls": latency.samples,
                })
            })
            .collect();
        let times: Vec<Value> =
            self.times.iter().map(|(name, took)| json!({"name": name, "us": took.as_micros()})).collect();
        json!({"ok": self.all_as_expected(), "lines": lines, "latencies": latencies, "times": times})
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn microseconds(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}
