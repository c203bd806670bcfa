//! The rows: what redb holds, and the one way to change it.
//!
//! Everything is written through [`Store::commit`], one durable transaction for any number of changes. It gives
//! back a [`Committed`], without which no batch can become stored or claimed.
//!
//! **Commit mode.** Two-phase, durable at once. redb's one-phase commit trusts a non-cryptographic checksum to tell
//! a whole commit from a torn one; two-phase needs no such trust and costs one more fsync, which group commit
//! spreads over all that is pending. The file is checked as a whole when it is opened, so that damage is an error
//! and not a surprise.

mod batch;
mod policy;
mod session_row;
pub(crate) mod values;
mod witness;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
};

use self::batch::Row;
pub(crate) use self::batch::{
    BatchError, BatchHeader, BatchKey, ClaimedBatch, Draft, MintedBatch, OpenBatch, TokenBytes,
    UnconfirmedClaim,
};
pub use self::policy::Hold;
pub(crate) use self::policy::Policy;
pub(crate) use self::session_row::{PartitionPlace, SealedSession, SessionHeader};
use self::values::{Clear, Values};
pub(crate) use self::witness::Witnessed;
use crate::keys::{FORMAT_VERSION, NoRandomness, SealingKey, StoreId};

const SESSIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("sessions");
/// (partition, expires_at, sequence) → [`BatchHeader`], sealed tokens.
const BATCHES: TableDefinition<(u64, u64, u64), &[u8]> = TableDefinition::new("batches");

/// redb's page cache. Rows are read once, when they are claimed, and soon after they were written; but all that one commit
/// writes has to fit, or it is written early and read back for its checksums.
const CACHE_BYTES: usize = 16 << 20;
/// The most rows one transaction removes while tidying up, so that it never holds up a claim for long.
pub(crate) const MAX_REMOVED_ROWS: usize = 4096;

/// Proof that a transaction is durable. Only [`Store::commit`] makes one.
pub(crate) struct Committed(());

/// What went wrong in the database.
#[derive(Debug)]
pub(crate) enum StoreError {
    InUse,
    NotAStore,
    Version(u32),
    Corrupted(String),
    Io(std::io::Error),
    Other(String),
}

