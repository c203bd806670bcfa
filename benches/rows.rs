//! Results, as rows of one table that all benchmarks write and `scripts/bench` prints.
//!
//! **The format.** One JSON object a line in `target/bench-rows.jsonl` (elsewhere with `OBOL_BENCH_ROWS`), appended to;
//! `scripts/bench` empties the file when it begins. [`Row`] says what the fields mean:
//!
//! ```json
//! {"bench":"queue","what":"dequeue, 1 thread","measured":58.1,"unit":"nanoseconds",
//!  "peer":"pop a boxed slice from an ArrayQueue and free it","peer_measured":21.4,
//!  "target":{"ratio_at_most":3.0},"foreign_load":0.01}
//! ```
//!
//! A benchmark adds a row so:
//!
//! ```no_run
//! use obol_benches::rows::{self, Row, Target, Unit, criterion_median};
//! rows::begin();
//! // … and after criterion has finished the group, within the same process:
//! if let Some(ours) = criterion_median("verify", "suite 1") {
//!     let row = Row::new("token", "verify, suite 1", Unit::Nanoseconds, ours);
//!     row.beside("jsonwebtoken, EdDSA", 34_000.0).wants(Target::RatioAtMost(2.0)).record();
//! }
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::load::Watch;

/// What a number counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time for one of what is measured.
    Nanoseconds,
    /// How many in a second.
    PerSecond,
    /// Memory, disk or wire.
    Bytes,
    /// Anything else that is counted.
    Count,
}

/// When a row is good enough. The ratio is ours divided by the peer's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At most this many times the peer.
    RatioAtMost(f64),
    /// At least this many times the peer.
    RatioAtLeast(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
    /// At least this, in the row's unit.
    AtLeast(f64),
}

/// One line of the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The benchmark, as `cargo bench --bench` names it.
    pub bench: String,
    /// What was measured, in a few words.
    pub what: String,
    /// The measurement.
    pub measured: f64,
    /// Its unit; the peer's as well.
    pub unit: Unit,
    /// What was measured beside it in the same run.
    pub peer: Option<String>,
    /// The peer's measurement.
    pub peer_measured: Option<f64>,
    /// When it is good enough; none where nothing was promised.
    pub target: Option<Target>,
    /// The share of the machine that others used since the row before it, 0 to 1.
    pub foreign_load: f64,
}

impl Row {
    /// A row without peer and target.
    pub fn new(bench: &str, what: impl Into<String>, unit: Unit, measured: f64) -> Self {
        let (bench, what) = (bench.to_owned(), what.into());
        Self { bench, what, measured, unit, peer: None, peer_measured: None, target: None, foreign_load: 0.0 }
    }

    /// Names what was measured beside it.
    #[must_use]
    pub fn beside(self, peer: impl Into<String>, measured: f64) -> Self {
        Self { peer: Some(peer.into()), peer_measured: Some(measured), ..self }
    }

    /// Says when it is good enough.
    #[must_use]
    pub fn wants(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Ours divided by the peer's.
    pub fn ratio(&self) -> Option<f64> {
        self.peer_measured.filter(|peer| *peer > 0.0).map(|peer| self.measured / peer)
    }

    /// Whether the target is met; `None` where there is none, `false` where it needs a peer that was not measured.
    pub fn is_met(&self) -> Option<bool> {
        let ratio = |good: &dyn Fn(f64) -> bool| self.ratio().is_some_and(good);
        Some(match self.target? {
            Target::RatioAtMost(most) => ratio(&|ratio| ratio <= most),
            Target::RatioAtLeast(least) => ratio(&|ratio| ratio >= least),
            Target::AtMost(most) => self.measured <= most,
            Target::AtLeast(least) => self.measured >= least,
        })
    }

    /// Appends the row to the file, with the load that others put on the machine since the last row.
    ///
    /// # Panics
    ///
    /// Where the file cannot be written: a result that is lost must not look like one that was not measured.
    #[expect(clippy::expect_used, reason = "see Panics")]
    pub fn record(mut self) {
        let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
        self.foreign_load = watch.lap();
        let path = path();
        let line = serde_json::to_string(&self).expect("a row is JSON");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic_about(&path, &error));
        writeln!(file, "{line}").unwrap_or_else(|error| panic_about(&path, &error));
    }
}

