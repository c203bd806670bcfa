//! A tool's life against a virtual clock: what expires unused, and whether a caller ever finds nothing.
//!
//! The refiller is played with the times it takes in earnest, rather too long ones; all decisions are those of
//! [`Demand`].

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "virtual seconds are small numbers"
)]

use core::time::Duration;
use std::collections::VecDeque;

use super::{Demand, DemandLimits, Plan, Waiting};

const LIMITS: DemandLimits = DemandLimits { batch: 10, max_batch: 64, max_ready: 256, max_depth: 10_000 };
/// Life of a token, in seconds, and how much of it must be left when it is handed out.
const TTL_SECS: f64 = 60.0;
const MIN_LIFE: f64 = 5.0;
/// How long before the end of its tokens this tool is renewed, in seconds.
const EARLY_SECS: f64 = 2.0;
/// How often the refiller looks after a tool.
const TICK: f64 = 0.1;
/// What it takes to mint a token, in seconds.
const MINT_SECS: f64 = 65e-6;
/// What it takes until what was claimed is ready, and what was minted is on the disk: a commit, or two in a row.
const COMMIT: f64 = 8e-3;

/// How calls come.
#[derive(Clone, Copy, Debug)]
enum Arrivals {
    Steady,
    Poisson,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }
}

/// Tokens of one batch: how many are left, and when they end.
#[derive(Clone, Copy)]
struct Batch {
    left: usize,
    ends: f64,
}

#[derive(Default)]
struct Tool {
    demand: Demand,
    now: f64,
    ready: VecDeque<Batch>,
    stored: VecDeque<Batch>,
    /// When each batch is on the disk.
    storing: VecDeque<(f64, Batch)>,
    /// When each claim is ready, how much it asked for, and when it was asked for.
    claiming: VecDeque<(f64, usize)>,
    low_water: usize,
    renewal: bool,
    /// When the refiller is free again, and what it was asked for meanwhile.
    busy_until: f64,
    asked: bool,
    handed_out: u64,
    expired: u64,
    empty: u64,
}

fn sum(batches: &VecDeque<Batch>) -> usize {
    batches.iter().map(|batch| batch.left).sum()
}

impl Tool {
    fn ready(&self) -> usize {
        sum(&self.ready)
    }

    /// Everything that happens up to `time`.
    fn advance(&mut self, time: f64) {
        loop {
            let stored = self.storing.front().map_or(f64::INFINITY, |(at, _)| *at);
            let claimed = self.claiming.front().map_or(f64::INFINITY, |(at, _)| *at);
            let served = if self.asked { self.busy_until.max(self.now) } else { f64::INFINITY };
            let next = stored.min(claimed).min(served);
            if next > time {
                break;
            }
            self.now = self.now.max(next);
            if stored <= next {
                self.stored.extend(self.storing.pop_front().map(|(_, batch)| batch));
            } else if claimed <= next {
                self.claimed();
            } else {
                self.asked = false;
                self.serve();
            }
        }
        self.now = time;
    }

    fn claimed(&mut self) {
        let Some((_, asked)) = self.claiming.pop_front() else { return };
        self.evict();
        let mut tokens = 0;
        while let Some(batch) = self.stored.front().copied() {
            if tokens >= asked || self.ready() + batch.left > LIMITS.max_ready {
                break;
            }
            tokens += batch.left;
            self.ready.push_back(batch);
            self.stored.pop_front();
        }
        self.demand.refilled(Duration::from_secs_f64(COMMIT));
        self.renewal = false;
    }

    fn evict(&mut self) {
        let limit = self.now + MIN_LIFE;
        for batches in [&mut self.ready, &mut self.stored] {
            while let Some(batch) = batches.front().filter(|batch| batch.ends < limit) {
                self.expired += batch.left as u64;
                batches.pop_front();
            }
        }
    }

    fn tick(&mut self) {
        self.evict();
        self.demand.observe(self.handed_out, Duration::from_secs_f64(TICK));
        self.ask();
    }

    fn ask(&mut self) {
        self.asked = true;
    }

