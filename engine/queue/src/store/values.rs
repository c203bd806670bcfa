//! The single values of a store, each under a name of its own.
//!
//! How a value is kept is a matter of its type: what is [`Sealed`] is readable with the master key only, and bound to its
//! name; a [`Counter`] is sealed and only rises; what is [`Clear`] can be read by anybody, and `keys/seal.rs` says why it may.
//! All of them are written when the store is created, so one that is missing is damage and never a default.

use redb::{ReadableTable, Table, TableDefinition};
use zeroize::Zeroizing;

use super::{Policy, StoreError};
use crate::keys::{FORMAT_VERSION, SealingKey, StoreId};

pub(crate) const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// A value that anybody may read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clear(&'static str);

/// A value that opens with the master key only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed(&'static str);

/// A sealed number that never falls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter(Sealed);

pub(crate) const FORMAT: Clear = Clear("format");
pub(crate) const STORE_ID: Clear = Clear("store_id");
/// A known text: tells a wrong master key from damage.
pub(crate) const CHECK: Sealed = Sealed("check");
/// How often the store was opened. Sequence numbers and nonces hang on it.
pub(crate) const BOOTS: Counter = Counter(Sealed("boots"));
/// The latest time seen, in Unix seconds. Falls when the clock is set back.
pub(crate) const LATEST_TIME: Sealed = Sealed("latest_time");
/// The number of the next partition.
pub(crate) const NEXT_PARTITION: Counter = Counter(Sealed("next_partition"));
/// What is denied, and the policy's epoch.
pub(crate) const POLICY: Sealed = Sealed("policy");
/// Whatever the embedder wants to be remembered.
pub(crate) const NOTE: Sealed = Sealed("note");

/// What [`CHECK`] holds.
pub(crate) const CHECK_TEXT: &[u8] = b"obol token store";

/// The longest note, in bytes.
pub(crate) const MAX_NOTE_BYTES: usize = 256;

type Bytes = &'static [u8];

/// The values in one transaction.
pub(crate) struct Values<'k, T> {
    table: T,
    key: &'k SealingKey,
}

impl<'k, T: ReadableTable<&'static str, Bytes>> Values<'k, T> {
    pub(crate) fn new(table: T, key: &'k SealingKey) -> Self {
        Self { table, key }
    }

    /// Reads a sealed value.
    pub(crate) fn get(&self, Sealed(name): Sealed) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let row = self.table.get(name)?.ok_or_else(|| damaged(name))?;
        self.key.open(name.as_bytes(), row.value()).ok_or_else(|| damaged(name))
    }

    /// Reads a sealed number.
    pub(crate) fn number(&self, value: Sealed) -> Result<u64, StoreError> {
        let bytes = self.get(value)?;
        bytes.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| damaged(value.0))
    }

    /// Reads a counter.
    pub(crate) fn count(&self, Counter(value): Counter) -> Result<u64, StoreError> {
        self.number(value)
    }

    /// Reads what may be denied to all.
    pub(crate) fn policy(&self) -> Result<Policy, StoreError> {
        // A policy that cannot be read must not turn into "everything is allowed".
        serde_json::from_slice(&self.get(POLICY)?).map_err(|_| damaged(POLICY.0))
    }
}

