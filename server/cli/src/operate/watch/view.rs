//! What the sidecar does, as far as its answers tell: the last one, and how fast its numbers grow.
//!
//! Plain values. It knows no terminal, and whatever shows a sidecar can be made from it.

use std::collections::BTreeMap;
use std::time::Instant;

use obol_ipc::control::{StatusResult, ToolStatus};
use obol_ipc::names::ToolName;

/// How much of the rate shown is of the last interval; the rest is of before, so that it does not flicker.
const NEWEST: f64 = 0.4;

/// What the sidecar said, or why it said nothing.
pub(super) type Seen = Result<StatusResult, String>;

/// A tool for an audience in a session.
type Row = (u64, String, String);

/// The last answer, and what can be told from it and those before.
#[derive(Clone, Default)]
pub(super) struct View {
    status: Option<StatusResult>,
    at: Option<Instant>,
    rates: BTreeMap<Row, Rates>,
    trouble: Option<String>,
}

/// How many tokens a second.
#[derive(Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) handed_out: f64,
    pub(super) minted: f64,
}

/// Numbers of all tools together.
pub(super) struct Totals {
    /// Tokens that wait.
    pub(super) depth: u64,
    pub(super) rates: Rates,
    pub(super) expired: u64,
    pub(super) minted: u64,
    pub(super) denials: u64,
}

fn row_of(tool: &ToolStatus) -> Row {
    (tool.session_id.as_u64(), tool.tool.to_string(), tool.audience.to_string())
}

impl View {
    /// Takes another answer.
    pub(super) fn update(&mut self, seen: Seen, now: Instant) {
        let status = match seen {
            Ok(status) => status,
            Err(trouble) => {
                self.trouble = Some(trouble);
                return;
            }
        };
        let before = self.status.take().filter(|before| before.pid == status.pid);
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let counted: BTreeMap<Row, (u64, u64)> = before
            .iter()
            .flat_map(|before| &before.tools)
            .map(|tool| (row_of(tool), (tool.handed_out, tool.minted)))
            .collect();
        let mut rates = BTreeMap::new();
        for tool in &status.tools {
            let row = row_of(tool);
            let Some((handed_out, minted)) = counted.get(&row).copied().filter(|_| seconds > 0.0) else {
                continue;
            };
            let old = self.rates.get(&row);
            let smooth = |old: Option<f64>, count: u64| {
                let newest = per_second(count, seconds);
                old.map_or(newest, |old| old.mul_add(1.0 - NEWEST, newest * NEWEST))
            };
            let next = Rates {
                handed_out: smooth(old.map(|old| old.handed_out), tool.handed_out.saturating_sub(handed_out)),
                minted: smooth(old.map(|old| old.minted), tool.minted.saturating_sub(minted)),
            };
            rates.insert(row, next);
        }
        *self = Self { status: Some(status), at: Some(now), rates, trouble: None };
    }

    /// The last answer there was.
    pub(super) fn status(&self) -> Option<&StatusResult> {
        self.status.as_ref()
    }

    /// Why there is no answer now. The last answer is out of date then.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// How fast a tool's numbers grow.
    pub(super) fn rates(&self, tool: &ToolStatus) -> Rates {
        self.rates.get(&row_of(tool)).copied().unwrap_or_default()
    }

    /// The tools, the busiest first.
    pub(super) fn tools(&self) -> Vec<&ToolStatus> {
        let mut tools: Vec<_> = self.status.iter().flat_map(|status| &status.tools).collect();
        let rate = |tool: &ToolStatus| self.rates(tool).handed_out;
        tools.sort_by(|a, b| {
            rate(b).total_cmp(&rate(a)).then(b.handed_out.cmp(&a.handed_out)).then(row_of(a).cmp(&row_of(b)))
        });
        tools
    }

    /// How often a tool was denied. With several sessions a tool is there several times; its denials are not known apart.
    pub(super) fn denials(&self, tool: &ToolName) -> u64 {
        self.status.as_ref().and_then(|status| status.denials.get(tool)).copied().unwrap_or(0)
    }

    /// Tools that were asked for and that no session grants, and how often.
    pub(super) fn not_granted(&self) -> impl Iterator<Item = (&ToolName, u64)> {
        let status = self.status.iter();
        status.flat_map(|status| {
            let unknown = status
                .denials
                .iter()
                .filter(|(name, _)| !status.tools.iter().any(|tool| tool.tool == **name));
            unknown.map(|(name, count)| (name, *count))
        })
    }

    /// Whether tools of several resource servers are there, so that a tool's name alone does not say which is meant.
    pub(super) fn has_several_audiences(&self) -> bool {
        self.status.iter().any(|status| {
            status.tools.windows(2).any(|pair| matches!(pair, [a, b] if a.audience != b.audience))
        })
    }

    /// Numbers of all tools together.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals { depth: 0, rates: Rates::default(), expired: 0, minted: 0, denials: 0 };
        let Some(status) = &self.status else { return totals };
        for tool in &status.tools {
            let rates = self.rates(tool);
            totals.depth += tool.ready + tool.stored;
            totals.rates.handed_out += rates.handed_out;
            totals.rates.minted += rates.minted;
            totals.expired += tool.expired;
            totals.minted += tool.minted;
        }
        totals.denials = status.denials.values().sum();
        totals
    }
}

/// A count of some interval, for each second.
fn per_second(count: u64, seconds: f64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds
}
