//! The queue against a disk that loses power, fails and decays.
//!
//! `disk` simulates the disk, `ledger` is the checker: it knows what was handed out and acknowledged, and finds every
//! broken promise. `life` lets processes work on the disk and lose power. Each property has a module of its own below.
//!
//! `OBOL_SOAK_CRASHES=1000000` asks for that many power cuts, `OBOL_SOAK_FLIPS` for that many bit flips, and
//! `OBOL_CRASH_SEED` begins with the seed that a failure, or the last line of progress, has printed. A seed repeats what is
//! done and what survives; how the queue's threads meet the power cut is up to the machine, so that a failure may need
//! its seed run some hundred times: `OBOL_CRASH_REPEAT=500 OBOL_SOAK_CRASHES=1`.

mod bit_flips;
mod controls;
mod disk;
mod every_operation;
mod failing_disk;
mod ledger;
mod life;
mod random_crashes;

use core::time::Duration;

/// Where the clock stands when a store begins its life, in Unix seconds.
const START: u64 = 1_800_000_000;
/// How long a draw waits before the queue counts as stuck: long, because a soak may share its machine.
const PATIENCE: Duration = Duration::from_secs(60);
const TOOLS: [&str; 3] = ["search", "pay", "read"];
/// Tokens in memory for each tool: few, so that most of what is drawn comes from the disk.
const LIMIT_READY: usize = 4;
/// Tokens for each tool, on disk too: few, so that the time goes into power cuts and not into minting.
const LIMIT_DEPTH: usize = 8;
/// The same while a store is filled to start from.
const FILLED_DEPTH: usize = 160;
/// What may be ready at most.
const MOST_READY: u64 = LIMIT_READY as u64;

/// How many stores are worked on at the same time.
fn threads() -> u64 {
    std::thread::available_parallelism().map_or(16, |cores| 8 * cores.get() as u64)
}

/// Runs the same work on many threads: most of the time a store waits for one of its own threads to wake up.
fn in_parallel(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(&work)).collect();
        for worker in workers {
            // The panic of the first that failed says what is broken.
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
