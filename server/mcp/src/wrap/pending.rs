//! The calls that wait for an answer, as many as there is room for.

use std::collections::HashMap;

use super::call::{Call, Channel};
use crate::jsonrpc::Id;

/// The most calls of one connection that wait.
const MAX_CALLS: usize = 1_024;
/// The most that is kept of them, in bytes: each may have to be sent once more.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// How a call was sent.
#[derive(Debug)]
pub(super) enum State {
    /// Without a token, and none was drawn.
    Plain,
    /// Without a token, since none could be drawn, and why.
    Without(String),
    /// With a token, and its channel.
    Carries(Option<Box<dyn Channel>>),
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending(Option<(Call, State)>);

impl Pending {
    /// One that asks what the server can do.
    pub(super) fn opening() -> Self {
        Self(None)
    }

    pub(super) fn of(call: Call, state: State) -> Self {
        Self(Some((call, state)))
    }

    pub(super) fn into_call(self) -> Option<(Call, State)> {
        self.0
    }

    fn kept_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(call, _)| call.kept_bytes())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    calls: HashMap<Id, Pending>,
    kept: usize,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn holds(&self, id: &Id) -> bool {
        self.calls.contains_key(id)
    }

    /// Whether there is room for one more, of this line.
    pub(super) fn has_room_for(&self, line: &str) -> bool {
        self.calls.len() < MAX_CALLS && self.kept.saturating_add(2 * line.len()) <= MAX_KEPT_BYTES
    }

    pub(super) fn insert(&mut self, id: Id, pending: Pending) {
        // What opens a connection has no room of its own to look for.
        if self.calls.len() >= 2 * MAX_CALLS {
            return;
        }
        self.kept += pending.kept_bytes();
        if let Some(old) = self.calls.insert(id, pending) {
            self.kept -= old.kept_bytes();
        }
    }

    pub(super) fn take(&mut self, id: &Id) -> Option<Pending> {
        let pending = self.calls.remove(id)?;
        self.kept -= pending.kept_bytes();
        Some(pending)
    }

    /// Forgets a call that the client numbered so; the number that the server knows it by.
    pub(super) fn cancel(&mut self, client: &Id) -> Option<Id> {
        let is_meant =
            |pending: &Pending| matches!(&pending.0, Some((call, _)) if call.client_id() == client);
        let sent = self.calls.iter().find(|(_, pending)| is_meant(pending)).map(|(id, _)| id.clone())?;
        self.take(&sent);
        Some(sent)
    }
}
