//! What humans said yes to and was not drawn yet. It is in memory alone: a restart forgets it, and a flush does. So nothing is left
//! that could be minted from once somebody cut the agent off.

use std::collections::VecDeque;

use obol_session::Call;
use parking_lot::{Mutex, MutexGuard};

/// The most calls that wait for their token.
pub(crate) const MAX_APPROVED: usize = 256;

/// A call that a human said yes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfirmedCall {
    /// What it is drawn by. Several may have the same: each draw takes one.
    pub id: String,
    /// What is done.
    pub call: Call,
    /// The transaction that the yes is for.
    pub txn_id: [u8; 16],
    /// What the human said yes to (TBAC r41, section 3.2).
    pub digest: [u8; 32],
    /// When, in Unix seconds.
    pub confirmed_at: u64,
    /// Until when it may be used, in Unix seconds.
    pub expires_at: u64,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(crate) struct ApprovedCalls(Mutex<VecDeque<ConfirmedCall>>);

impl ApprovedCalls {
    /// All of them, for as long as nobody else is to change them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VecDeque<ConfirmedCall>> {
        self.0.lock()
    }

    /// Forgets those of a tool, or all: the next session is not to go on with what was approved before. Called after what a flush
    /// is about has ended: a draw that found it alive is over by then.
    pub(crate) fn forget(&self, tool: Option<&str>) {
        self.lock().retain(|one| tool.is_some_and(|tool| one.call.tool != tool));
    }
}
