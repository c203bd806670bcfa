//! Random work, random power cuts, again and again on what is left.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::life::{Life, Populated};
use super::{in_parallel, threads};
use crate::proof::setting;

/// Power cuts that one store lives through.
const LIVES: u64 = 12;
/// Power cuts in a run of the test suite.
const CRASHES: u64 = 5_000;
const PROGRESS: Duration = Duration::from_secs(30);

/// What a store's lives came to: how many tokens were handed out, or why it had to stop.
fn one_store(populated: &Populated, seed: u64) -> Result<usize, String> {
    let mut life =
        if seed.is_multiple_of(8) { Life::on_empty_disk(seed) } else { Life::begin(populated, seed) };
    let before = life.ledger.tokens();
    let lived = (0..LIVES).try_for_each(|_| life.live_and_lose_power()).and_then(|()| life.end_well());
    match lived {
        Ok(()) => Ok(life.ledger.tokens() - before),
        Err(violation) => Err(format!("{violation:?}; the last that happened:{}", life.log())),
    }
}

#[test]
fn no_power_cut_repeats_a_token_or_undoes_what_was_acknowledged() {
    let crashes = setting("OBOL_SOAK_CRASHES", CRASHES);
    let first = setting("OBOL_CRASH_SEED", 1);
    // Each seed so many times over: threads meet differently each time.
    let repeat = setting("OBOL_CRASH_REPEAT", 1).max(1);
    let stores = crashes.div_ceil(LIVES) * repeat;
    let populated = Populated::store(2);
    let (next, done, tokens) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stopped = AtomicBool::new(false);
    let start = Instant::now();
    let reported = Mutex::new(start);
    in_parallel(|| {
        while !stopped.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= stores {
                return;
            }
            let seed = first + number / repeat;
            match one_store(&populated, seed) {
                Ok(drawn) => tokens.fetch_add(drawn as u64, Ordering::SeqCst),
                Err(broken) => {
                    // The others come to an end as well, so that this is the last that is seen.
                    stopped.store(true, Ordering::SeqCst);
                    let cuts = done.load(Ordering::SeqCst) * LIVES;
                    panic!("after {cuts} power cuts: OBOL_CRASH_SEED={seed}: {broken}");
                }
            };
            let finished = done.fetch_add(1, Ordering::SeqCst) + 1;
            let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
            if reported.elapsed() > PROGRESS {
                *reported = Instant::now();
                // What was begun and not finished is run again by whoever goes on from here.
                let resume = first + (finished / repeat).saturating_sub(threads());
                eprintln!(
                    "power: {} of {crashes} cuts after {:.0?}; to go on from here: OBOL_CRASH_SEED={resume}",
                    finished / repeat * LIVES,
                    start.elapsed()
                );
            }
        }
    });
    let (took, tokens) = (start.elapsed(), tokens.into_inner());
    eprintln!(
        "power: seeds {first} to {}, {} power cuts in {took:.0?}; {tokens} tokens handed out, none twice; no promise broken",
        first + stores / repeat - 1,
        stores * LIVES
    );
    assert!(tokens > crashes / 4, "hardly a token was handed out");
}
