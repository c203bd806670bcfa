//! How long one draw takes while everything else goes on: minting for real, claiming, flushing.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use obol_benches::rows::{Row, Target, Unit};
use obol_queue::{DequeueError, FlushScope, Queue};

use crate::store;

const MEASURED: Duration = Duration::from_secs(10);
/// Between two draws of each tool: a rate that one core mints for beside everything else.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two flushes, of the one tool and the other in turn.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// What p99 must stay below, in nanoseconds.
const TARGET: f64 = 50_000.0;

pub(crate) fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    // Real tokens: minting is what competes for the processor.
    let queue = store::open(Queue::builder().max_ready(1_024).max_depth(20_000), folder.path());
    store::provision(&queue, 7, &store::names(&["search", "pay"]));
    let done = AtomicBool::new(false);
    let (mut times, outcomes) = std::thread::scope(|scope| {
        scope.spawn(|| flush_now_and_then(&queue, &done));
        let measured = draw(&queue);
        done.store(true, Ordering::SeqCst);
        measured
    });
    times.sort_unstable();
    let flushes = outcomes.get("empty").copied().unwrap_or_default();
    let what = |name: &str| {
        format!(
            "dequeue {name} while minting, claiming and flushing ({} draws, {flushes} found none)",
            times.len()
        )
    };
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let row =
            Row::new("queue", what(name), Unit::Nanoseconds, store::nanos(store::percentile(&times, share)));
        if name == "p99" { row.wants(Target::AtMost(TARGET)).record() } else { row.record() }
    }
}

/// Draws at a steady pace; the time of each draw, whatever came of it, and how often what did.
fn draw(queue: &Queue) -> (Vec<Duration>, BTreeMap<&'static str, u64>) {
    let (mut times, mut outcomes) = (Vec::new(), BTreeMap::new());
    let start = Instant::now();
    while start.elapsed() < MEASURED {
        let before = Instant::now();
        let drawn = queue.dequeue("search");
        times.push(before.elapsed());
        let outcome = match &drawn {
            Ok(_) => "token",
            Err(DequeueError::Empty { .. }) => "empty",
            Err(_) => "refused",
        };
        *outcomes.entry(outcome).or_default() += 1;
        drop(drawn);
        let _none_is_fine = queue.dequeue("pay");
        std::thread::sleep(PAUSE);
    }
    // A draw that finds nothing right after a flush counts as well, but what is measured is handing out.
    let drawn = outcomes.get("token").copied().unwrap_or_default();
    assert!(4 * drawn > times.len() as u64, "mostly nothing was there to draw: {outcomes:?}");
    assert!(!outcomes.contains_key("refused"), "{outcomes:?}");
    (times, outcomes)
}

fn flush_now_and_then(queue: &Queue, done: &AtomicBool) {
    for number in 0_u64.. {
        std::thread::sleep(FLUSH_EVERY);
        if done.load(Ordering::SeqCst) {
            return;
        }
        let tool = if number % 4 == 3 { "search" } else { "pay" };
        queue.flush(&FlushScope::Tool(tool.to_owned()), "benchmark").expect("flushed");
    }
}