#[expect(clippy::panic, reason = "see Row::record")]
fn panic_about<T>(path: &Path, error: &dyn core::fmt::Display) -> T {
    panic!("cannot write the benchmark's result to {}: {error}", path.display())
}

static WATCH: LazyLock<Mutex<Watch>> = LazyLock::new(|| Mutex::new(Watch::start()));

/// Begins to watch the load of others, and forgets what was before. Call it first in a benchmark: what criterion
/// estimated before the first call counts as left over from another run.
pub fn begin() {
    LazyLock::force(&STARTED);
    WATCH.lock().unwrap_or_else(PoisonError::into_inner).lap();
}

/// What this process uses is not foreign load, nor is what this child of it uses.
pub fn count_as_ours(pid: u32) {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner).count_as_ours(pid);
}

/// Says on standard error what could not be measured, and how it could be.
#[expect(clippy::print_stderr, reason = "what is left out must not go unnoticed")]
pub fn skipped(why: &str) {
    eprintln!("NOT MEASURED: {why}");
}

/// Where the rows are.
pub fn path() -> PathBuf {
    std::env::var_os("OBOL_BENCH_ROWS").map_or_else(|| target().join("bench-rows.jsonl"), PathBuf::from)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// The longest name criterion gives a folder, in bytes.
const CRITERION_NAME_BYTES: usize = 64;

/// The median that criterion has just estimated for a function of a group, in nanoseconds. `None` if it was not measured
/// since [`begin`], as when a filter leaves it out.
pub fn criterion_median(group: &str, function: &str) -> Option<f64> {
    let folder = |name: &str| {
        let mut name = name.replace(['?', '"', '/', '\\', '*', '<', '>', ':', '|', '^'], "_");
        name.truncate(name.floor_char_boundary(CRITERION_NAME_BYTES));
        name
    };
    let home = std::env::var_os("CRITERION_HOME").map_or_else(|| target().join("criterion"), PathBuf::from);
    let file = home.join(folder(group)).join(folder(function)).join("new/estimates.json");
    let is_new = std::fs::metadata(&file).and_then(|file| file.modified()).ok()? >= *STARTED;
    let text = is_new.then(|| std::fs::read_to_string(&file).ok())??;
    serde_json::from_str::<serde_json::Value>(&text).ok()?.get("median")?.get("point_estimate")?.as_f64()
}

/// When the benchmark began; see [`begin`].
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measured: f64, peer: f64, target: Target) -> Row {
        Row::new("test", "a thing", Unit::Nanoseconds, measured).beside("another", peer).wants(target)
    }

    #[test]
    fn a_target_is_met_or_missed_on_the_side_it_names() {
        for (measured, peer, target, met) in [
            (30.0, 10.0, Target::RatioAtMost(3.0), true),
            (31.0, 10.0, Target::RatioAtMost(3.0), false),
            (8.0, 10.0, Target::RatioAtLeast(0.8), true),
            (7.9, 10.0, Target::RatioAtLeast(0.8), false),
            (50.0, 1.0, Target::AtMost(50.0), true),
            (49.0, 1.0, Target::AtLeast(50.0), false),
            (49.0, 0.0, Target::RatioAtMost(3.0), false),
        ] {
            assert_eq!(row(measured, peer, target).is_met(), Some(met), "{measured} {peer} {target:?}");
        }
        assert_eq!(Row::new("test", "a thing", Unit::Count, 1.0).is_met(), None);
    }

    #[test]
    fn a_row_survives_its_line() {
        let row = row(1.5, 2.5, Target::RatioAtMost(3.0));
        let line = serde_json::to_string(&row).unwrap();
        assert!(line.contains(r#""target":{"ratio_at_most":3.0}"#), "{line}");
        assert_eq!(serde_json::from_str::<Row>(&line).unwrap(), row);
    }
}
