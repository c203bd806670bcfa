//! Receipts of calls that a caller named: so that a call which is sent again is carried out once, and answered alike.
//!
//! A receipt is *running* from before the call is carried out, durably where the store is, until it is *done*, with the answer
//! where that is kept. Whoever finds one does not carry the call out: of any number of callers under one id, at any time and
//! from any process that shares the store, one is told [`Begun::Fresh`].
//!
//! # What it must not do
//!
//! Never fail open: where a receipt may have been lost, and where there is no room for another, nothing is begun. A receipt that is
//! *running* when its process ends stays so until its time is over: nobody knows how far the call came, so it is not carried out
//! again either ([`Begun::Unknown`]).
//!
//! Receipts are forgotten a lifetime after they began, by the wall's clock *and* by the monotonic one since this process knows of
//! them: a clock that leaps ahead forgets nothing.

mod memory;
#[cfg(feature = "redb")]
mod redb;
mod row;
mod table;

use core::fmt;
use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use memory::MemoryReceipts;
#[cfg(feature = "redb")]
pub use redb::{OpenReceiptsError, RedbReceipts};
pub use row::{Row, RowError, State};
pub use table::{Draft, Table};

/// The longest answer that is kept, in bytes, with its headers.
pub const MAX_ANSWER_BYTES: usize = 32 << 10;

/// Who named a call, and what: 32 bytes of a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReceiptId([u8; 32]);

impl ReceiptId {
    /// The id of a key that an agent of an organisation chose.
    pub fn new(org: &str, agent: &str, key: &str) -> Self {
        Self(hash(b"obol-receipt-v1", &[org.as_bytes(), agent.as_bytes(), key.as_bytes()]))
    }

    /// An id from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which call it is: 32 bytes of a hash over all that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallDigest([u8; 32]);

impl CallDigest {
    /// The digest of a call that consists of these parts.
    pub fn new(parts: &[&[u8]]) -> Self {
        Self(hash(b"obol-receipt-call-v1", parts))
    }
}

/// Of parts each with its length, so that no two lists look alike.
fn hash(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(label).chain_update([0]);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// How long and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long a receipt is kept, in seconds: whoever comes later than this with a key begins anew.
    pub lifetime_secs: u64,
    /// How long a call may run, in seconds. After that it counts as one of which nobody knows what became of it.
    pub running_secs: u64,
    /// The most receipts. When there are as many, no other call that is named is carried out.
    pub most: usize,
    /// The most bytes of answers in all.
    pub most_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lifetime_secs: 3_600, running_secs: 60, most: 10_000, most_bytes: 64 << 20 }
    }
}

/// What was found under an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begun {
    /// Nothing. It is noted as running: carry the call out, and [finish](ReceiptStore::finish) it.
    Fresh,
    /// The call is being carried out.
    Running,
    /// The call was begun, and nobody knows what became of it.
    Unknown,
    /// The call was carried out, with this answer.
    Done(Arc<[u8]>),
    /// The call was carried out, and its answer was not kept.
    NotKept,
    /// Another call.
    OtherCall,
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finished<'a> {
    /// With this answer, of at most [`MAX_ANSWER_BYTES`].
    Answer(&'a [u8]),
    /// With an answer that is not kept.
    NotKept,
    /// Nobody knows how far it came.
    Unknown,
}

/// Nothing can be begun. The text is for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiptsUnavailable(pub Cow<'static, str>);

impl fmt::Display for ReceiptsUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipts are unavailable: {}", self.0)
    }
}

impl core::error::Error for ReceiptsUnavailable {}

/// Keeps receipts. Shared by all who carry calls out for one audience.
///
/// Its calls may wait for a disk or a network.
pub trait ReceiptStore: Send + Sync + fmt::Debug {
    /// Looks for a receipt, and notes the call as running where there is none: atomically, and durably where the store is.
    ///
    /// # Errors
    ///
    /// [`ReceiptsUnavailable`]: nothing was begun, as far as anybody can tell.
    fn begin(&self, id: &ReceiptId, call: &CallDigest) -> Result<Begun, ReceiptsUnavailable>;

    /// Notes how a call ended that was begun here.
    ///
    /// # Errors
    ///
    /// [`ReceiptsUnavailable`]: it stays running, and so becomes one of which nobody knows.
    fn finish(&self, id: &ReceiptId, finished: Finished<'_>) -> Result<(), ReceiptsUnavailable>;

    /// Whether calls can be begun, as far as is known.
    ///
    /// # Errors
    ///
    /// [`ReceiptsUnavailable`].
    fn health(&self) -> Result<(), ReceiptsUnavailable>;

    /// How many receipts there are.
    fn receipts(&self) -> usize;

    /// How long and how many.
    fn limits(&self) -> Limits;
}
