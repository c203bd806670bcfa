//! Requests whose answers are changed.

use std::collections::HashMap;

use crate::guard::Admitted;
use crate::jsonrpc::Id;

/// The most of one connection. One that its client gave up stays: its answer may still come, and must not leave in the clear.
const MAX_WAITING: usize = 1_024;

/// What is to be done with an answer.
#[derive(Debug)]
pub(super) enum Waiting {
    Initialize,
    Discover,
    List,
    Sealed(Box<Admitted>),
}

#[derive(Debug, Default)]
pub(super) struct WaitingTable {
    requests: HashMap<Id, (Waiting, bool)>,
    sealed: usize,
}

impl WaitingTable {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= MAX_WAITING
    }

    pub(super) fn holds(&self, id: &Id) -> bool {
        self.requests.contains_key(id)
    }

    pub(super) fn holds_sealed(&self) -> bool {
        self.sealed > 0
    }

    /// `stateless`: whether the request spoke MCP 2026-07-28 or later.
    pub(super) fn insert(&mut self, id: Id, waiting: Waiting, stateless: bool) {
        self.sealed += usize::from(matches!(waiting, Waiting::Sealed(_)));
        self.requests.insert(id, (waiting, stateless));
    }

    /// Forgets one whose answer may leave as it is.
    pub(super) fn forget(&mut self, id: &Id) {
        if !matches!(self.requests.get(id), Some((Waiting::Sealed(_), _))) {
            self.requests.remove(id);
        }
    }

    pub(super) fn take(&mut self, id: &Id) -> Option<(Waiting, bool)> {
        let taken = self.requests.remove(id)?;
        self.sealed -= usize::from(matches!(taken.0, Waiting::Sealed(_)));
        Some(taken)
    }
}
