//! Random work, random power cuts, again and again on what is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ledger::Violation;
use super::life::{Life, Populated};
use super::{in_parallel, setting};

/// Power cuts that one store lives through.
const LIVES: u64 = 12;
/// Power cuts in a run of the test suite.
const CRASHES: u64 = 5_000;
const PROGRESS: Duration = Duration::from_secs(30);

fn one_store(populated: &Populated, seed: u64) -> Result<usize, Violation> {
    let mut life =
        if seed.is_multiple_of(8) { Life::on_empty_disk(seed) } else { Life::begin(populated, seed) };
    let before = life.ledger.tokens();
    for _ in 0..LIVES {
        life.live_and_lose_power()?;
    }
    life.end_well()?;
    Ok(life.ledger.tokens() - before)
}

#[test]
fn no_power_cut_repeats_a_token_or_undoes_what_was_acknowledged() {
    let crashes = setting("OBOL_SOAK_CRASHES", CRASHES);
    let first = setting("OBOL_CRASH_SEED", 1);
    let populated = Populated::store(2);
    let (next, tokens) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let work = || {
        let mut reported = start;
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number * LIVES >= crashes {
                return;
            }
            let seed = first + number;
            match one_store(&populated, seed) {
                Ok(drawn) => tokens.fetch_add(drawn as u64, Ordering::SeqCst),
                Err(violation) => panic!("OBOL_CRASH_SEED={seed}: {violation:?}"),
            };
            if reported.elapsed() > PROGRESS {
                reported = Instant::now();
                eprintln!("{} of {crashes} power cuts after {:?}", number * LIVES, start.elapsed());
            }
        }
    };
    in_parallel(work);
    let (took, tokens) = (start.elapsed(), tokens.into_inner());
    eprintln!("{crashes} power cuts in {took:?}, {tokens} tokens handed out, none twice");
    assert!(tokens > crashes / 4, "hardly a token was handed out");
}
