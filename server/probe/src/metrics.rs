//! Counters, histograms and the text in which Prometheus reads them, for every server.
//!
//! No label holds what somebody sent: labels are fixed names, or those of tools that were granted, so nobody's requests blow
//! up somebody's monitoring.
//!
//! Own code, because it is this little and on the path of every hand-out: a number is one atomic that its owner holds.
//! `prometheus-client` and `metrics` find it in a registry by its labels, and the former writes another text format, by which
//! every name and type that operators rely on would change.

use core::fmt::{self, Display, Write as _};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// The commit that this was built from, where the build says so in `OBOL_COMMIT`.
const COMMIT: Option<&str> = option_env!("OBOL_COMMIT");

/// Room for the text of a usual server, in bytes.
const USUAL_BYTES: usize = 8 << 10;

/// Upper bounds of every histogram's buckets, in nanoseconds: from a refusal by a token's header alone to the longest wait.
const BUCKETS: [u64; 18] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many fell into each bucket and no lower one.
    buckets: [Counter; BUCKETS.len()],
    slower: Counter,
    /// All of them together. Begins again after 584 years, which monitoring takes for a restart.
    nanoseconds: Counter,
}

impl Histogram {
    /// Notes that `times` things took this long each.
    pub fn record(&self, took: Duration, times: u64) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| nanoseconds <= *bound);
        bucket.and_then(|bucket| self.buckets.get(bucket)).unwrap_or(&self.slower).add(times);
        self.nanoseconds.add(nanoseconds.saturating_mul(times));
    }
}

/// What kind of number this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One that goes up and down.
    Gauge,
    /// One that only grows.
    Counter,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// How an audit log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Whether what must be in it is refused at the moment.
    pub is_suspended: bool,
    /// What was refused since the start because it could not be written down.
    pub refused: u64,
    /// Other lines that were given up since the start.
    pub dropped: u64,
}

/// The text, as it is written.
#[derive(Debug)]
pub struct Page(String);

/// One metric of a page, to which values with labels are added.
#[derive(Debug)]
pub struct Series<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl Series<'_> {
    /// Adds a value under these labels.
    pub fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        sample(self.out, self.name, "", labels, value);
    }
}

