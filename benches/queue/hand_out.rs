//! Handing out, in process. The queue is filled outside the measured time, and at rest within it: what a draw costs a
//! caller, by name and through a tool that was looked up once.

use core::hint::black_box;
use core::time::Duration;
use std::sync::Barrier;
use std::time::Instant;

use criterion::Criterion;
use crossbeam::queue::ArrayQueue;
use obol_benches::rows::{Row, Target, Unit, criterion_median};
use obol_queue::{Queue, Token};

use crate::store::{self, TOKEN_BYTES};

/// Tokens that wait in memory before a measured run.
const READY: u16 = 20_000;

pub(crate) fn run() {
    let mut criterion = Criterion::default();
    let folder = tempfile::tempdir().expect("a folder");
    let size = usize::from(READY);
    // One batch fills the memory: how much is kept ready otherwise follows the demand.
    let queue = store::open(store::builder().batch(READY).max_ready(size).max_depth(2 * size), folder.path());
    store::provision(&queue, 7, &store::names(&["search"]));
    let mut group = criterion.benchmark_group("dequeue");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for threads in [1, 2] {
        group.bench_function(by_name(threads), |bencher| {
            let draw = || queue.dequeue("search").expect("a token");
            bencher.iter_custom(|iterations| drawn(&queue, iterations, threads, draw));
        });
        let tool = queue.tool("search").expect("a tool");
        group.bench_function(looked_up(threads), |bencher| {
            let draw = || tool.dequeue().expect("a token");
            bencher.iter_custom(|iterations| drawn(&queue, iterations, threads, draw));
        });
        group.bench_function(peer(threads), |bencher| {
            bencher.iter_custom(|iterations| pop(iterations, threads));
        });
    }
    group.finish();
    for threads in [1, 2] {
        let median = |name: &str| criterion_median("dequeue", name);
        let Some(peer) = median(&peer(threads)) else { continue };
        for (how, ours) in [("by name", by_name(threads)), ("from a tool looked up", looked_up(threads))] {
            let Some(ours) = median(&ours) else { continue };
            let what = format!("dequeue in process {how}, {threads} threads");
            let row = Row::new("queue", what, Unit::Nanoseconds, ours).wants(Target::RatioAtMost(3.0));
            row.beside("pop a boxed slice from an ArrayQueue and free it", peer).record();
        }
    }
}

fn by_name(threads: u64) -> String {
    format!("queue, {threads} threads")
}

fn looked_up(threads: u64) -> String {
    format!("tool, {threads} threads")
}

fn peer(threads: u64) -> String {
    format!("ArrayQueue, {threads} threads")
}

/// Draws that many tokens in runs of what is ready; the time of the draws alone, each thread's share.
fn drawn(queue: &Queue, iterations: u64, threads: u64, draw: impl Fn() -> Token + Sync) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let run = left.min(u64::from(READY) / 2);
        while store::ready(queue) < run {
            // What is left makes room for the next batch, and an empty queue asks for it.
            while queue.dequeue("search").is_ok() {}
            store::wait_for("tokens are ready", || store::ready(queue) >= run);
        }
        // What is minted ahead and stored meanwhile would be measured as well: there are more threads than processors.
        store::calm(queue);
        spent += timed(threads, run, || {
            black_box(draw());
        });
        left -= run;
    }
    spent
}

/// As [`drawn`]: the boxes are allocated by another thread, in one go, as a batch's tokens are.
fn pop(iterations: u64, threads: u64) -> Duration {
    let ring = ArrayQueue::new(usize::from(READY));
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let run = left.min(u64::from(READY) / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..run {
                    let _full = ring.push(vec![7_u8; TOKEN_BYTES].into_boxed_slice());
                }
            });
        });
        spent += timed(threads, run, || {
            black_box(ring.pop().expect("a box"));
        });
        left -= run;
    }
    spent
}

/// Does something `run` times, spread over threads that start together; the time of the slowest. Starting them is not
/// measured.
fn timed(threads: u64, run: u64, act: impl Fn() + Sync) -> Duration {
    let gate = Barrier::new(usize::try_from(threads).unwrap_or(1));
    let work = |share: u64| {
        gate.wait();
        let start = Instant::now();
        (0..share).for_each(|_| act());
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let share = |thread| run / threads + u64::from(thread < run % threads);
        let others: Vec<_> = (1..threads)
            .map(|thread| {
                let (work, share) = (&work, share(thread));
                scope.spawn(move || work(share))
            })
            .collect();
        let own = work(share(0));
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, Duration::max)
    })
}
