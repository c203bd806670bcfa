//! What may be handed out at all, as it is kept in the store.

use std::collections::BTreeSet;

/// What may be handed out at all, whatever was granted.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Tokens minted under an older epoch are given up.
    pub(crate) epoch: u64,
    /// The list that comes with the epoch.
    pub(crate) denied_tools: BTreeSet<String>,
    /// The operator's own list. What either denies is denied.
    #[serde(default)]
    pub(crate) operator_denied: BTreeSet<String>,
    /// Why no new session is taken, while none is.
    #[serde(default)]
    pub(crate) hold: Option<Hold>,
    /// Flushed sessions of a lower order no longer keep older ones from taking over.
    #[serde(default)]
    pub(crate) resumed: u64,
}

impl Policy {
    pub(crate) fn denies(&self, tool: &str) -> bool {
        self.denied_tools.contains(tool) || self.operator_denied.contains(tool)
    }
}

/// Why no new session is taken: [`Queue::flush_and_hold`](crate::Queue::flush_and_hold).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Since when, in Unix seconds.
    pub since: u64,
    /// What was flushed.
    pub scope: String,
    /// The reason that was given.
    pub reason: String,
}
