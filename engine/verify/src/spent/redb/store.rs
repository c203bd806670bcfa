//! The file: opening, checking, reading back, writing.

use ::redb::backends::FileBackend;
use ::redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageBackend,
    StorageError, TableDefinition, TableHandle as _,
};
use core::fmt;
use obol_secret::file::{PrivateFile, PrivateFileError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::spent::index::{BUCKET_SEC, Index};

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("obol.spent-set.meta");
const MARKS: TableDefinition<'static, (u64, u64), &[u8]> = TableDefinition::new("obol.spent-set.marks");

const FORMAT: &str = "format";
const SPAN_SECONDS: &str = "span-seconds";
const FENCE: &str = "fence";
const HORIZON: &str = "horizon";

/// The format this build reads and writes.
const VERSION: u64 = 1;
/// Pages that redb keeps in memory, in bytes. Every mark is read once, at the start.
const CACHE_BYTES: usize = 16 << 20;

/// The most marks in one row: they fill a page of 4 KiB, less its own overhead. A longer row would take pages of the
/// next power of two, half of them empty.
const MARKS_PER_ROW: usize = 250;
const ROW_BYTES: usize = 16 * MARKS_PER_ROW;

/// Why a spent set was not opened. Nothing was changed, except that a new file may have been created.
#[derive(Debug)]
pub struct OpenSpentSetError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    /// Who can write the file can make spent tokens fresh.
    File(PrivateFileError),
    InUse,
    NotADatabase(String),
    Foreign,
    Version(u64),
    Span(u64),
    Storage(String),
}

impl fmt::Display for OpenSpentSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const START_OVER: &str =
            "move it away to start over: a new spent set refuses what was issued before it";
        if let Problem::File(error) = &self.problem {
            return write!(f, "spent set: {error}");
        }
        write!(f, "spent set {}: ", self.path.display())?;
        match &self.problem {
            Problem::Io(error) => write!(f, "cannot open it: {error}"),
            Problem::File(error) => error.fmt(f),
            Problem::InUse => f.write_str("another process has it open"),
            Problem::NotADatabase(why) => write!(f, "it is damaged or no spent set ({why}); {START_OVER}"),
            Problem::Foreign => write!(f, "it belongs to something else; {START_OVER}"),
            Problem::Version(found) => {
                write!(f, "it has format {found} and this build reads format {VERSION}; use the newer build")
            }
            Problem::Span(found) => {
                write!(
                    f,
                    "its spans are {found} s and this build's {BUCKET_SEC} s; use the build that wrote it"
                )
            }
            Problem::Storage(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for OpenSpentSetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(error) => Some(error),
            Problem::File(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                Self::Io(error)
            }
            error => Self::NotADatabase(error.to_string()),
        }
    }
}

impl From<::redb::Error> for Problem {
    fn from(error: ::redb::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Marks that go into the file together: the span and id of each.
pub(super) type Batch = [(u64, [u8; 16])];

/// The open file. Owned by one thread.
pub(super) struct Store {
    database: Database,
    next_row: u64,
    /// The spans that have rows.
    spans: BTreeSet<u64>,
    /// The last row of each span, where it has room: number and marks. The next marks of the span go into it, or
    /// spends that come one at a time would take a row, and thrice the space, each.
    tails: BTreeMap<u64, (u64, Vec<u8>)>,
}

/// An opened file; its marks are in the index.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) fence: Option<u64>,
}

impl Store {
    /// Opens the file or creates it, and reads its marks into `index`. `fence_if_new` is written into a file that
    /// was not there before.
    pub(super) fn open(
        path: &Path,
        fence_if_new: Option<u64>,
        index: &mut Index,
    ) -> Result<Opened, OpenSpentSetError> {
        PrivateFile::open(path)
            .map_err(Problem::File)
            .and_then(|file| Ok(FileBackend::new(file.into_file())?))
            .and_then(|backend| Self::from_backend(backend, fence_if_new, index))
            .map_err(|problem| OpenSpentSetError { path: path.to_owned(), problem })
    }

