//! Receipts in a file: one redb table of sealed rows. Each change is one durable commit, and what the file holds is in memory too.
//!
//! After a commit that failed nobody knows what reached the disk, so nothing is begun any more until the file is opened again. A file
//! that is new may stand in the place of one that was lost: unless it is said that there was none, nothing is begun for a lifetime.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{ReadOnlyTable, ReadableTable as _, TableDefinition};
use obol_secret::key::Key32;
use obol_secret::seal;
use obol_session::clock::{Clock, Reading};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::row::Row;
use super::table::{Draft, Table};
use super::{Begun, CallDigest, Finished, Limits, ReceiptId, ReceiptStore, ReceiptsUnavailable};
use crate::redb_file::{self, RedbFile};
use crate::spent::NewFile;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("obol.receipts.meta");
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("obol.receipts.rows");
const FORMAT: &str = "format";
/// Until when nothing is begun, in Unix seconds.
const FENCE: &str = "fence";
const VERSION: u64 = 1;
/// What the sealing key is derived for.
const PURPOSE: &str = "obol-receipts-v1";

/// Why a file of receipts was not opened.
#[derive(Debug)]
pub struct OpenReceiptsError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    File(redb_file::Problem),
    Version(u64),
    Sealed,
    NoRandomness,
}

impl fmt::Display for OpenReceiptsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipts {}: ", self.path.display())?;
        match &self.problem {
            Problem::File(problem) => problem.fmt(f),
            Problem::Version(found) => {
                write!(f, "it has format {found} and this build reads format {VERSION}; use the newer build")
            }
            Problem::Sealed => f.write_str("it does not open with this key; use the key it was made with"),
            Problem::NoRandomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for OpenReceiptsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        if let Problem::File(problem) = &self.problem { problem.source() } else { None }
    }
}

impl From<::redb::Error> for Problem {
    fn from(error: ::redb::Error) -> Self {
        Self::File(error.into())
    }
}

