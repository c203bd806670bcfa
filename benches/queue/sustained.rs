//! The whole way through the disk: each token stored durably, claimed durably, handed out once.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use obol_benches::rows::{Row, Target, Unit};
use obol_queue::StorageBackend;
use redb::backends::FileBackend;

use crate::peers::{redb_peer, redis, sqlite};
use crate::store::{self, BATCH};

/// Not measured: the demand has to be noticed first.
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(4);
/// Rounds of ours and redb in turn; the median counts.
const ROUNDS: usize = 3;
/// Enough that the writer always finds a whole group.
const MAX_READY: usize = 16_384;
const MAX_DEPTH: usize = 65_536;
/// How long a draw waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file that counts how often it was made durable.
#[derive(Debug)]
struct Counting {
    file: FileBackend,
    syncs: Arc<AtomicU64>,
}

impl StorageBackend for Counting {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<()> {
        self.file.close()
    }
}

fn file(path: &Path) -> FileBackend {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    FileBackend::new(options.open(path).expect("a file")).expect("a file of our own")
}

/// What the queue did.
struct Ours {
    tokens_per_second: f64,
    /// Batches stored, and as many claimed, with each durable commit.
    batches_per_commit: u64,
    /// Batches on the disk at the end.
    waiting: u64,
}

fn ours(folder: &Path) -> Ours {
    let syncs = Arc::new(AtomicU64::new(0));
    let database = Counting { file: file(&folder.join("tokens.redb")), syncs: Arc::clone(&syncs) };
    let keys = file(&folder.join("tokens.redb.keys"));
    let queue = store::builder()
        .max_ready(MAX_READY)
        .max_depth(MAX_DEPTH)
        .open_with(database, keys, store::master_key())
        .expect("a queue");
    store::provision(&queue, 7, &store::names(&["search"]));
    let draw_for = |time: Duration| {
        let (start, mut drawn) = (Instant::now(), 0);
        while start.elapsed() < time {
            for _ in 0..BATCH {
                drop(queue.dequeue_within("search", PATIENCE).expect("a token"));
            }
            drawn += BATCH as u64;
        }
        (drawn, start.elapsed())
    };
    draw_for(WARM_UP);
    // What is waiting already was stored before: only what is stored as well while it is drawn counts.
    let (before, syncs_before) =
        (store::stored(&queue) + store::ready(&queue), syncs.load(Ordering::Relaxed));
    let (drawn, took) = draw_for(MEASURED);
    let (after, syncs_after) = (store::stored(&queue) + store::ready(&queue), syncs.load(Ordering::Relaxed));
    let stored = (drawn + after).saturating_sub(before);
    let whole_way = drawn.min(stored);
    // A two-phase commit makes the file durable twice.
    let commits = ((syncs_after - syncs_before) / 2).max(1);
    Ours {
        tokens_per_second: store::per_second(whole_way, took),
        batches_per_commit: (whole_way / BATCH as u64).div_ceil(commits).max(1),
        waiting: store::stored(&queue) / BATCH as u64,
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

pub(crate) fn run() {
    let (mut own, mut redb, mut group) = (Vec::new(), Vec::new(), 1);
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = ours(folder.path());
        group = ours.batches_per_commit;
        own.push(ours.tokens_per_second);
        let peer = folder.path().join("peer.redb");
        redb.push(redb_peer::store_and_claim(&peer, group, ours.waiting, MEASURED));
    }
    let own = median(own);
    let row = |beside: &str| {
        let what = format!(
            "store and claim durably, 1 consumer, batches of {BATCH} (about {group} a commit), vs {beside}"
        );
        Row::new("queue", what, Unit::PerSecond, own)
    };
    row("redb itself")
        .beside("same bytes, same batches, as many waiting, two-phase", median(redb))
        .wants(Target::RatioAtLeast(0.8))
        .record();
    if let Some(popped) = redis::lpop_always() {
        row("Redis").beside("LPOP, appendfsync always", popped).wants(Target::RatioAtLeast(50.0)).record();
    }
    let deleted = sqlite::delete_returning_full();
    row("SQLite").beside("DELETE … RETURNING, WAL, FULL", deleted).wants(Target::RatioAtLeast(50.0)).record();
}
