//! What the threads of a queue are given to do: jobs and chores for the writer, claims for the opener.

use std::sync::Arc;

use crossbeam::channel::Sender;
use obol_token::SessionId;

use crate::error::Unavailable;
use crate::partition::Partition;
use crate::store::{ClaimedBatch, MintedBatch, Policy};

/// The most jobs that may wait; whoever sends more waits too.
pub(crate) const MAX_JOBS: usize = 1024;
/// The most claims that may wait to be opened; the writer waits then too.
pub(crate) const MAX_CLAIMS: usize = 256;

/// Who waits for a job hears here what became of it.
pub(crate) type Reply = Sender<Result<(), Unavailable>>;

/// Something to be made durable.
pub(crate) enum Job {
    /// Put a minted batch into the store.
    Store { partition: Arc<Partition>, batch: MintedBatch },
    /// Take batches out until this many tokens are claimed.
    Claim { partition: Arc<Partition>, tokens: usize },
    /// Remove what has become too old.
    Evict { partition: Arc<Partition> },
    /// Write a session.
    Session { id: SessionId, row: Vec<u8>, reply: Reply },
    /// Write the policy.
    Policy { policy: Policy, reply: Reply },
    /// Write the embedder's note.
    Note { note: Vec<u8>, reply: Reply },
    /// Answer once everything before it is durable.
    Barrier { reply: Reply },
    /// End the thread.
    Stop,
}

/// Work that can wait: done by the writer, a bounded piece at a time.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Remove the rows of a partition below a sequence.
    Discard { partition: u64, below: u64 },
    /// Write down that a session was flushed, so that a restart still says so.
    Tombstone { session: SessionId, row: Vec<u8> },
    /// Forget a session whose time is over.
    Forget { session: SessionId },
    /// Overwrite key slots of a session that is gone and give them back.
    Release { slots: Vec<u32> },
}

/// What a claim brought, durably out of the store.
pub(crate) struct Claim {
    pub(crate) partition: Arc<Partition>,
    pub(crate) batches: Vec<ClaimedBatch>,
    /// How many tokens were asked for.
    pub(crate) asked: usize,
    /// Tokens in the next batch, if there was no room for it.
    pub(crate) too_large: u16,
    /// The era of the clock before which nothing that was claimed was minted.
    pub(crate) era: u64,
}