impl Page {
    /// A page that says which build this is.
    pub fn new() -> Self {
        let mut page = Self(String::with_capacity(USUAL_BYTES));
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT.unwrap_or_default())];
        let known = if COMMIT.is_some() { &labels[..] } else { &labels[..1] };
        page.series("obol_build_info", Kind::Gauge, "Which build this is; always 1.").value(known, 1);
        page
    }

    /// A part, to stand behind a page.
    pub const fn part() -> Self {
        Self(String::new())
    }

    /// A metric that has labels.
    pub fn series<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Series<'a> {
        heading(&mut self.0, name, kind.name(), help);
        Series { out: &mut self.0, name }
    }

    /// A number that has none.
    pub fn number(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.series(name, kind, help).value(&[], value);
    }

    /// How long things took.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Histogram) {
        let out = &mut self.0;
        heading(out, name, "histogram", help);
        let mut below = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&times.buckets) {
            below += bucket.get();
            sample(out, name, "_bucket", &[("le", &seconds(*bound))], below);
        }
        let all = below + times.slower.get();
        sample(out, name, "_bucket", &[("le", "+Inf")], all);
        sample(out, name, "_sum", &[], seconds(times.nanoseconds.get()));
        sample(out, name, "_count", &[], all);
    }

    /// How the audit log is, where there is one.
    pub fn audit(&mut self, log: Option<Audit>) {
        let now = match log {
            None => "off",
            Some(Audit { is_suspended: true, .. }) => "suspended",
            Some(_) => "writing",
        };
        let help = "Whether the audit log is off, written, or suspended: one of them is 1.";
        let mut states = self.series("obol_audit_state", Kind::Gauge, help);
        for state in ["off", "writing", "suspended"] {
            states.value(&[("state", state)], u8::from(state == now));
        }
        let Some(log) = log else { return };
        let refused = "Requests refused because they could not be written into the audit log.";
        self.number("obol_audit_refused_total", Kind::Counter, refused, log.refused);
        let dropped = "Lines of the audit log that were given up because too many waited.";
        self.number("obol_audit_dropped_total", Kind::Counter, dropped, log.dropped);
    }

    /// Whether the server is ready, and if not, for which of its `reasons`; `/readyz` says the same.
    pub fn readiness(&mut self, help: &str, reasons: &[&str], reason: Option<&str>) {
        self.number("obol_ready", Kind::Gauge, help, u64::from(reason.is_none()));
        let why = "Why /readyz says no: the reason is 1, all others are 0.";
        let mut known = self.series("obol_not_ready", Kind::Gauge, why);
        for name in reasons {
            known.value(&[("reason", name)], u8::from(reason == Some(name)));
        }
    }

    /// Lines of the process's log that were lost, where somebody counts them.
    pub fn log_lines_dropped(&mut self, lines: Option<u64>) {
        let help = "Lines of the log that were given up because nobody read them in time.";
        if let Some(lines) = lines {
            self.number("obol_log_lines_dropped_total", Kind::Counter, help, lines);
        }
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

fn heading(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    out.push_str(suffix);
    let mut before = '{';
    for (label, text) in labels {
        let _infallible = write!(out, "{before}{label}=\"{}\"", Label(text));
        before = ',';
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _infallible = writeln!(out, " {value}");
}

/// A label's value; tools' names may hold quotes and backslashes.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '"' | '\\' => write!(f, "\\{letter}"),
            '\n' => f.write_str("\\n"),
            _ => f.write_char(letter),
        })
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanoseconds: u64) -> String {
    let text = format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new();
        write(&mut page);
        // The build's own line is 1 as well.
        page.into_text().lines().skip(3).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn one_state_and_one_reason_hold_at_a_time() {
        for (log, state) in [
            (None, "off"),
            (Some(Audit::default()), "writing"),
            (Some(Audit { is_suspended: true, refused: 3, dropped: 4 }), "suspended"),
        ] {
            let out = written(|page| page.audit(log));
            assert!(out.contains(&format!("obol_audit_state{{state=\"{state}\"}} 1\n")), "{out}");
            assert_eq!(out.matches("\"} 1\n").count(), 1, "{out}");
            assert_eq!(out.contains("obol_audit_refused_total 3\n"), state == "suspended", "{out}");
        }
        let reasons = ["store", "session"];
        for (reason, ready) in [(None, 1), (Some("store"), 0), (Some("session"), 0)] {
            let out = written(|page| page.readiness("Whether.", &reasons, reason));
            assert!(out.contains(&format!("\nobol_ready {ready}\n")), "{out}");
            assert_eq!(out.matches("\"} 1\n").count(), 1 - ready, "{out}");
        }
    }

    #[test]
    fn the_build_is_named() {
        let out = Page::new().into_text();
        assert!(
            out.contains(concat!("obol_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")),
            "{out}"
        );
        assert!(out.ends_with("} 1\n"), "{out}");
        assert_eq!(out.lines().count(), 3, "{out}");
    }

    #[test]
    fn buckets_rise_add_up_and_end_with_everything() {
        assert!(BUCKETS.is_sorted_by(|one, next| one < next));
        let times = Histogram::default();
        times.record(Duration::from_micros(1), 1);
        times.record(Duration::from_micros(10), 3);
        times.record(Duration::from_nanos(10_001), 1);
        times.record(Duration::from_secs(31), 2);
        let out = written(|page| page.histogram("t_seconds", "How long.", &times));
        assert!(out.starts_with("# HELP t_seconds How long.\n# TYPE t_seconds histogram\n"), "{out}");
        for line in [
            "t_seconds_bucket{le=\"0.000005\"} 1\n",
            "t_seconds_bucket{le=\"0.00001\"} 4\n",
            "t_seconds_bucket{le=\"0.000025\"} 5\n",
            "t_seconds_bucket{le=\"0.1\"} 5\n",
            "t_seconds_bucket{le=\"2.5\"} 5\n",
            "t_seconds_bucket{le=\"30\"} 5\n",
            "t_seconds_bucket{le=\"+Inf\"} 7\n",
            "t_seconds_sum 62.000041001\n",
            "t_seconds_count 7\n",
        ] {
            assert!(out.contains(line), "{line} in {out}");
        }
    }

    #[test]
    fn a_label_cannot_end_its_line_or_its_quotes() {
        let out = written(|page| {
            let labels = [("tool", "a\"} 9\n\\"), ("code", "ok")];
            page.series("t_total", Kind::Counter, "Tools.").value(&labels, 5);
        });
        assert!(out.ends_with("\nt_total{tool=\"a\\\"} 9\\n\\\\\",code=\"ok\"} 5\n"), "{out}");
    }
}
