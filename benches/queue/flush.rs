//! A flush, however much waits; and what waits takes no memory.

use core::time::Duration;
use std::time::Instant;

use obol_benches::rows::{Row, Target, Unit};
use obol_queue::{FlushScope, Queue};

use crate::peers::redb_peer;
use crate::store;

/// Tokens that wait, and how many flushes are timed.
const SIZES: [(u64, usize); 3] = [(10, 11), (10_000, 11), (1_000_000, 3)];
/// What may be ready in memory.
const MAX_READY: usize = 256;
/// Tokens on the disk when memory is first looked at: enough that caches are warm.
const BASELINE: u64 = 100_000;
/// Enough commits for everything that is left over from a flush to be cleared away.
const CLEARING: usize = 64;

/// The share of the samples that the sizes are compared at: to some syncs a file system's journal adds a tick of the
/// kernel, several times what all the rest takes.
const UNDISTURBED: f64 = 0.25;

pub(crate) fn run() {
    let sizes: Vec<(u64, Times)> =
        SIZES.iter().map(|(tokens, times)| (*tokens, flush(*tokens, *times))).collect();
    for (tokens, times) in &sizes {
        let flush = store::nanos(store::percentile(&times.flush, 0.5));
        let commit = store::nanos(store::percentile(&times.commit, 0.5));
        let row = Row::new("queue", format!("flush with {tokens} tokens queued"), Unit::Nanoseconds, flush);
        row.beside("one durable commit of redb, in turn", commit).wants(Target::RatioAtMost(3.0)).record();
    }
    let undisturbed =
        sizes.iter().map(|(_, times)| store::nanos(store::percentile(&times.flush, UNDISTURBED)));
    let of = |pick: fn(f64, f64) -> f64| undisturbed.clone().reduce(pick).unwrap_or_default();
    let what = "flush, the lower quartile of the slowest of these sizes";
    let row = Row::new("queue", what, Unit::Nanoseconds, of(f64::max));
    row.beside("of the fastest of these sizes", of(f64::min)).wants(Target::RatioAtMost(1.5)).record();
    memory();
}

/// What flushes took, and durable commits in a database beside it, each after the same rest; sorted.
struct Times {
    flush: Vec<Duration>,
    commit: Vec<Duration>,
}

/// A queue that keeps about so many tokens waiting, whatever the demand.
fn queue(folder: &std::path::Path, tokens: u64) -> Queue {
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    let batch = u16::try_from(tokens.min(store::BATCH)).unwrap_or(u16::MAX);
    let ready = tokens.min(MAX_READY);
    // A refill goes on to the full depth, ready tokens included; while it does, some are drawn.
    let depth = tokens + tokens / 20 + 2 * (ready + usize::from(batch));
    let queue = store::open(store::builder().batch(batch).max_ready(ready).max_depth(depth), folder);
    store::provision(&queue, 7, &store::names(&["search"]));
    queue
}

/// Times flushes with so many tokens waiting, and commits.
fn flush(tokens: u64, times: usize) -> Times {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = queue(folder.path(), tokens);
    let mut single = redb_peer::Single::open(&folder.path().join("peer.redb"));
    let mut taken = Times { flush: Vec::new(), commit: Vec::new() };
    for number in 0..times {
        store::fill(&queue, "search", tokens);
        store::settle(&queue);
        // In turn, so that neither always finds what the other left behind.
        if number % 2 == 0 {
            taken.commit.push(single.commit());
            store::settle(&queue);
        }
        let start = Instant::now();
        queue.flush(&FlushScope::Tool("search".to_owned()), "benchmark").expect("flushed");
        taken.flush.push(start.elapsed());
        (0..CLEARING).for_each(|_| queue.sync().expect("durable"));
        if number % 2 == 1 {
            store::settle(&queue);
            taken.commit.push(single.commit());
        }
    }
    taken.flush.sort_unstable();
    taken.commit.sort_unstable();
    taken
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0
}

/// What a token costs in memory while it waits on the disk: from a tenth of a million to a million of them.
fn memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let queue = queue(folder.path(), 1_000_000);
    store::fill(&queue, "search", BASELINE);
    let (before, few) = (resident(), store::stored(&queue));
    store::fill(&queue, "search", 1_000_000);
    store::settle(&queue);
    let (after, many) = (resident(), store::stored(&queue));
    assert!(store::ready(&queue) <= MAX_READY as u64, "more is ready than configured");
    #[expect(clippy::cast_precision_loss, reason = "a measurement needs no 53rd bit")]
    let each = (after - before).max(0.0) / many.saturating_sub(few).max(1) as f64;
    let what =
        format!("memory for each token on the disk, {few} to {many} tokens, {MAX_READY} ready at most");
    // Less than a byte is what allocators round to.
    Row::new("queue", what, Unit::Bytes, each).wants(Target::AtMost(1.0)).record();
}