    fn from_backend(
        backend: impl StorageBackend,
        fence_if_new: Option<u64>,
        index: &mut Index,
    ) -> Result<Opened, Problem> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            // Finds damage before it is believed. Reads every page once, which is done at the start anyway.
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)?;
        if is_empty(&database)? {
            initialize(&database, fence_if_new)?;
        }
        let (fence, horizon) = read_meta(&database)?;
        index.forget_before(horizon);
        let mut store = Self { database, next_row: 0, spans: BTreeSet::new(), tails: BTreeMap::new() };
        store.read_marks(index)?;
        Ok(Opened { store, fence })
    }

    #[cfg(test)]
    pub(super) fn open_backend(
        backend: impl StorageBackend,
        fence_if_new: Option<u64>,
        index: &mut Index,
    ) -> Result<Opened, OpenSpentSetError> {
        Self::from_backend(backend, fence_if_new, index)
            .map_err(|problem| OpenSpentSetError { path: PathBuf::from("(backend)"), problem })
    }

    fn read_marks(&mut self, index: &mut Index) -> Result<(), ::redb::Error> {
        let marks = self.database.begin_read()?.open_table(MARKS)?;
        for entry in marks.iter()? {
            let (key, value) = entry?;
            let (span, row) = key.value();
            let (ids, _) = value.value().as_chunks::<16>();
            ids.iter().for_each(|id| index.place(span, *id));
            self.spans.insert(span);
            if ids.len() < MARKS_PER_ROW {
                self.tails.insert(span, (row, ids.as_flattened().to_vec()));
            }
            self.next_row = self.next_row.max(row.saturating_add(1));
        }
        Ok(())
    }

    /// The oldest span that has marks in the file.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.spans.first().copied()
    }

    /// Adds marks, deletes spans before `horizon`, and returns once both are durable.
    ///
    /// In two phases, although one would halve the time: with one, whether the newest commit is believed after a
    /// crash hangs on a checksum that an attacker who can choose what is written, and can make the machine crash,
    /// may defeat, and an accepted token could become unspent again.
    pub(super) fn commit(&mut self, batch: &Batch, horizon: Option<u64>) -> Result<(), String> {
        let mut spans: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (span, id) in batch {
            spans.entry(*span).or_default().extend_from_slice(id);
        }
        self.write(&spans, horizon).map_err(|error| error.to_string())?;
        if let Some(horizon) = horizon {
            self.spans = self.spans.split_off(&horizon);
            self.tails = self.tails.split_off(&horizon);
        }
        self.spans.extend(spans.keys());
        Ok(())
    }

    fn write(&mut self, spans: &BTreeMap<u64, Vec<u8>>, horizon: Option<u64>) -> Result<(), ::redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        {
            let mut marks = transaction.open_table(MARKS)?;
            if let Some(horizon) = horizon {
                marks.retain_in((0, 0)..(horizon, 0), |_, _| false)?;
                let mut meta = transaction.open_table(META)?;
                let known = meta.get(HORIZON)?.map_or(0, |known| known.value());
                meta.insert(HORIZON, horizon.max(known))?;
            }
            for (span, ids) in spans {
                let (mut row, mut all) = self.tails.remove(span).unwrap_or_else(|| {
                    self.next_row += 1;
                    (self.next_row - 1, Vec::new())
                });
                all.extend_from_slice(ids);
                let mut chunks = all.chunks(ROW_BYTES).peekable();
                while let Some(chunk) = chunks.next() {
                    marks.insert((*span, row), chunk)?;
                    if chunks.peek().is_some() {
                        row = self.next_row;
                        self.next_row += 1;
                    } else if chunk.len() < ROW_BYTES {
                        self.tails.insert(*span, (row, chunk.to_vec()));
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A file that was just created, or whose creation was cut short.
fn is_empty(database: &Database) -> Result<bool, Problem> {
    let reading = database.begin_read().map_err(::redb::Error::from)?;
    let tables = reading.list_tables().map_err(::redb::Error::from)?.count();
    let multimaps = reading.list_multimap_tables().map_err(::redb::Error::from)?.count();
    Ok(tables + multimaps == 0)
}

fn initialize(database: &Database, fence: Option<u64>) -> Result<(), Problem> {
    let write = || -> Result<(), ::redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT, VERSION)?;
            meta.insert(SPAN_SECONDS, BUCKET_SEC)?;
            meta.insert(HORIZON, 0)?;
            if let Some(fence) = fence {
                meta.insert(FENCE, fence)?;
            }
            transaction.open_table(MARKS)?;
        }
        transaction.commit()?;
        Ok(())
    };
    write().map_err(Problem::from)
}

fn read_meta(database: &Database) -> Result<(Option<u64>, u64), Problem> {
    let reading = database.begin_read().map_err(::redb::Error::from)?;
    let ours = reading.list_tables().map_err(::redb::Error::from)?.any(|table| table.name() == META.name());
    if !ours {
        return Err(Problem::Foreign);
    }
    let meta = reading.open_table(META).map_err(|_| Problem::Foreign)?;
    let value = |name| -> Result<Option<u64>, Problem> {
        Ok(meta.get(name).map_err(::redb::Error::from)?.map(|value| value.value()))
    };
    match value(FORMAT)?.ok_or(Problem::Foreign)? {
        VERSION => {}
        other => return Err(Problem::Version(other)),
    }
    match value(SPAN_SECONDS)?.ok_or(Problem::Foreign)? {
        BUCKET_SEC => {}
        other => return Err(Problem::Span(other)),
    }
    Ok((value(FENCE)?, value(HORIZON)?.ok_or(Problem::Foreign)?))
}
