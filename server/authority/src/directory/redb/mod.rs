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
//! | it is put back from a copy | the witness beside it has seen more commits, and it is not opened unasked |

#[cfg(test)]
mod tests;
mod witness;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_secret::file::PrivateFile;
use obol_secret::key::Key32;
use obol_secret::seal::Sealing;
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable, TableDefinition};
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::witness::{Saw, Witness};
use self::writer::{Count, Writer};
use super::tables::{Bytes, Kept, Rows, Store, Table, Transaction, Unavailable};
use super::{Directory as _, DirectoryOpenError, StartedOver, Stored};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("obol.authority.rows");
/// What the sealing key is derived for.
const PURPOSE: &str = "obol-authority-directory-v1";
/// What the key is derived for that names in keys are hidden under.
const NAMES_PURPOSE: &str = "obol-authority-names-v1";
const CONTEXT: &[u8] = b"obol-authority-row-v1";
/// Shows, before anything else is read, whether the key is the one that the file was made with.
const CHECK_KEY: &[u8] = b"key_check";
/// How many commits there were before this one, and it.
const COMMITS: &[u8] = b"commits";

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
    /// Opens a directory; makes one where there is none. `master` seals it. Nobody sees whether it was put back from a copy: see
    /// [`open_witnessed`](Self::open_witnessed).
    ///
    /// # Errors
    ///
    /// [`DirectoryOpenError`] says what cannot be used.
    pub fn open(path: &Path, master: &Key32) -> Result<Self, DirectoryOpenError> {
        Opening::new(path, master)?.finish(None)
    }

    /// As [`open`](Self::open), with a file beside it that counts its commits: a copy that is put back has seen fewer.
    ///
    /// # Errors
    ///
    /// Also [`DirectoryOpenError::PutBack`].
    pub fn open_witnessed(path: &Path, witness: &Path, master: &Key32) -> Result<Self, DirectoryOpenError> {
        let opening = Opening::new(path, master)?;
        let (witness, saw) = opening.witness(witness)?;
        match opening.put_back(saw) {
            Some(why) => Err(DirectoryOpenError::PutBack(path.to_owned(), why)),
            None => opening.finish(Some(witness)),
        }
    }

    /// Opens a directory that was put back from a copy, and lets nothing live again that may have been ended since: see
    /// [`Directory::start_over`](super::Directory::start_over).
    ///
    /// # Errors
    ///
    /// Also [`DirectoryOpenError::NotPutBack`].
    pub fn accept_rollback(
        path: &Path,
        witness: &Path,
        master: &Key32,
        now: u64,
    ) -> Result<(Self, StartedOver), DirectoryOpenError> {
        let opening = Opening::new(path, master)?;
        let (witness, saw) = opening.witness(witness)?;
        if opening.put_back(saw).is_none() {
            return Err(DirectoryOpenError::NotPutBack(path.to_owned()));
        }
        let least = match saw {
            Saw::Commits(commits) => commits,
            Saw::Nothing | Saw::Foreign => 0,
        };
        let mut fresh = [0; 16];
        let unusable = |why: Unavailable| DirectoryOpenError::NotOurs(path.to_owned(), why.0);
        getrandom::fill(&mut fresh).map_err(|error| unusable(Unavailable::new(error)))?;
        // Starting over is the first commit that counts as much as the witness has seen, and the witness is told only after it:
        // whoever is killed before asks again, and finds nothing accepted.
        let over = {
            let store = opening.store(least, None).map_err(unusable)?;
            Self { store, head: watch::Sender::new(0) }.start_over(fresh, now).map_err(unusable)?
        };
        let opening = Opening::new(path, master)?;
        if !matches!(saw, Saw::Commits(_)) {
            witness.begin(opening.commits.unwrap_or(0)).map_err(unusable)?;
        }
        let directory = opening.finish(Some(witness))?;
        Ok((directory, over))
    }
}

/// A file that was found to be a directory of this key, and is not written yet.
struct Opening {
    path: PathBuf,
    database: Arc<Database>,
    seal: Arc<SealKey>,
    witness_key: Zeroizing<[u8; 32]>,
    is_new: bool,
    /// How many commits it has seen; `None` where it was last written before they were counted.
    commits: Option<u64>,
}

impl Opening {
    fn new(path: &Path, master: &Key32) -> Result<Self, DirectoryOpenError> {
        let not_ours =
            |why: &dyn core::fmt::Display| DirectoryOpenError::NotOurs(path.to_owned(), why.to_string());
        let file = PrivateFile::open(path).map_err(DirectoryOpenError::File)?.into_file();
        let backend = redb::backends::FileBackend::new(file).map_err(|error| not_ours(&error))?;
        let database = Database::builder().create_with_backend(backend).map_err(|error| not_ours(&error))?;
        let rows = Sealing::new(&master.derive(PURPOSE));
        let seal = Arc::new(SealKey { rows, names: master.derive(NAMES_PURPOSE) });
        let Checked { is_new, commits } = check(&database, &seal).map_err(|error| not_ours(&error.0))?;
        let (database, witness_key) = (Arc::new(database), master.derive(witness::PURPOSE));
        Ok(Self { path: path.to_owned(), database, seal, witness_key, is_new, commits })
    }

