//! A disk that decays: one bit changes while the store is at rest.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::catch_unwind;

use obol_queue::{DequeueError, Draw, SessionId};
use obol_world::random::Random;

use super::disk::{Fate, Image, NAMES, Name, SimulatedDisk, Survival};
use super::ledger::{Violation, verify};
use super::life::{Life, Populated};
use super::{TOOLS, in_parallel};
use crate::proof::setting;

/// Bit flips in a run of the test suite.
const FLIPS: u64 = 1_500;

/// A store that was closed, and one that lost power while it was drawn from.
fn at_rest() -> [Populated; 2] {
    let closed = Populated::store(2);
    let mut life = Life::begin(&closed, 5);
    let queue = life.reopen().unwrap().unwrap();
    for _ in 0..3 {
        for tool in TOOLS {
            life.draw(&queue, 1, tool).unwrap();
        }
    }
    life.disk.cut_power(Survival::Nothing);
    drop(queue);
    [closed, life.populated()]
}

/// What came of a store with a flipped bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Refused,
    Opened,
}

fn outcome(life: &mut Life) -> Result<Outcome, Violation> {
    let Ok(queue) = life.open() else { return Ok(Outcome::Refused) };
    for session in life.ledger.sessions() {
        for tool in life.ledger.tools(session) {
            for _ in 0..4 {
                let draw = Draw { tool, audience: None, session: Some(SessionId::from_u64(session)) };
                match queue.dequeue_within(draw, super::PATIENCE) {
                    Ok(token) => {
                        verify(session, tool, token.as_bytes())?;
                        life.ledger.drawn_beside(token.as_bytes())?;
                    }
                    Err(DequeueError::Empty { .. }) => {
                        return Err(Violation::Absurd(format!("{tool} of session {session} hangs")));
                    }
                    // A damaged session counts as flushed, a damaged policy or page stops the queue.
                    Err(_) => break,
                }
            }
        }
    }
    Ok(Outcome::Opened)
}

fn flip_and_open(populated: &Populated, name: Name, offset: u64, bit: u8) -> Result<Outcome, Violation> {
    let mut files = populated.files.clone();
    files[name as usize].flip(offset, bit);
    let mut life = Life::begin(populated, offset);
    life.disk = SimulatedDisk::holding(files, offset);
    life.disk.arm(Fate::Well);
    catch_unwind(AssertUnwindSafe(|| outcome(&mut life)))
        .unwrap_or_else(|_| Err(Violation::Absurd("a panic escapes".to_owned())))
}

/// Bits that mean something, most of the time: where there is something but zeros.
fn any_bit(random: &mut Random, files: &[Image; 2], occupied: &[Vec<u64>; 2]) -> (Name, u64, u8) {
    let name = if random.one_in(4) { Name::Keys } else { Name::Database };
    let offset = if random.one_in(10) {
        random.below(files[name as usize].len())
    } else {
        *random.pick(&occupied[name as usize])
    };
    (name, offset, u8::try_from(random.below(8)).unwrap())
}

#[test]
fn a_flipped_bit_anywhere_repeats_no_token_forges_none_and_lets_no_panic_out() {
    let flips = setting("OBOL_SOAK_FLIPS", FLIPS);
    let first = setting("OBOL_CRASH_SEED", 1);
    let at_rest = at_rest();
    let occupied = at_rest.each_ref().map(|rest| NAMES.map(|name| rest.files[name as usize].occupied()));
    let next = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|_| {}));
    let broken = std::sync::Mutex::new(Vec::new());
    in_parallel(|| {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= flips {
                return;
            }
            let mut random = Random::new(first + number);
            let which = usize::from(random.one_in(2));
            let (name, offset, bit) = any_bit(&mut random, &at_rest[which].files, &occupied[which]);
            match flip_and_open(&at_rest[which], name, offset, bit) {
                Ok(Outcome::Refused) => _ = refused.fetch_add(1, Ordering::SeqCst),
                Ok(Outcome::Opened) => {}
                Err(violation) => broken.lock().unwrap().push(format!(
                    "seed {}, store {which}, {name:?} byte {offset} bit {bit}: {violation:?}",
                    first + number
                )),
            }
        }
    });
    _ = std::panic::take_hook();
    let broken = broken.into_inner().unwrap();
    eprintln!("{flips} bit flips, {} refused when opened", refused.into_inner());
    assert!(broken.is_empty(), "{} of {flips}: {broken:#?}", broken.len());
}

/// redb's header, which says which of its two commit slots counts, both slots, and the witness behind them.
const HEADER_BYTES: u64 = 328;
/// The byte that says which slot counts: each of its bits is flipped, however few of the others are.
const FLAGS: u64 = 9;
/// Hand-outs after which bits of the header are flipped: every bit, or unoptimised every so many.
const MOMENTS: u64 = 4;
const EVERY: u64 = if cfg!(debug_assertions) { 13 } else { 1 };

#[test]
fn a_flipped_bit_in_the_header_right_after_a_claim_repeats_no_token() {
    let mut life = Life::begin(&Populated::store(1), 7);
    let queue = life.reopen().unwrap().unwrap();
    let mut moments = Vec::new();
    for _ in 0..MOMENTS {
        life.draw(&queue, 1, "search").unwrap();
        // What is durable at the moment of hand-out: the claim was the last commit, or nearly.
        moments.push(life.populated());
    }
    drop(queue);
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(0);
    let broken = std::sync::Mutex::new(Vec::new());
    in_parallel(|| {
        loop {
            let number = next.fetch_add(EVERY, Ordering::SeqCst);
            let Some(moment) = moments.get(usize::try_from(number / (HEADER_BYTES * 8)).unwrap()) else {
                return;
            };
            let (offset, bit) = (number / 8 % HEADER_BYTES, u8::try_from(number % 8).unwrap());
            // With the first of each moment, all bits of the flags.
            if number % (HEADER_BYTES * 8) < EVERY {
                for bit in 0..8 {
                    if let Err(violation) = flip_and_open(moment, Name::Database, FLAGS, bit) {
                        broken.lock().unwrap().push(format!("flags, bit {bit}: {violation:?}"));
                    }
                }
            }
            if let Err(violation) = flip_and_open(moment, Name::Database, offset, bit) {
                broken.lock().unwrap().push(format!("byte {offset} bit {bit}: {violation:?}"));
            }
        }
    });
    _ = std::panic::take_hook();
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{} of {}: {broken:#?}", broken.len(), next.into_inner());
}