/// Receipts in a file. One process at a time has it open.
pub struct RedbReceipts {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

struct Inner {
    file: RedbFile,
    key: Zeroizing<[u8; 32]>,
    table: Table,
    /// Nothing is begun before this time.
    fence: u64,
    /// Why nothing can be written any more.
    failed: Option<String>,
}

impl RedbReceipts {
    /// Opens the file, or creates it. Rows are sealed under a key that is derived from this one.
    ///
    /// # Errors
    ///
    /// [`OpenReceiptsError`] says what is wrong with the file, and what to do.
    pub fn open(
        path: impl Into<PathBuf>,
        key: &Key32,
        limits: Limits,
        new_file: NewFile,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenReceiptsError> {
        let path = path.into();
        let fence = match new_file {
            NewFile::Trusted => 0,
            NewFile::Fenced => clock.now().saturating_add(limits.lifetime_secs),
        };
        let opened = Inner::open(&path, key, limits, fence, Reading::of(&*clock));
        match opened {
            Ok(inner) => Ok(Self { path, clock, inner: Mutex::new(inner) }),
            Err(problem) => Err(OpenReceiptsError { path, problem }),
        }
    }
}

impl Inner {
    fn open(
        path: &Path,
        key: &Key32,
        limits: Limits,
        fence_if_new: u64,
        now: Reading,
    ) -> Result<Self, Problem> {
        let mut life = [0; 16];
        getrandom::fill(&mut life).map_err(|_| Problem::NoRandomness)?;
        let file = RedbFile::open(path).map_err(Problem::File)?;
        let begin = |transaction: &::redb::WriteTransaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT, VERSION)?;
            meta.insert(FENCE, fence_if_new)?;
            transaction.open_table(ROWS)?;
            Ok(())
        };
        let read = |meta: &ReadOnlyTable<&'static str, u64>| {
            let value = |name| -> Result<Option<u64>, ::redb::Error> {
                Ok(meta.get(name)?.map(|value| value.value()))
            };
            Ok((value(FORMAT)?, value(FENCE)?))
        };
        let (format, fence) = file.identify(META, begin, read).map_err(Problem::File)?;
        match format {
            Some(VERSION) => {}
            Some(other) => return Err(Problem::Version(other)),
            None => return Err(Problem::File(redb_file::Problem::Foreign)),
        }
        let key = key.derive(PURPOSE);
        let table = Table::new(limits, life, true);
        let mut inner = Self { file, key, table, fence: fence.unwrap_or(0), failed: None };
        inner.read_rows(now)?;
        Ok(inner)
    }

    fn read_rows(&mut self, now: Reading) -> Result<(), Problem> {
        let rows = self.file.read(|reading| {
            let mut rows = Vec::new();
            for row in reading.open_table(ROWS)?.iter()? {
                let (id, sealed) = row?;
                rows.push((id.value().to_vec(), sealed.value().to_vec()));
            }
            Ok(rows)
        })?;
        for (id, sealed) in rows {
            let row = seal::open(&self.key, &id, &sealed).and_then(|plain| Row::from_bytes(&plain).ok());
            let id: Option<[u8; 32]> = id.try_into().ok();
            let (Some(row), Some(id)) = (row, id) else { return Err(Problem::Sealed) };
            self.table.put(ReceiptId::from_bytes(id), row, now);
        }
        Ok(())
    }

    fn check(&self, now: Reading) -> Result<(), ReceiptsUnavailable> {
        if let Some(why) = &self.failed {
            return Err(ReceiptsUnavailable(format!("a commit failed, restart to recover: {why}").into()));
        }
        if now.wall < self.fence {
            let secs = self.fence - now.wall;
            let why =
                format!("their file is new, in case the old one was lost: nothing is begun for {secs} s");
            return Err(ReceiptsUnavailable(why.into()));
        }
        Ok(())
    }

    /// Writes a row, takes out those that are over, and returns once both are durable.
    fn write(&mut self, row: Option<(&ReceiptId, Row)>, now: Reading) -> Result<(), ReceiptsUnavailable> {
        let sealed = row.as_ref().map(|(id, row)| seal::seal(&self.key, id.as_bytes(), &row.to_bytes()));
        let sealed = sealed
            .transpose()
            .map_err(|_| ReceiptsUnavailable("the system's random number generator failed".into()))?;
        let over = self.table.over(now);
        let written = self.file.commit(|transaction| {
            let mut rows = transaction.open_table(ROWS)?;
            for old in &over {
                rows.remove(&old.as_bytes()[..])?;
            }
            if let (Some((id, _)), Some(sealed)) = (&row, &sealed) {
                rows.insert(&id.as_bytes()[..], sealed.as_slice())?;
            }
            Ok(())
        });
        if let Err(error) = written {
            self.failed = Some(error.to_string());
            return self.check(now);
        }
        over.iter().for_each(|old| self.table.remove(old));
        if let Some((id, row)) = row {
            self.table.put(*id, row, now);
        }
        Ok(())
    }
}

impl fmt::Debug for RedbReceipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbReceipts").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ReceiptStore for RedbReceipts {
    fn begin(&self, id: &ReceiptId, call: &CallDigest) -> Result<Begun, ReceiptsUnavailable> {
        let now = Reading::of(&*self.clock);
        let mut inner = self.inner.lock();
        let mut drafted = inner.table.begin(id, call, now);
        if drafted.is_err() {
            inner.check(now)?;
            inner.write(None, now)?;
            drafted = inner.table.begin(id, call, now);
        }
        // What is known is known, also where nothing can be begun.
        match drafted? {
            Draft::Found(found) => Ok(found),
            Draft::New(row) => {
                inner.check(now)?;
                inner.write(Some((id, row)), now).map(|()| Begun::Fresh)
            }
        }
    }

    fn finish(&self, id: &ReceiptId, finished: Finished<'_>) -> Result<(), ReceiptsUnavailable> {
        let now = Reading::of(&*self.clock);
        let mut inner = self.inner.lock();
        inner.check(now)?;
        match inner.table.finish(id, finished) {
            Some(row) => inner.write(Some((id, row)), now),
            None => Ok(()),
        }
    }

    fn health(&self) -> Result<(), ReceiptsUnavailable> {
        self.inner.lock().check(Reading::of(&*self.clock))
    }

    fn receipts(&self) -> usize {
        self.inner.lock().table.len()
    }

    fn limits(&self) -> Limits {
        self.inner.lock().table.limits()
    }
}
