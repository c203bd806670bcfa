//! Denials for each tool that was asked for, also one that nobody granted.

use std::collections::BTreeMap;
use std::time::Instant;

use obol_ipc::names::ToolName;
use obol_probe::rate::{Bucket, Rate};
use parking_lot::Mutex;

/// The most names that are kept apart: an agent may ask for what it likes, and all of it must fit into one answer.
const MAX_NAMES: usize = 64;
/// Names longer than this are not kept.
const MAX_NAME_BYTES: usize = 128;

/// Lines a second about denials in the log, one second's worth at once.
const LINES_PER_SECOND: u32 = 10;

/// Counts denials.
#[derive(Debug)]
pub(crate) struct Denials {
    counts: Mutex<BTreeMap<ToolName, u64>>,
    lines: Mutex<Lines>,
    started: Instant,
}

/// The allowance for lines, and how many denials had none since the last line.
#[derive(Debug, Default)]
struct Lines {
    allowance: Bucket,
    unsaid: u64,
}

impl Default for Denials {
    fn default() -> Self {
        Self { counts: Mutex::default(), lines: Mutex::default(), started: Instant::now() }
    }
}

impl Denials {
    /// Whether a denial may have a line in the log: an agent that is denied again and again does not fill the disk. If
    /// so, how many before it had none.
    pub(crate) fn may_be_said(&self, now: Instant) -> Option<u64> {
        let rate = Rate::new(LINES_PER_SECOND)?;
        let now = u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        let mut lines = self.lines.lock();
        if lines.allowance.take(now, rate).is_err() {
            lines.unsaid += 1;
            return None;
        }
        Some(core::mem::take(&mut lines.unsaid))
    }

    pub(crate) fn count(&self, tool: &ToolName) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(tool) {
            *count += 1;
        } else if counts.len() < MAX_NAMES && tool.as_str().len() <= MAX_NAME_BYTES {
            counts.insert(tool.clone(), 1);
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<ToolName, u64> {
        self.counts.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_again_and_again_does_not_fill_the_log() {
        let denials = Denials::default();
        let start = Instant::now();
        let said = (0..1_000).filter(|_| denials.may_be_said(start).is_some()).count();
        assert!((1..=11).contains(&said), "{said}");
        let later = denials.may_be_said(start + core::time::Duration::from_secs(1)).unwrap();
        assert_eq!(later, 1_000 - u64::try_from(said).unwrap(), "and what had no line is counted");
    }

    #[test]
    fn an_agent_that_makes_up_names_does_not_make_the_list_longer() {
        let denials = Denials::default();
        for n in 0..1_000 {
            denials.count(&ToolName::new(format!("tool{n}")).unwrap());
            denials.count(&ToolName::new("tool0").unwrap());
        }
        let counts = denials.counts();
        assert_eq!(counts.len(), MAX_NAMES);
        assert_eq!(counts[&ToolName::new("tool0").unwrap()], 1_001);
    }
}