impl Values<'_, Table<'_, &'static str, Bytes>> {
    /// Writes what a new store begins with.
    pub(crate) fn begin(&mut self, store_id: &StoreId) -> Result<(), StoreError> {
        self.table.insert(FORMAT.0, FORMAT_VERSION.to_be_bytes().as_slice())?;
        self.table.insert(STORE_ID.0, store_id.as_slice())?;
        self.put(CHECK, CHECK_TEXT)?;
        for number in [BOOTS.0, NEXT_PARTITION.0, LATEST_TIME] {
            self.put(number, &0_u64.to_be_bytes())?;
        }
        self.write_policy(&Policy::default())?;
        self.put(NOTE, &[])
    }

    /// Writes a sealed value.
    pub(crate) fn put(&mut self, Sealed(name): Sealed, value: &[u8]) -> Result<(), StoreError> {
        let sealed = self.key.seal(name.as_bytes(), value)?;
        self.table.insert(name, sealed.as_slice())?;
        Ok(())
    }

    /// Raises a counter; one that is higher already stays.
    pub(crate) fn raise(&mut self, counter: Counter, to: u64) -> Result<(), StoreError> {
        if to > self.count(counter)? { self.put(counter.0, &to.to_be_bytes()) } else { Ok(()) }
    }

    /// Writes the policy; its epoch does not fall.
    pub(crate) fn put_policy(&mut self, policy: Policy) -> Result<(), StoreError> {
        let epoch = policy.epoch.max(self.policy()?.epoch);
        self.write_policy(&Policy { epoch, ..policy })
    }

    fn write_policy(&mut self, policy: &Policy) -> Result<(), StoreError> {
        let text = serde_json::to_vec(policy).map_err(|error| StoreError::Other(error.to_string()))?;
        self.put(POLICY, &text)
    }
}

/// Reads a value in the clear; `None` where it was never written.
pub(crate) fn read_clear(
    table: &impl ReadableTable<&'static str, Bytes>,
    Clear(name): Clear,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(name)?.map(|value| value.value().to_vec()))
}

fn damaged(name: &str) -> StoreError {
    StoreError::Corrupted(format!("the value `{name}` is missing or does not open"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase};

    fn key(byte: u8) -> SealingKey {
        SealingKey::for_values(&MasterKey::from_bytes([byte; 32]), &[0; 16])
    }

    fn store() -> Database {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        change(&db, |values| values.begin(&[0; 16]).unwrap());
        db
    }

    fn change(db: &Database, act: impl FnOnce(&mut Values<'_, Table<'_, &'static str, Bytes>>)) {
        let txn = db.begin_write().unwrap();
        let key = key(1);
        act(&mut Values::new(txn.open_table(TABLE).unwrap(), &key));
        txn.commit().unwrap();
    }

    #[test]
    fn counters_and_the_policys_epoch_never_fall() {
        let db = store();
        for to in [7, 3, 0, 9, 8] {
            change(&db, |values| values.raise(BOOTS, to).unwrap());
            change(&db, |values| values.put_policy(Policy { epoch: to, ..Policy::default() }).unwrap());
        }
        change(&db, |values| {
            assert_eq!((values.count(BOOTS).unwrap(), values.policy().unwrap().epoch), (9, 9));
        });
    }

    #[test]
    fn a_value_that_is_missing_moved_or_under_another_key_is_damage_and_never_a_default() {
        let db = store();
        let other = key(2);
        change(&db, |values| {
            let taken = values.table.remove(POLICY.0).unwrap().unwrap().value().to_vec();
            assert!(matches!(values.policy(), Err(StoreError::Corrupted(_))));
            values.table.insert(NOTE.0, taken.as_slice()).unwrap();
            assert!(matches!(values.get(NOTE), Err(StoreError::Corrupted(_))));
            values.table.insert(POLICY.0, taken.as_slice()).unwrap();
            assert!(values.policy().is_ok());
        });
        let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
        assert!(matches!(Values::new(table, &other).policy(), Err(StoreError::Corrupted(_))));
    }

    #[test]
    fn all_but_the_listed_values_are_sealed() {
        let db = store();
        let policy =
            Policy { epoch: 1, denied_tools: ["delete-user".to_owned()].into(), ..Policy::default() };
        change(&db, |values| values.put_policy(policy).unwrap());
        let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
        let clear = [FORMAT.0, STORE_ID.0];
        let key = key(1);
        for row in table.iter().unwrap() {
            let (name, value) = row.unwrap();
            let opens = key.open(name.value().as_bytes(), value.value()).is_some();
            assert_ne!(opens, clear.contains(&name.value()), "{}", name.value());
        }
    }
}
