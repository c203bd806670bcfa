//! The ring under a scheduler that tries interleavings: flush, writer, refiller and callers at once.
//!
//! `ring.rs` is compiled a second time here, on synchronisation that the scheduler controls. Every operation on it is a
//! point where another thread may come in between. Two controls break the ring on purpose, and must be found.

#[path = "ring.rs"]
#[allow(
    clippy::duplicate_mod,
    dead_code,
    reason = "the same code on other synchronisation is what is tested here"
)]
mod ring;
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};

    pub(super) type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

    /// A mutex without poisoning, as parking_lot's.
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    /// A queue each of whose operations happens at one moment, which is what the lock-free one promises.
    pub(super) struct Queue<T>(Mutex<std::collections::VecDeque<T>>);

    impl<T> Queue<T> {
        pub(super) fn new() -> Self {
            Self(Mutex::new(std::collections::VecDeque::new()))
        }

        pub(super) fn push(&self, value: T) {
            self.0.lock().push_back(value);
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.0.lock().pop_front()
        }

        pub(super) fn len(&self) -> usize {
            self.0.lock().len()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }
}

use core::panic::AssertUnwindSafe;
use std::collections::HashSet;
use std::panic::catch_unwind;

use shuttle::sync::Arc;
use shuttle::thread;

use crate::clock::Reading;
use ring::Ring;
use sync::{AtomicU64, Mutex, Ordering};

/// Interleavings of each kind that are tried.
const SCHEDULES: usize = 3_000;
/// Points at which the systematic scheduler takes the processor away.
const DEPTH: usize = 3;
const MIN_LIFE: u64 = 5;
const NOW: u64 = 1_000;
const OLD_END: u64 = NOW + 60;

/// A token: the key it was sealed under, and its number. What a flush took away has an older key.
type Token = (u64, u64);

/// What the gate guards: the key that batches are opened with at the moment.
type Key = u64;

/// How the writer makes a batch ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// The key is looked at, a last time, and the tokens are pushed under one hold of the gate.
    UnderTheGate,
    /// The gate is let go in between.
    Breaks,
}

/// How a caller takes a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Takes,
    /// Pops and compares nothing.
    Breaks,
}

struct World {
    ring: Ring<Token, Key>,
    /// The key since the last flush began: no token of an older one may be handed out to a call that begins now.
    flushed_to: AtomicU64,
    handed_out: Mutex<Vec<Token>>,
}

fn look() -> Reading {
    Reading { now: NOW, era: 0 }
}

impl World {
    fn new() -> Self {
        Self { ring: Ring::new(0), flushed_to: AtomicU64::new(0), handed_out: Mutex::new(Vec::new()) }
    }

    /// Opens a batch that was sealed under `sealed_under`, as the writer does after its commit.
    fn make_ready(&self, writer: Writer, sealed_under: Key, numbers: core::ops::Range<u64>) {
        let tokens = numbers.map(|number| (sealed_under, number));
        // The key is taken first and the batch opened without the gate; whether it is still good is asked afterwards.
        let opens = *self.ring.gate() == sealed_under;
        let gate = self.ring.gate();
        if !opens || *gate != sealed_under {
            return;
        }
        let gate = match writer {
            Writer::UnderTheGate => gate,
            Writer::Breaks => {
                drop(gate);
                self.ring.gate()
            }
        };
        self.ring.push(&gate, tokens, OLD_END, 0);
    }

    fn flush(&self) {
        let mut gate = self.ring.gate();
        *gate += 1;
        let key = *gate;
        self.ring.raise_generation(&gate);
        // From here on a call that begins finds nothing old, though the ring is not empty yet.
        self.flushed_to.store(key, Ordering::SeqCst);
        self.ring.discard_ready(&gate);
    }

    fn draw(&self, caller: Caller) {
        let flushed_to = self.flushed_to.load(Ordering::SeqCst);
        let taken = match caller {
            Caller::Takes => self.ring.take(look, MIN_LIFE).map(|(token, _)| token),
            Caller::Breaks => self.ring.ready.pop().map(|ready| ready.token),
        };
        if let Some(token) = taken {
            assert!(token.0 >= flushed_to, "a flushed token is handed out: {token:?}");
            self.handed_out.lock().push(token);
        }
    }
}

/// One life of a ring: two batches of the first key, a flush, one batch of the second; two callers and the refiller's
/// look at what is old beside them.
fn live(writer: Writer, caller: Caller) {
    let world = Arc::new(World::new());
    world.make_ready(Writer::UnderTheGate, 0, 0..2);
    let spawn = |act: fn(&World, Writer, Caller)| {
        let world = Arc::clone(&world);
        thread::spawn(move || act(&world, writer, caller))
    };
    let threads = [
        spawn(|world, writer, _| {
            world.make_ready(writer, 0, 2..4);
            world.make_ready(writer, 1, 4..6);
        }),
        spawn(|world, _, _| world.flush()),
        spawn(|world, _, caller| (0..3).for_each(|_| world.draw(caller))),
        spawn(|world, _, caller| (0..2).for_each(|_| world.draw(caller))),
        spawn(|world, _, _| world.ring.drop_older(OLD_END)),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    let numbers = world.ring.numbers();
    let handed_out = world.handed_out.lock();
    let distinct: HashSet<&Token> = handed_out.iter().collect();
    assert_eq!(distinct.len(), handed_out.len(), "a token is handed out twice");
    if caller == Caller::Takes {
        assert_eq!(numbers.handed_out, handed_out.len() as u64, "{numbers:?}");
    }
    // Nothing of before the flush is left to be found, and all that is left can be had.
    drop(handed_out);
    while let Some(ready) = world.ring.ready.pop() {
        assert_eq!(ready.token.0, 1, "a flushed token is left in the ring as good");
        assert_eq!(ready.generation, 1);
    }
}

fn check(writer: Writer, caller: Caller) {
    shuttle::check_random(move || live(writer, caller), SCHEDULES);
    shuttle::check_pct(move || live(writer, caller), SCHEDULES, DEPTH);
}

/// Tells whether the scheduler finds the break, and what it says.
fn is_found(writer: Writer, caller: Caller) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| check(writer, caller))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

#[test]
fn no_interleaving_hands_out_a_flushed_token_or_one_twice() {
    check(Writer::UnderTheGate, Caller::Takes);
}

#[test]
fn control_a_writer_that_lets_go_of_the_gate_is_found() {
    let found = is_found(Writer::Breaks, Caller::Takes).expect("the broken writer was not found");
    assert!(found.contains("flushed token"), "{found}");
}

#[test]
fn control_a_caller_that_compares_no_generations_is_found() {
    let found = is_found(Writer::UnderTheGate, Caller::Breaks).expect("the broken caller was not found");
    assert!(found.contains("flushed token"), "{found}");
}
