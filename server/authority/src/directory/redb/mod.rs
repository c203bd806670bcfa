//! A directory in one file of redb. Every row is sealed under the master key, bound to its table and key, and names in keys are
//! hidden: a stolen file shows how many rows there are, ids and times, but no key, no name and no half of a session; a row
//! that was changed, or moved to another place, is not read.
//!
//! | what can happen | what follows |
//! |---|---|
//! | the process ends before a commit | none of the group's transactions happened, and none was answered |
//! | it ends during a commit | redb's two-phase commit leaves the old state or the new one |
//! | it ends after a commit, before the answers | they happened; who asks again hears so |
//! | a write or a commit fails | nothing is written any more, every transaction is refused, `health` says why |
//! | a row does not open | its transaction is refused and changes nothing |

#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use obol_secret::file::PrivateFile;
use obol_secret::key::Key32;
use obol_secret::seal;
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable, TableDefinition};
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::writer::Writer;
use super::tables::{Bytes, Kept, Rows, Store, Table, Transaction, Unavailable};
use super::{DirectoryOpenError, Stored};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("obol.authority.rows");
/// What the sealing key is derived for.
const PURPOSE: &str = "obol-authority-directory-v1";
/// What the key is derived for that names in keys are hidden under.
const NAMES_PURPOSE: &str = "obol-authority-names-v1";
const CONTEXT: &[u8] = b"obol-authority-row-v1";
/// Shows, before anything else is read, whether the key is the one that the file was made with.
const CHECK_KEY: &[u8] = b"key_check";

/// A directory in a file.
pub type RedbDirectory = Stored<RedbStore>;

/// Rows in a file.
#[derive(Debug)]
pub struct RedbStore {
    database: Arc<Database>,
    seal: Arc<SealKey>,
    writer: Writer,
}

impl Stored<RedbStore> {
    /// Opens a directory; makes one where there is none. `master` seals it.
    ///
    /// # Errors
    ///
    /// [`DirectoryOpenError`] says what cannot be used.
    pub fn open(path: &Path, master: &Key32) -> Result<Self, DirectoryOpenError> {
        let not_ours =
            |why: &dyn core::fmt::Display| DirectoryOpenError::NotOurs(path.to_owned(), why.to_string());
        let file = PrivateFile::open(path).map_err(DirectoryOpenError::File)?.into_file();
        let backend = redb::backends::FileBackend::new(file).map_err(|error| not_ours(&error))?;
        let database = Database::builder().create_with_backend(backend).map_err(|error| not_ours(&error))?;
        Self::over(database, master).map_err(|error| not_ours(&error.0))
    }

    /// A directory in a database that is open, wherever its bytes are.
    pub(crate) fn over(database: Database, master: &Key32) -> Kept<Self> {
        let database = Arc::new(database);
        let seal = Arc::new(SealKey { rows: master.derive(PURPOSE), names: master.derive(NAMES_PURPOSE) });
        check_key(&database, &seal)?;
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&seal))?;
        let store = RedbStore { database, seal, writer };
        index_owners(&store)?;
        Ok(Self { store, head: watch::Sender::new(0) })
    }
}

/// Makes the index of agents by owner for a file that was written before there was one.
fn index_owners(store: &RedbStore) -> Kept<()> {
    let mut after = None;
    loop {
        after = store.write(move |transaction| super::index_owners(transaction, after.as_ref()))?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Writes the check row of a new file, or opens that of an old one.
fn check_key(database: &Database, seal: &SealKey) -> Kept<()> {
    let mut transaction = database.begin_write().map_err(Unavailable::new)?;
    transaction.set_two_phase_commit(true);
    {
        let mut table = transaction.open_table(ROWS).map_err(Unavailable::new)?;
        let key = place(Table::Meta, CHECK_KEY);
        let found = table.get(key.as_slice()).map_err(Unavailable::new)?.map(|row| row.value().to_vec());
        match found {
            Some(row) => drop(seal.open(Table::Meta, CHECK_KEY, &row).map_err(|_| {
                Unavailable::new("it is sealed under another master key; restore the key it was made with")
            })?),
            None if table.iter().map_err(Unavailable::new)?.next().is_some() => {
                return Err(Unavailable::new("it has rows and no check of its key: it is damaged"));
            }
            None => {
                let row = seal.seal(Table::Meta, CHECK_KEY, b"obol-authority 1")?;
                table.insert(key.as_slice(), row.as_slice()).map_err(Unavailable::new)?;
            }
        }
    }
    transaction.commit().map_err(Unavailable::new)
}

impl Store for RedbStore {
    fn write<T, F>(&self, act: F) -> Kept<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Kept<T> + Send + 'static,
    {
        self.writer.run(act)
    }

    fn read<T>(&self, act: impl FnOnce(&Transaction<'_>) -> Kept<T>) -> Kept<T> {
        let table = self.table().map_err(Unavailable::new)?;
        let rows = SealedRows { table: &table, seal: &self.seal };
        act(&Transaction::new(&rows))
    }

    fn health(&self) -> Kept<()> {
        self.writer.health()
    }
}

impl RedbStore {
    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, redb::Error> {
        Ok(self.database.begin_read()?.open_table(ROWS)?)
    }
}

/// Seals rows.
pub(super) struct SealKey {
    rows: Zeroizing<[u8; 32]>,
    names: Zeroizing<[u8; 32]>,
}

impl SealKey {
    fn context(table: Table, key: &[u8]) -> Vec<u8> {
        [CONTEXT, &[table as u8], key].concat()
    }

    fn seal(&self, table: Table, key: &[u8], row: &[u8]) -> Kept<Vec<u8>> {
        seal::seal(&self.rows, &Self::context(table, key), row).map_err(Unavailable::new)
    }

    fn open(&self, table: Table, key: &[u8], row: &[u8]) -> Kept<Bytes> {
        seal::open(&self.rows, &Self::context(table, key), row)
            .ok_or_else(|| Unavailable(format!("a row of the table {table:?} does not open with this key")))
    }
}

impl core::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SealKey([redacted])")
    }
}

/// A row's key in the file: its table, then its key there.
fn place(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

/// Rows of an open table of redb, unsealed as they are read.
struct SealedRows<'a, T> {
    table: &'a T,
    seal: &'a SealKey,
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for SealedRows<'_, T> {
    fn name_key(&self) -> &[u8; 32] {
        &self.seal.names
    }

    fn get(&self, table: Table, key: &[u8]) -> Kept<Option<Bytes>> {
        let found = self.table.get(place(table, key).as_slice()).map_err(Unavailable::new)?;
        found.map(|row| self.seal.open(table, key, row.value())).transpose()
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<(Vec<u8>, Bytes)>> {
        let from = place(table, from);
        let to = to.map_or_else(|| vec![table as u8 + 1], |to| place(table, to));
        let rows = self.table.range(from.as_slice()..to.as_slice()).map_err(Unavailable::new)?;
        rows.take(limit)
            .map(|row| {
                let (key, row) = row.map_err(Unavailable::new)?;
                let key = key.value().get(1..).unwrap_or_default().to_vec();
                let row = self.seal.open(table, &key, row.value())?;
                Ok((key, row))
            })
            .collect()
    }
}