impl StoreError {
    /// redb panicked, as it can on a damaged file.
    pub(crate) fn gave_up() -> Self {
        Self::Other("the database gave up on damaged data".to_owned())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("the database is open in another process"),
            Self::NotAStore => f.write_str("the file is not a token store"),
            Self::Version(found) => write!(f, "the database has format {found}"),
            Self::Corrupted(what) => write!(f, "the database is damaged: {what}"),
            Self::Io(error) => write!(f, "the database could not be read or written: {error}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Self::NotAStore,
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::Corrupted(what) => Self::Corrupted(what),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Other(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(
    DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CompactionError,
    redb::SetDurabilityError
);

impl From<NoRandomness> for StoreError {
    fn from(NoRandomness: NoRandomness) -> Self {
        Self::Other("the system's random number generator failed".to_owned())
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// What redb writes when it creates a file: the header, and at the very end the signature in its first bytes.
const REDB_SIGNATURE_BYTES: usize = 9;
const REDB_HEADER_BYTES: usize = 320;
/// Where the header names the page size, which is this.
const REDB_PAGE_SIZE: (usize, [u8; 4]) = (12, 4096_u32.to_le_bytes());
/// A file longer than this was not just created.
const MAX_UNFINISHED_BYTES: u64 = 4 << 20;

/// Whether the file is what a power cut leaves of a database that was just being created: nothing but zeros, and
/// perhaps a header without redb's signature, and our witness. redb itself refuses such a file for ever.
pub(crate) fn is_unfinished(file: &dyn StorageBackend) -> Result<bool, StoreError> {
    let length = file.len()?;
    if length == 0 || length > MAX_UNFINISHED_BYTES {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default().min(REDB_SIGNATURE_BYTES)];
    file.read(0, &mut bytes)?;
    if bytes.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    bytes.resize(usize::try_from(length).unwrap_or_default(), 0);
    file.read(0, &mut bytes)?;
    if let Some(witness) = bytes.get_mut(witness::PLACE) {
        witness.fill(0);
    }
    let (header, rest) = bytes.split_at(bytes.len().min(REDB_HEADER_BYTES));
    let (place, page_size) = REDB_PAGE_SIZE;
    let is_header = header.iter().all(|byte| *byte == 0)
        || header.get(place..).is_some_and(|header| header.starts_with(&page_size));
    Ok(is_header && rest.iter().all(|byte| *byte == 0))
}

/// Empties a file, durably.
pub(crate) fn clear(file: &dyn StorageBackend) -> Result<(), StoreError> {
    file.set_len(0)?;
    file.sync_data()?;
    Ok(())
}

/// A file longer than this many times its rows, and longer than [`MIN_COMPACT_BYTES`], is compacted.
const MOST_FILE_TO_ROWS: u64 = 3;
/// A file up to this long is never compacted.
const MIN_COMPACT_BYTES: u64 = 16 << 20;
/// The most bytes of rows with which the file is compacted while the queue runs: what moves them holds up the writer.
const MAX_ROWS_TO_COMPACT: u64 = 32 << 20;

/// An open database of which nothing was read but what stands in the clear.
#[derive(Debug)]
pub(crate) struct LockedStore {
    db: Database,
    length: Arc<AtomicU64>,
}

/// The open database.
pub(crate) struct Store {
    db: Database,
    /// What the single values are sealed under.
    key: SealingKey,
    /// Bytes of the file.
    length: Arc<AtomicU64>,
    /// Bytes of all batches.
    rows: AtomicU64,
}

/// When the file may be compacted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CompactWhen {
    /// Nobody waits yet: whatever it takes. That is bounded by the rows, a part of the file that was just read as a whole.
    Opening,
    /// The writer has nothing to do, and should be back soon.
    Idle,
}

/// The table of values as a reader sees it.
type ValueTable = redb::ReadOnlyTable<&'static str, &'static [u8]>;

/// What stands in the store when it is opened.
pub(crate) struct Contents {
    pub(crate) sessions: Vec<(u64, Vec<u8>)>,
    pub(crate) batches: Vec<(BatchKey, BatchHeader)>,
}

impl LockedStore {
    /// Opens a database, or creates one in an empty file.
    pub(crate) fn open(file: Witnessed) -> Result<Self, StoreError> {
        let length = file.length();
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(file)?;
        Ok(Self { db, length })
    }

    /// Whether the database holds no store yet: creation did not get as far as its first commit.
    pub(crate) fn is_blank(&self) -> Result<bool, StoreError> {
        let txn = self.db.begin_read()?;
        Ok(txn.list_tables()?.next().is_none())
    }

    /// Checks the format; anything that is not exactly ours is refused before it is touched.
    pub(crate) fn check_format(&self) -> Result<(), StoreError> {
        let format = self.clear(values::FORMAT)?.ok_or(StoreError::NotAStore)?;
        match <[u8; 4]>::try_from(format.as_slice()).map(u32::from_be_bytes) {
            Ok(FORMAT_VERSION) => Ok(()),
            Ok(other) => Err(StoreError::Version(other)),
            Err(_) => Err(StoreError::NotAStore),
        }
    }

    /// Whether this is the database of the store with this id.
    pub(crate) fn is_of(&self, id: &StoreId) -> Result<bool, StoreError> {
        Ok(self.clear(values::STORE_ID)?.as_deref() == Some(id.as_slice()))
    }

    /// The store, with the key of its values.
    pub(crate) fn unlock(self, key: SealingKey) -> Store {
        Store { db: self.db, key, length: self.length, rows: AtomicU64::new(0) }
    }

    fn clear(&self, value: Clear) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.db.begin_read()?;
        match txn.open_table(values::TABLE) {
            Ok(table) => values::read_clear(&table, value),
            Err(redb::TableError::TableDoesNotExist(_) | redb::TableError::TableTypeMismatch { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Store {
    /// Gives room in the file back that is many times what its rows take: redb keeps a file at its peak. Tells whether
    /// it did.
    pub(crate) fn compact(&mut self, when: CompactWhen) -> Result<bool, StoreError> {
        let (length, rows) = (self.length.load(Ordering::Relaxed), self.rows.load(Ordering::Relaxed));
        let is_worth_it = length > MIN_COMPACT_BYTES.max(rows.saturating_mul(MOST_FILE_TO_ROWS));
        if !is_worth_it || (when == CompactWhen::Idle && rows > MAX_ROWS_TO_COMPACT) {
            return Ok(false);
        }
        self.db.compact()?;
        let now = self.length.load(Ordering::Relaxed);
        tracing::info!(before = length, now, rows, "the token store was compacted");
        Ok(true)
    }

    /// Writes what a new store begins with.
    pub(crate) fn begin(&self, store_id: &StoreId) -> Result<Committed, StoreError> {
        let ((), committed) = self.commit(|tables| tables.values.begin(store_id))?;
        Ok(committed)
    }

    /// Whether the values open: the master key is the one that they were sealed with.
    pub(crate) fn opens(&self) -> Result<bool, StoreError> {
        match self.read(|values| values.get(values::CHECK)) {
            Ok(text) => Ok(text.as_slice() == values::CHECK_TEXT),
            Err(StoreError::Corrupted(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads single values.
    pub(crate) fn read<R>(
        &self,
        act: impl FnOnce(&Values<'_, ValueTable>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let table = self.db.begin_read()?.open_table(values::TABLE)?;
        act(&Values::new(table, &self.key))
    }

    /// All session rows, and where all batches lie; the sealed tokens themselves are not read.
    pub(crate) fn contents(&self) -> Result<Contents, StoreError> {
        let txn = self.db.begin_read()?;
        let mut sessions = Vec::new();
        for row in txn.open_table(SESSIONS)?.iter()? {
            let (id, value) = row?;
            sessions.push((id.value(), value.value().to_vec()));
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for row in txn.open_table(BATCHES)?.iter()? {
            let (key, value) = row?;
            bytes += value.value().len() as u64;
            batches.push((batch_key(key.value()), BatchHeader::split(value.value()).0));
        }
        self.rows.store(bytes, Ordering::Relaxed);
        Ok(Contents { sessions, batches })
    }

    /// Applies changes in one durable transaction. On an error nothing of it was applied, or the store must not be
    /// used any more; the caller cannot tell which and stops.
    pub(crate) fn commit<R>(
        &self,
        changes: impl FnOnce(&mut Tables<'_>) -> Result<R, StoreError>,
    ) -> Result<(R, Committed), StoreError> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(redb::Durability::Immediate)?;
        txn.set_two_phase_commit(true);
        let (result, added, removed) = {
            let mut tables = Tables {
                values: Values::new(txn.open_table(values::TABLE)?, &self.key),
                sessions: txn.open_table(SESSIONS)?,
                batches: txn.open_table(BATCHES)?,
                added: 0,
                removed: 0,
            };
            let result = changes(&mut tables)?;
            (result, tables.added, tables.removed)
        };
        txn.commit()?;
        // Only one thread commits.
        let rows = self.rows.load(Ordering::Relaxed);
        self.rows.store((rows + added).saturating_sub(removed), Ordering::Relaxed);
        Ok((result, Committed(())))
    }
}

/// The tables inside one transaction.
pub(crate) struct Tables<'txn> {
    pub(crate) values: Values<'txn, Table<'txn, &'static str, &'static [u8]>>,
    sessions: Table<'txn, u64, &'static [u8]>,
    batches: Table<'txn, (u64, u64, u64), &'static [u8]>,
    /// Bytes of batches added and removed in this transaction.
    added: u64,
    removed: u64,
}

impl Tables<'_> {
    pub(crate) fn put_session(&mut self, id: u64, row: &[u8]) -> Result<(), StoreError> {
        self.sessions.insert(id, row)?;
        Ok(())
    }

    pub(crate) fn remove_session(&mut self, id: u64) -> Result<(), StoreError> {
        self.sessions.remove(id)?;
        Ok(())
    }

    pub(crate) fn put_batch(&mut self, batch: &MintedBatch) -> Result<(), StoreError> {
        let BatchKey { partition, expires_at, sequence } = batch.key;
        self.batches.insert((partition, expires_at, sequence), batch.value.as_slice())?;
        self.added += batch.value.len() as u64;
        Ok(())
    }

    fn remove_batch(&mut self, key: (u64, u64, u64)) -> Result<(), StoreError> {
        if let Some(value) = self.batches.remove(key)? {
            self.removed += value.value().len() as u64;
        }
        Ok(())
    }

    /// Takes the oldest batch of a partition that is alive and has at most `room` tokens. Dead ones are removed on the
    /// way, unopened, a bounded number of them.
    pub(crate) fn claim(
        &mut self,
        partition: u64,
        room: usize,
        is_dead: impl Fn(BatchKey, BatchHeader) -> Option<Death>,
    ) -> Result<Claimed, StoreError> {
        let mut claimed = Claimed::default();
        for _ in 0..MAX_REMOVED_ROWS {
            let found = {
                let mut rows = self.batches.range((partition, 0, 0)..=(partition, u64::MAX, u64::MAX))?;
                let Some(row) = rows.next() else { return Ok(claimed) };
                let (key, value) = row?;
                let key = batch_key(key.value());
                let (header, sealed) = BatchHeader::split(value.value());
                match is_dead(key, header) {
                    Some(death) => Err((key, header, death)),
                    None if usize::from(header.count) > room => {
                        claimed.too_large = header.count;
                        return Ok(claimed);
                    }
                    None => Ok(Row { key, header, sealed: sealed.into() }),
                }
            };
            let key = found.as_ref().map_or_else(|(key, ..)| *key, |row| row.key);
            self.remove_batch((key.partition, key.expires_at, key.sequence))?;
            match found {
                Ok(row) => {
                    claimed.batch = Some(UnconfirmedClaim::new(row));
                    return Ok(claimed);
                }
                Err((_, header, Death::Expired)) => claimed.expired += u64::from(header.count),
                Err((_, _, Death::Forgotten)) => {}
            }
        }
        Ok(claimed)
    }

    /// Removes the batches of a partition that end at or before `stale_at`, unopened; counts those `is_counted` picks.
    pub(crate) fn evict(
        &mut self,
        partition: u64,
        stale_at: u64,
        is_counted: impl Fn(BatchKey, BatchHeader) -> bool,
    ) -> Result<Removed, StoreError> {
        let end = (partition, stale_at, u64::MAX);
        self.remove_range((partition, 0, 0), end, |key, header| Some(is_counted(key, header)))
    }

    /// Removes the batches of a partition whose sequence is below `below`, unopened.
    pub(crate) fn discard(&mut self, partition: u64, below: u64) -> Result<Removed, StoreError> {
        let end = (partition, u64::MAX, u64::MAX);
        self.remove_range((partition, 0, 0), end, |key, _| (key.sequence < below).then_some(true))
    }

    /// Removes at most [`MAX_REMOVED_ROWS`] rows between two keys, both included: those for which `wanted` says whether
    /// they count.
    fn remove_range(
        &mut self,
        from: (u64, u64, u64),
        to: (u64, u64, u64),
        wanted: impl Fn(BatchKey, BatchHeader) -> Option<bool>,
    ) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let mut keys = Vec::new();
        for row in self.batches.range(from..=to)? {
            let (key, value) = row?;
            let (header, _) = BatchHeader::split(value.value());
            let Some(counts) = wanted(batch_key(key.value()), header) else { continue };
            if keys.len() == MAX_REMOVED_ROWS {
                removed.more = true;
                break;
            }
            keys.push(key.value());
            removed.tokens += if counts { u64::from(header.count) } else { 0 };
        }
        for key in keys {
            self.remove_batch(key)?;
        }
        Ok(removed)
    }
}

/// Why a batch is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// Too old.
    Expired,
    /// Flushed, or of an older policy: no longer among what is counted as stored.
    Forgotten,
}

/// What a claim found.
#[derive(Default)]
pub(crate) struct Claimed {
    pub(crate) batch: Option<UnconfirmedClaim>,
    /// Tokens that were removed on the way because they were too old.
    pub(crate) expired: u64,
    /// How many tokens the next batch has, if it has too many.
    pub(crate) too_large: u16,
}

/// What tidying up removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Removed {
    pub(crate) tokens: u64,
    /// Whether rows are left over for the next transaction.
    pub(crate) more: bool,
}

fn batch_key((partition, expires_at, sequence): (u64, u64, u64)) -> BatchKey {
    BatchKey { partition, expires_at, sequence }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;
    use redb::backends::InMemoryBackend;

    const ROW_BYTES: usize = 100_000;
    const ROWS: u64 = 400;

    fn batch(sequence: u64) -> MintedBatch {
        let key = BatchKey { partition: 1, expires_at: 9, sequence };
        MintedBatch { key, count: 1, value: vec![7; ROW_BYTES] }
    }

    #[test]
    fn a_file_far_longer_than_its_rows_is_compacted_and_keeps_them() {
        let file = Witnessed::new(Box::new(InMemoryBackend::new())).unwrap();
        let key = SealingKey::for_values(&MasterKey::from_bytes([9; 32]), &[0; 16]);
        let mut store = LockedStore::open(file).unwrap().unlock(key);
        for first in (0..ROWS).step_by(20) {
            store
                .commit(|tables| (first..first + 20).try_for_each(|number| tables.put_batch(&batch(number))))
                .unwrap();
        }
        assert_eq!(store.rows.load(Ordering::Relaxed), ROWS * ROW_BYTES as u64);
        assert!(!store.compact(CompactWhen::Opening).unwrap(), "there is nothing to gain");
        // The first in the file go, the last stay.
        store.commit(|tables| tables.discard(1, ROWS - 10)).unwrap();
        assert!(store.compact(CompactWhen::Idle).unwrap());
        let rows = store.rows.load(Ordering::Relaxed);
        assert_eq!(rows, 10 * ROW_BYTES as u64);
        let length = store.length.load(Ordering::Relaxed);
        assert!(length <= 4 * rows, "{length} bytes for {rows}");
        let left: Vec<u64> = store.contents().unwrap().batches.iter().map(|(key, _)| key.sequence).collect();
        assert_eq!(left, (ROWS - 10..ROWS).collect::<Vec<_>>());
        assert!(!store.compact(CompactWhen::Idle).unwrap(), "a small file is left alone");
    }
}
