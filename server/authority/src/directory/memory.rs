//! A directory in memory: for tests, for `obol dev`, and as the model that every other store is compared with.

use core::ops::Bound;
use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::tables::{Bytes, Kept, Rows, Store, Table, Transaction};

/// Rows in memory. Everything ends with the process.
#[derive(Default)]
pub struct MemoryStore(RwLock<Tree>);

#[derive(Default)]
struct Tree(BTreeMap<(Table, Vec<u8>), Bytes>);

impl Rows for Tree {
    fn name_key(&self) -> &[u8; 32] {
        // Nobody reads it from outside.
        &[0; 32]
    }

    fn get(&self, table: Table, key: &[u8]) -> Kept<Option<Bytes>> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Kept<Vec<(Vec<u8>, Bytes)>> {
        let from = Bound::Included((table, from.to_vec()));
        let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded((table, to.to_vec())));
        let rows = self.0.range((from, end)).take_while(|((found, _), _)| *found == table).take(limit);
        Ok(rows.map(|((_, key), row)| (key.clone(), row.clone())).collect())
    }
}

impl Store for MemoryStore {
    fn write<T, F>(&self, act: F) -> Kept<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Kept<T> + Send + 'static,
    {
        let mut tree = self.0.write();
        let mut transaction = Transaction::new(&*tree);
        let done = act(&mut transaction)?;
        for (place, row) in transaction.into_changes() {
            match row {
                Some(row) => tree.0.insert(place, row),
                None => tree.0.remove(&place),
            };
        }
        Ok(done)
    }

    fn read<T>(&self, act: impl FnOnce(&Transaction<'_>) -> Kept<T>) -> Kept<T> {
        act(&Transaction::new(&*self.0.read()))
    }

    fn health(&self) -> Kept<()> {
        Ok(())
    }
}

impl core::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MemoryStore({} rows)", self.0.read().0.len())
    }
}