    fn serve(&mut self) {
        let claiming: usize = self.claiming.iter().map(|(_, asked)| asked).sum();
        let storing: usize = self.storing.iter().map(|(_, batch)| batch.left).sum();
        let waiting = Waiting {
            ready: self.ready() + claiming,
            stored: (sum(&self.stored) + storing).saturating_sub(claiming),
            next_batch: 0,
            ending: self
                .ready
                .front()
                .filter(|batch| batch.ends < self.now + MIN_LIFE + EARLY_SECS)
                .map(|b| b.ends as u64),
        };
        if waiting.ready == 0 && self.renewal {
            self.demand.missed();
        }
        let usable = Duration::from_secs_f64(TTL_SECS - MIN_LIFE);
        let Plan { claim, mint, batch, low_water } = self.demand.plan(waiting, usable, &LIMITS);
        self.low_water = low_water;
        let waits = sum(&self.stored) > 0;
        if claim > 0 && waits {
            self.claiming.push_back((self.now + COMMIT, claim));
        }
        // One batch, and then whoever asked meanwhile; the rest of it comes with the next turn.
        let minted = mint.min(usize::from(batch));
        self.busy_until = self.now + MINT_SECS * minted as f64;
        if minted > 0 {
            let batch = Batch { left: minted, ends: (self.now + TTL_SECS).floor() };
            self.storing.push_back((self.busy_until + COMMIT, batch));
        }
        if claim > 0 && !waits {
            self.claiming.push_back((self.busy_until + COMMIT, claim));
        } else if claim == 0 {
            self.renewal = false;
        }
        self.asked = minted < mint;
    }

    fn draw(&mut self) {
        self.evict();
        match self.ready.front_mut() {
            Some(batch) => {
                batch.left -= 1;
                self.handed_out += 1;
            }
            None => self.empty += 1,
        }
        while self.ready.front().is_some_and(|batch| batch.left == 0) {
            self.ready.pop_front();
        }
        if self.ready() <= self.low_water && !self.renewal {
            self.renewal = true;
            self.ask();
        }
    }
}

/// What came of a stretch of time.
#[derive(Debug)]
struct Outcome {
    handed_out: u64,
    expired: u64,
    empty: u64,
}

/// Lets calls come at `rate(time)` a second until `end`, in seconds; counts from `from` on.
fn simulate(arrivals: Arrivals, seed: u64, rate: impl Fn(f64) -> f64, from: f64, end: f64) -> Outcome {
    let mut random = Random(seed);
    let mut tool = Tool::default();
    let mut gap = |time: f64| match arrivals {
        Arrivals::Steady => 1.0 / rate(time),
        Arrivals::Poisson => -random.unit().ln() / rate(time),
    };
    let (mut next_call, mut next_tick) = (1.0 + gap(0.0), 0.0);
    let mut before = None;
    while tool.now < end {
        let time = next_call.min(next_tick);
        tool.advance(time);
        if time >= from && before.is_none() {
            before = Some((tool.handed_out, tool.expired, tool.empty));
        }
        if next_tick <= next_call {
            tool.tick();
            next_tick += TICK;
        } else {
            tool.draw();
            next_call = time + gap(time);
        }
    }
    let (handed_out, expired, empty) = before.unwrap_or_default();
    Outcome {
        handed_out: tool.handed_out - handed_out,
        expired: tool.expired - expired,
        empty: tool.empty - empty,
    }
}

/// Calls a second, and how long to watch, in seconds: long where little happens.
const RATES: [(f64, f64); 8] = [
    (0.1, 40_000.0),
    (0.3, 20_000.0),
    (1.0, 6_000.0),
    (3.0, 2_000.0),
    (20.0, 600.0),
    (150.0, 200.0),
    (1_000.0, 70.0),
    (5_000.0, 70.0),
];
const WARM_UP: f64 = 400.0;

fn everywhere(check: impl Fn(Arrivals, u64, f64, f64)) {
    for (rate, length) in RATES {
        check(Arrivals::Steady, 0, rate, length);
        for seed in 1..=3 {
            check(Arrivals::Poisson, seed, rate, length);
        }
    }
}

#[test]
fn at_a_steady_rate_less_than_a_tenth_expires_unused_and_nobody_finds_the_queue_empty() {
    everywhere(|arrivals, seed, rate, length| {
        let warm_up = if rate < 500.0 { WARM_UP } else { 60.0 };
        let outcome = simulate(arrivals, seed, |_| rate, warm_up, warm_up + length);
        let waste = outcome.expired as f64 / (outcome.handed_out + outcome.expired) as f64;
        assert!(waste < 0.1 && outcome.empty == 0, "{arrivals:?} {rate}/s, seed {seed}: {waste} {outcome:?}");
    });
}

#[test]
fn nobody_finds_the_queue_empty_while_the_load_doubles_within_a_tokens_life() {
    everywhere(|arrivals, seed, rate, _| {
        let from = if rate < 500.0 { WARM_UP } else { 60.0 };
        for grows_for in [1.0, TTL_SECS / 2.0, TTL_SECS] {
            let grown = |time: f64| rate * (1.0 + ((time - from) / grows_for).clamp(0.0, 1.0));
            let outcome = simulate(arrivals, seed, grown, from, from + TTL_SECS + 30.0);
            assert!(outcome.empty == 0, "{arrivals:?} {rate}/s, seed {seed}, in {grows_for} s: {outcome:?}");
        }
    });
}