    fn witness(&self, path: &Path) -> Result<(Witness, Saw), DirectoryOpenError> {
        Witness::open(path, self.witness_key.clone()).map_err(DirectoryOpenError::File)
    }

    /// Why this seems to be a copy of the directory that was last written, if it does.
    fn put_back(&self, saw: Saw) -> Option<String> {
        match (saw, self.commits) {
            // Nothing lives again in a directory without contents.
            _ if self.is_new => None,
            // It was last written by a version that counted none.
            (Saw::Nothing | Saw::Commits(0), None) => None,
            (Saw::Commits(seen), known) if seen <= known.unwrap_or(0) => None,
            (Saw::Commits(seen), known) => Some(format!(
                "its witness has seen {} commits that it knows nothing of",
                seen.saturating_sub(known.unwrap_or(0))
            )),
            (Saw::Nothing, Some(_)) => Some("its witness is gone".to_owned()),
            (Saw::Foreign, _) => {
                Some("its witness was written under another master key, or is damaged".to_owned())
            }
        }
    }

    fn finish(self, witness: Option<Witness>) -> Result<Stored<RedbStore>, DirectoryOpenError> {
        let path = self.path.clone();
        let store = self.store(0, witness).and_then(|store| index_owners(&store).map(|()| store));
        let store = store.map_err(|error| DirectoryOpenError::NotOurs(path, error.0))?;
        Ok(Stored { store, head: watch::Sender::new(0) })
    }

    /// `least` is how many commits there were at least.
    fn store(self, least: u64, witness: Option<Witness>) -> Kept<RedbStore> {
        if let (true, Some(witness)) = (self.commits.is_none(), &witness) {
            // Before the first commit that is counted, so that no count is ever there without its witness.
            witness.begin(0)?;
        }
        let count = Count { commits: self.commits.unwrap_or(0).max(least), witness };
        let writer = Writer::start(Arc::clone(&self.database), Arc::clone(&self.seal), count)?;
        Ok(RedbStore { database: self.database, seal: self.seal, writer })
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

struct Checked {
    is_new: bool,
    commits: Option<u64>,
}

/// Writes the check row of a new file, or opens that of an old one, and reads how many commits it has seen.
fn check(database: &Database, seal: &SealKey) -> Kept<Checked> {
    let mut transaction = database.begin_write().map_err(Unavailable::new)?;
    transaction.set_two_phase_commit(true);
    let checked = {
        let mut table = transaction.open_table(ROWS).map_err(Unavailable::new)?;
        let row = |key: &[u8]| -> Kept<Option<Vec<u8>>> {
            let found = table.get(place(Table::Meta, key).as_slice()).map_err(Unavailable::new)?;
            Ok(found.map(|row| row.value().to_vec()))
        };
        match row(CHECK_KEY)? {
            Some(check) => {
                drop(seal.open(Table::Meta, CHECK_KEY, &check).map_err(|_| {
                    Unavailable::new(
                        "it is sealed under another master key; restore the key it was made with",
                    )
                })?);
                let commits = row(COMMITS)?.map(|row| seal.open(Table::Meta, COMMITS, &row)).transpose()?;
                let number = |row: Bytes| row.as_slice().try_into().map(u64::from_be_bytes);
                let commits = commits.map(number).transpose();
                let commits =
                    commits.map_err(|_| Unavailable::new("its count of commits has another form"))?;
                Checked { is_new: false, commits }
            }
            None if table.iter().map_err(Unavailable::new)?.next().is_some() => {
                return Err(Unavailable::new("it has rows and no check of its key: it is damaged"));
            }
            None => {
                let row = seal.seal(Table::Meta, CHECK_KEY, b"obol-authority 1")?;
                table
                    .insert(place(Table::Meta, CHECK_KEY).as_slice(), row.as_slice())
                    .map_err(Unavailable::new)?;
                Checked { is_new: true, commits: None }
            }
        }
    };
    transaction.commit().map_err(Unavailable::new)?;
    Ok(checked)
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
    rows: Sealing,
    names: Zeroizing<[u8; 32]>,
}

impl SealKey {
    fn context(table: Table, key: &[u8]) -> Vec<u8> {
        [CONTEXT, &[table as u8], key].concat()
    }

    fn seal(&self, table: Table, key: &[u8], row: &[u8]) -> Kept<Vec<u8>> {
        self.rows.seal(&Self::context(table, key), row).map_err(Unavailable::new)
    }

    fn open(&self, table: Table, key: &[u8], row: &[u8]) -> Kept<Bytes> {
        self.rows
            .open(&Self::context(table, key), row)
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
