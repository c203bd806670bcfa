//! Spent marks in a file: a token that was accepted stays spent through crash and power cut.
//!
//! # How it works
//!
//! All live marks are in memory, so looking one up never touches the disk and two presentations of one token are
//! decided on the spot: the first takes the mark, every other is refused, even while the first is still waiting. One
//! thread owns the file. It takes all marks that are waiting, writes them in one transaction, and only when that is
//! durable tells the waiting callers "yes". While it writes, the next ones gather: one commit pays for as many
//! spends as arrive during a commit.
//!
//! # What a crash can do
//!
//! - Before the commit: the mark is lost, and nobody was told "yes". The token may be presented again.
//! - After the commit: the mark is read back at the next start. The token is refused, whether or not the caller heard
//!   the "yes".
//! - When the commit fails: nobody knows what reached the disk. The set stops for good ([`SpendError::Unavailable`]
//!   to everyone) until the process opens the file again.
//! - The file is deleted, or is new: whatever was spent before is unknown. See [`NewFile`].
//!
//! # The file
//!
//! A redb database with two tables. `obol.spent-set.meta`: format, span length, fence, horizon. `obol.spent-set.marks`:
//! key (span of expiry times, row number), value up to 250 16-byte marks one behind the other. A commit fills up the last
//! row of each span it has marks for, and begins new ones. Forgetting deletes a range of spans in the same transaction that moves the horizon.

mod store;
mod writer;

#[cfg(test)]
mod tests;

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_session::clock::Clock;

pub use self::store::OpenSpentSetError;
use self::store::{Opened, Store};
use self::writer::{MAX_WAITING, Marks};
use super::inbox::{Inbox, Writer};
use super::index::Index;
use super::{KEEP_MARGIN_SECS, MAX_LIVE_MARKS, Mark, SpendError, SpendTicket, SpentSet};
use crate::limits::DEFAULT_CLOCK_SKEW_SECS;

/// What to assume about tokens that were issued before the file existed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewFile {
    /// They may have been spent: the file is new because somebody lost the old one. Every token issued up to the
    /// creation plus clock skew is refused, so a new server accepts nothing for its first minute.
    Fenced,
    /// They cannot have been spent. Right where the sessions are as new as the file; wrong where it may have been
    /// deleted, since then a token that was spent before is accepted again.
    Trusted,
}

/// How to open a [`RedbSpentSet`].
#[derive(Clone, Debug)]
pub struct RedbSpentSetOptions {
    path: PathBuf,
    clock_skew: u64,
    max_marks: usize,
    new_file: NewFile,
}

impl RedbSpentSetOptions {
    /// The file at `path`, in a folder that exists; it is created with mode 0600 where it does not exist. Clock skew
    /// is 60 s, the most marks [`MAX_LIVE_MARKS`], a new file [`NewFile::Fenced`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            clock_skew: DEFAULT_CLOCK_SKEW_SECS,
            max_marks: MAX_LIVE_MARKS,
            new_file: NewFile::Fenced,
        }
    }

    /// The clock skew that the verifier allows, in seconds.
    #[must_use]
    pub fn clock_skew(mut self, seconds: u64) -> Self {
        self.clock_skew = seconds;
        self
    }

    /// The most live marks; when they are reached, every spend is refused. A mark takes up to 40 bytes of memory.
    #[must_use]
    pub fn max_marks(mut self, marks: usize) -> Self {
        self.max_marks = marks;
        self
    }

    /// What to assume when the file is new.
    #[must_use]
    pub fn new_file(mut self, assumption: NewFile) -> Self {
        self.new_file = assumption;
        self
    }

    /// Opens the file, or creates it, and reads its marks.
    ///
    /// # Errors
    ///
    /// [`OpenSpentSetError`].
    pub fn open(&self, clock: Arc<dyn Clock>) -> Result<RedbSpentSet, OpenSpentSetError> {
        let mut index = Index::new(self.max_marks);
        let opened = Store::open(&self.path, self.fence_if_new(&*clock), &mut index)?;
        Ok(self.start(opened, index, clock))
    }

    #[cfg(test)]
    fn open_backend(
        &self,
        backend: impl ::redb::StorageBackend,
        clock: Arc<dyn Clock>,
    ) -> Result<RedbSpentSet, OpenSpentSetError> {
        let mut index = Index::new(self.max_marks);
        let opened = Store::open_backend(backend, self.fence_if_new(&*clock), &mut index)?;
        Ok(self.start(opened, index, clock))
    }

    fn fence_if_new(&self, clock: &dyn Clock) -> Option<u64> {
        (self.new_file == NewFile::Fenced).then(|| clock.now().saturating_add(self.clock_skew))
    }

    fn start(&self, opened: Opened, index: Index, clock: Arc<dyn Clock>) -> RedbSpentSet {
        let Opened { store, fence } = opened;
        let keep_after_expiry = self.clock_skew.saturating_add(KEEP_MARGIN_SECS);
        let inbox = Inbox::new(MAX_WAITING, Marks::new(clock, keep_after_expiry, index));
        let writer = Writer::start(inbox, "obol-spent-set", |inbox| writer::run(inbox, store));
        RedbSpentSet { writer, path: self.path.clone(), fence, keep_after_expiry }
    }
}

/// Spent marks in a file. Opened with [`RedbSpentSetOptions`]; one process at a time has it open.
///
/// Dropping it writes what is still waiting and closes the file.
pub struct RedbSpentSet {
    writer: Writer<Marks>,
    path: PathBuf,
    fence: Option<u64>,
    keep_after_expiry: u64,
}

impl RedbSpentSet {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for RedbSpentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbSpentSet")
            .field("path", &self.path)
            .field("marks", &self.writer.inbox().with(|marks| marks.len()))
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl SpentSet for RedbSpentSet {
    fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        self.writer.inbox().ask(|marks| marks.is_spent(mark))
    }

    fn spend_with(&self, mark: Mark, with: Option<Mark>) -> SpendTicket {
        self.writer.inbox().spend(mark, with, |marks| marks.insert(&mark, with.as_ref()))
    }

    fn fence(&self) -> Option<u64> {
        self.fence
    }

    fn keep_after_expiry(&self) -> u64 {
        self.keep_after_expiry
    }

    fn health(&self) -> Result<(), SpendError> {
        self.writer.inbox().ask(Marks::health)
    }

    fn marks(&self) -> Option<usize> {
        Some(self.writer.inbox().with(|marks| marks.len()))
    }
}
