//! redb itself, with the queue's bytes, batches and durability, and nothing else around it.

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use redb::{Database, Durability, ReadableTable, TableDefinition};

use crate::store::{self, BATCH, TOKEN_BYTES};

const BATCHES: TableDefinition<(u64, u64, u64), &[u8]> = TableDefinition::new("batches");
/// What the queue adds to the tokens of a batch: header, nonce, tag, issue time, and a length for each.
const OVERHEAD_BYTES: usize = 18 + 28 + 8 + 2 * BATCH;
/// The queue's own page cache.
const CACHE_BYTES: usize = 16 << 20;
/// Not measured.
const WARM_UP_COMMITS: u64 = 20;

fn open(path: &Path) -> Database {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.create(path).expect("a database")
}

/// One durable commit as the queue makes it.
fn commit(db: &Database, change: impl FnOnce(&mut redb::Table<'_, (u64, u64, u64), &'static [u8]>)) {
    let mut txn = db.begin_write().expect("a transaction");
    txn.set_durability(Durability::Immediate).expect("durable");
    txn.set_two_phase_commit(true);
    {
        let mut table = txn.open_table(BATCHES).expect("a table");
        change(&mut table);
    }
    txn.commit().expect("committed");
}

/// Stores so many batches with each commit and takes as many out, oldest first, while about `waiting` batches wait in
/// between; tokens a second.
pub(crate) fn store_and_claim(path: &Path, batches: u64, waiting: u64, time: Duration) -> f64 {
    let db = open(path);
    let value = vec![0x5A; OVERHEAD_BYTES + BATCH * TOKEN_BYTES];
    let (mut first, mut next) = (0, 0);
    let mut step = |takes: bool| {
        commit(&db, |table| {
            for _ in 0..batches {
                table.insert((7, 60, next), value.as_slice()).expect("stored");
                next += 1;
            }
            for _ in 0..if takes { batches } else { 0 } {
                let taken = table
                    .range((7, 0, 0)..)
                    .expect("a range")
                    .next()
                    .map(|row| row.map(|(key, row)| (key.value(), row.value().to_vec())));
                let (key, row) = taken.expect("a row").expect("readable");
                core::hint::black_box(row);
                table.remove(key).expect("removed");
                first += 1;
            }
        });
    };
    (0..waiting.div_ceil(batches).max(1)).for_each(|_| step(false));
    (0..WARM_UP_COMMITS).for_each(|_| step(true));
    let (start, mut commits) = (Instant::now(), 0);
    while start.elapsed() < time {
        step(true);
        commits += 1;
    }
    store::per_second(commits * batches * BATCH as u64, start.elapsed())
}

/// A database to time single durable commits in, each of which changes one small value.
pub(crate) struct Single {
    db: Database,
    number: u64,
}

impl Single {
    pub(crate) fn open(path: &Path) -> Self {
        let mut single = Self { db: open(path), number: 0 };
        for _ in 0..WARM_UP_COMMITS {
            single.commit();
        }
        single
    }

    pub(crate) fn commit(&mut self) -> Duration {
        self.number += 1;
        let value = self.number.to_be_bytes();
        let start = Instant::now();
        commit(&self.db, |table| {
            table.insert((0, 0, 0), value.as_slice()).expect("stored");
        });
        start.elapsed()
    }
}
