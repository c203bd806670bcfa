//! The file of marks: what is in it, reading it back, writing.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::redb::{ReadOnlyTable, ReadableTable as _, TableDefinition, WriteTransaction};

use crate::redb_file::{self, RedbFile};
use crate::spent::index::{BUCKET_SECS, Index};

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("obol.spent-set.meta");
const MARKS: TableDefinition<'static, (u64, u64), &[u8]> = TableDefinition::new("obol.spent-set.marks");

const FORMAT: &str = "format";
const SPAN_SECONDS: &str = "span-seconds";
const FENCE: &str = "fence";
const HORIZON: &str = "horizon";

/// The format this build reads and writes.
const VERSION: u64 = 1;

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
    File(redb_file::Problem),
    Version(u64),
    Span(u64),
}

impl fmt::Display for OpenSpentSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::File(redb_file::Problem::File(error)) => write!(f, "spent set: {error}"),
            Problem::File(problem) if problem.is_final() => write!(
                f,
                "spent set {path}: {problem}; move it away to start over: a new spent set refuses what was issued before \
                 it"
            ),
            Problem::File(problem) => write!(f, "spent set {path}: {problem}"),
            Problem::Version(found) => write!(
                f,
                "spent set {path}: it has format {found} and this build reads format {VERSION}; use the newer build"
            ),
            Problem::Span(found) => write!(
                f,
                "spent set {path}: its spans are {found} s and this build's {BUCKET_SECS} s; use the build that wrote it"
            ),
        }
    }
}

impl core::error::Error for OpenSpentSetError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.problem {
            Problem::File(problem) => problem.source(),
            Problem::Version(_) | Problem::Span(_) => None,
        }
    }
}

impl From<redb_file::Problem> for Problem {
    fn from(problem: redb_file::Problem) -> Self {
        Self::File(problem)
    }
}

impl From<::redb::Error> for Problem {
    fn from(error: ::redb::Error) -> Self {
        Self::File(error.into())
    }
}

/// Marks that go into the file together: the span and id of each.
pub(super) type Batch = [(u64, [u8; 16])];

/// The open file. Owned by one thread.
pub(super) struct Store {
    file: RedbFile,
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
        RedbFile::open(path)
            .map_err(Problem::File)
            .and_then(|file| Self::from_file(file, fence_if_new, index))
            .map_err(|problem| OpenSpentSetError { path: path.to_owned(), problem })
    }

    #[cfg(test)]
    pub(super) fn open_backend(
        backend: impl ::redb::StorageBackend,
        fence_if_new: Option<u64>,
        index: &mut Index,
    ) -> Result<Opened, OpenSpentSetError> {
        RedbFile::from_backend(backend)
            .map_err(Problem::File)
            .and_then(|file| Self::from_file(file, fence_if_new, index))
            .map_err(|problem| OpenSpentSetError { path: PathBuf::from("(backend)"), problem })
    }

    fn from_file(file: RedbFile, fence_if_new: Option<u64>, index: &mut Index) -> Result<Opened, Problem> {
        let meta = file.identify(META, |transaction| begin(transaction, fence_if_new), Meta::read)?;
        let (fence, horizon) = meta.check()?;
        index.forget_before(horizon);
        let mut store = Self { file, next_row: 0, spans: BTreeSet::new(), tails: BTreeMap::new() };
        store.read_marks(index)?;
        Ok(Opened { store, fence })
    }

    fn read_marks(&mut self, index: &mut Index) -> Result<(), ::redb::Error> {
        let Self { file, next_row, spans, tails } = self;
        file.read(|reading| {
            for entry in reading.open_table(MARKS)?.iter()? {
                let (key, value) = entry?;
                let (span, row) = key.value();
                let (ids, _) = value.value().as_chunks::<16>();
                ids.iter().for_each(|id| index.place(span, *id));
                spans.insert(span);
                if ids.len() < MARKS_PER_ROW {
                    tails.insert(span, (row, ids.as_flattened().to_vec()));
                }
                *next_row = (*next_row).max(row.saturating_add(1));
            }
            Ok(())
        })
    }

    /// The oldest span that has marks in the file.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.spans.first().copied()
    }

    /// Adds marks, deletes spans before `horizon`, and returns once both are durable.
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
        let Self { file, next_row, tails, .. } = self;
        file.commit(|transaction| {
            let mut marks = transaction.open_table(MARKS)?;
            if let Some(horizon) = horizon {
                marks.retain_in((0, 0)..(horizon, 0), |_, _| false)?;
                let mut meta = transaction.open_table(META)?;
                let known = meta.get(HORIZON)?.map_or(0, |known| known.value());
                meta.insert(HORIZON, horizon.max(known))?;
            }
            for (span, ids) in spans {
                let (mut row, mut all) = tails.remove(span).unwrap_or_else(|| (take(next_row), Vec::new()));
                all.extend_from_slice(ids);
                let mut chunks = all.chunks(ROW_BYTES).peekable();
                while let Some(chunk) = chunks.next() {
                    marks.insert((*span, row), chunk)?;
                    if chunks.peek().is_some() {
                        row = take(next_row);
                    } else if chunk.len() < ROW_BYTES {
                        tails.insert(*span, (row, chunk.to_vec()));
                    }
                }
            }
            Ok(())
        })
    }
}

/// The number of the next row.
fn take(next_row: &mut u64) -> u64 {
    *next_row += 1;
    *next_row - 1
}

fn begin(transaction: &WriteTransaction, fence: Option<u64>) -> Result<(), ::redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT, VERSION)?;
    meta.insert(SPAN_SECONDS, BUCKET_SECS)?;
    meta.insert(HORIZON, 0)?;
    if let Some(fence) = fence {
        meta.insert(FENCE, fence)?;
    }
    transaction.open_table(MARKS)?;
    Ok(())
}

/// What the file says of itself.
struct Meta {
    format: Option<u64>,
    span: Option<u64>,
    fence: Option<u64>,
    horizon: Option<u64>,
}

impl Meta {
    fn read(table: &ReadOnlyTable<&'static str, u64>) -> Result<Self, ::redb::Error> {
        let value =
            |name| -> Result<Option<u64>, ::redb::Error> { Ok(table.get(name)?.map(|value| value.value())) };
        Ok(Self {
            format: value(FORMAT)?,
            span: value(SPAN_SECONDS)?,
            fence: value(FENCE)?,
            horizon: value(HORIZON)?,
        })
    }

    /// Fence and horizon, if the file is of this build's format.
    fn check(self) -> Result<(Option<u64>, u64), Problem> {
        let foreign = || Problem::File(redb_file::Problem::Foreign);
        match self.format.ok_or_else(foreign)? {
            VERSION => {}
            other => return Err(Problem::Version(other)),
        }
        match self.span.ok_or_else(foreign)? {
            BUCKET_SECS => {}
            other => return Err(Problem::Span(other)),
        }
        Ok((self.fence, self.horizon.ok_or_else(foreign)?))
    }
}
