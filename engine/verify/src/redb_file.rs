//! A file of ours in redb: opened, told apart from other files, and changed so that a crash undoes nothing.
//!
//! Spent marks and sessions are kept this way, each in a file of its own. A file has a table that says what it is; what
//! is in that table, its owner knows.

use core::fmt;
use std::io;
use std::path::Path;

use obol_secret::file::{PrivateFile, PrivateFileError};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, StorageBackend,
    StorageError, TableDefinition, TableError, Value, WriteTransaction,
};

/// Pages that redb keeps in memory, in bytes. Everything is read once, at the start, and lives in memory then.
const CACHE_BYTES: usize = 16 << 20;

/// Why a file was not opened. Nothing was changed, except that a new file may have been created.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Others may reach it: who can write the file can undo what is in it.
    File(PrivateFileError),
    Io(io::Error),
    InUse,
    Damaged(String),
    Foreign,
    Storage(String),
}

impl Problem {
    /// Whether the file can only be put aside. A file that cannot be read today may be readable tomorrow.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Foreign)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Io(error) => write!(f, "cannot open it: {error}"),
            Self::InUse => f.write_str("another process has it open"),
            Self::Damaged(why) => write!(f, "it is damaged, or not a file of this kind ({why})"),
            Self::Foreign => f.write_str("it belongs to something else"),
            Self::Storage(why) => f.write_str(why),
        }
    }
}

impl Problem {
    pub(crate) fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Io(error) => Some(error),
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
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<redb::Error> for Problem {
    fn from(error: redb::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

/// An open file. No other process has it open.
pub(crate) struct RedbFile(Database);

impl RedbFile {
    /// Opens the file, or creates it with mode 0600.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let file = PrivateFile::open(path).map_err(Problem::File)?;
        Self::from_backend(FileBackend::new(file.into_file())?)
    }

    pub(crate) fn from_backend(backend: impl StorageBackend) -> Result<Self, Problem> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            // Finds damage before it is believed. Reads every page once, which is done at the start anyway.
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)?;
        Ok(Self(database))
    }

    /// Reads from the table that says what the file is. A file without any table is new, and is begun first.
    pub(crate) fn identify<V: Value + 'static, R>(
        &self,
        meta: TableDefinition<'_, &'static str, V>,
        begin: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
        read: impl FnOnce(&ReadOnlyTable<&'static str, V>) -> Result<R, redb::Error>,
    ) -> Result<R, Problem> {
        if self.read(is_empty)? {
            self.commit(begin)?;
        }
        let reading = self.0.begin_read().map_err(redb::Error::from)?;
        let meta = reading.open_table(meta).map_err(|error| match error {
            TableError::Storage(error) => Problem::from(redb::Error::from(error)),
            _ => Problem::Foreign,
        })?;
        Ok(read(&meta)?)
    }

    /// Reads what the last commit left.
    pub(crate) fn read<R>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, redb::Error> {
        look(&self.0.begin_read()?)
    }

    /// Makes a change, and returns once it is durable.
    ///
    /// In two phases, although one would halve the time: with one, whether the newest commit is believed after a
    /// crash hangs on a checksum that an attacker who can choose what is written, and can make the machine crash,
    /// may defeat, and an accepted token could become unspent again.
    pub(crate) fn commit<R>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, redb::Error> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_two_phase_commit(true);
        let result = change(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// A file that was just created, or whose creation was cut short.
fn is_empty(reading: &ReadTransaction) -> Result<bool, redb::Error> {
    Ok(reading.list_tables()?.count() + reading.list_multimap_tables()?.count() == 0)
}
