//! Minting, verifying and refusing, on one core, in every suite. Every operation is timed by itself: what counts is the
//! median and the 99th percentile. The clock's own cost, some 25 ns, is left in. The tokens of a run share one scope, as
//! those of a batch do; the sessions are as `obol session create` makes them, with derived nonces, unless said.
//!
//! `cargo bench -p obol-benches --bench token`; with `-- --quick` a tenth of the samples.

use core::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use obol_benches::rows::{self, Row, Target, Unit};
use obol_token::text::to_base64url;
use obol_token::{Audience, Minter, Nonces, SessionMaterial, Suite, Validity};
use obol_verify::{
    Denial, MemorySessionTable, MemorySpentSet, Request, Session, Template, Unverified, Verifier,
};
use obol_world::ManualClock;
use obol_world::mint::{mint, seeds};
use obol_world::scope::scope;
use obol_world::{AUDIENCE, KEYS, NOW, ORG};

/// Tokens in a batch.
const BATCH: usize = 64;
/// Operations of each kind; a hundredth of them comes first and is not counted.
const SAMPLES: usize = 20_000;
/// Batches of each kind.
const BATCHES: usize = 500;
const TOKEN_LIFE_SECS: u64 = 60;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let bench = Bench { divisor: if quick { 10 } else { 1 } };
    rows::begin();
    for suite in Suite::ALL {
        bench.minting(suite);
        bench.verifying(suite, Nonces::Derived);
        bench.forgeries(suite, Nonces::Derived);
        bench.under_grants(suite);
    }
    // A session of suite 1 whose minter is not Obol's.
    bench.verifying(Suite::Tbac, Nonces::Any);
    bench.forgeries(Suite::Tbac, Nonces::Any);
    bench.headers();
}

struct Bench {
    divisor: usize,
}

impl Bench {
    fn samples(&self) -> usize {
        SAMPLES / self.divisor
    }

    /// As a refiller does it: fresh randomness, a minter and 64 tokens.
    fn minting(&self, suite: Suite) {
        let session = KEYS.in_suite(suite).material();
        let target = match suite {
            Suite::Tbac => Some(30_000.0),
            Suite::AesGcm => Some(700_000.0),
            _ => None,
        };
        let times = times((0..BATCHES / self.divisor).collect(), |_| batch(&session));
        let per_second = BATCH as f64 * 1e9 / times.p50;
        let row = Row::new(
            "token",
            format!("mint, suite {suite}, batches of {BATCH}"),
            Unit::PerSecond,
            per_second,
        );
        record(target.map_or(row.clone(), |least| row.wants(Target::AtLeast(least))));
    }

    fn verifying(&self, suite: Suite, nonces: Nonces) {
        let (p50, p99) = match suite {
            Suite::Tbac if nonces == Nonces::Any => (None, None),
            Suite::Tbac => (Some(40_000.0), Some(100_000.0)),
            Suite::AesGcm | Suite::HybridAesGcm => (Some(2_500.0), None),
            Suite::ChaCha20Poly1305 => (None, None),
        };
        let (verifier, tokens) = (verifier_of(suite, nonces), tokens(suite, self.samples()));
        let texts: Vec<String> = tokens.iter().map(|token| to_base64url(token)).collect();
        let bytes = times(tokens, |token| accept(Unverified::from_bytes(token), &verifier));
        let what = format!("verify and spend, suite {suite}{}", note(nonces));
        record_time(format!("{what}, p50"), bytes.p50, p50);
        record_time(format!("{what}, p99"), bytes.p99, p99);
        let verifier = verifier_of(suite, nonces);
        let text = times(texts, |text| accept(Unverified::from_text(text.as_bytes()), &verifier));
        record_time(format!("{what}, from text, p50"), text.p50, None);
    }

    /// Beside the acceptance of a good token, measured in turns with it.
    fn forgeries(&self, suite: Suite, nonces: Nonces) {
        let verifier = verifier_of(suite, nonces);
        let good = tokens(suite, self.samples());
        let forged = good.iter().map(|token| {
            let mut token = token.clone();
            if let Some(last) = token.last_mut() {
                *last ^= 1;
            }
            token
        });
        let forged: Vec<Vec<u8>> = forged.collect();
        let (mut acceptances, mut refusals) = (Vec::new(), Vec::new());
        for (token, forged) in good.into_iter().zip(forged) {
            let begin = Instant::now();
            accept(Unverified::from_bytes(token), &verifier);
            acceptances.push(nanoseconds(begin));
            let begin = Instant::now();
            refuse(forged, &verifier);
            refusals.push(nanoseconds(begin));
        }
        let (accepted, refused) = (Times::of(acceptances), Times::of(refusals));
        record(
            Row::new(
                "token",
                format!("refuse a forged token, suite {suite}{}, p50", note(nonces)),
                Unit::Nanoseconds,
                refused.p50,
            )
            .beside("accept a good one", accepted.p50)
            .wants(Target::RatioAtMost(1.0)),
        );
    }

    /// A session that says what was granted, beside one that does not, in turns.
    fn under_grants(&self, suite: Suite) {
        let session = || session(suite, Nonces::Derived);
        let (open, granted) = (verifier_for(session()), verifier_for(session().with_grants([scope()])));
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for token in tokens(suite, self.samples()) {
            let again = token.clone();
            let begin = Instant::now();
            accept(Unverified::from_bytes(token), &open);
            without.push(nanoseconds(begin));
            let begin = Instant::now();
            accept(Unverified::from_bytes(again), &granted);
            with.push(nanoseconds(begin));
        }
        let (without, with) = (Times::of(without), Times::of(with));
        let what = format!("verify and spend under grants, suite {suite}, p50");
        record(
            Row::new("token", what, Unit::Nanoseconds, with.p50)
                .beside("without grants", without.p50)
                .wants(Target::RatioAtMost(1.03)),
        );
    }

    /// What is refused by its header alone.
    fn headers(&self) {
        let suite = Suite::Tbac;
        let verifier = verifier(suite);
        let other_suite = self::verifier(Suite::AesGcm);
        let cases: [(&str, usize, u8, &Verifier); 6] = [
            ("version", 0, 0x02, &verifier),
            ("alg_id", 1, 0x77, &verifier),
            ("session", 4, 0xFF, &verifier),
            ("time", 24, 0x00, &verifier),
            ("audience", 48, 0x00, &verifier),
            ("suite", 1, 0x01, &other_suite),
        ];
        for (what, offset, byte, verifier) in cases {
            let mut tokens = tokens(suite, self.samples());
            for token in &mut tokens {
                if let Some(place) = token.get_mut(offset) {
                    *place = if *place == byte && offset != 1 { byte ^ 1 } else { byte };
                }
            }
            let times = times(tokens, |token| refuse(token, verifier));
            record_time(format!("refuse by header: {what}, p50"), times.p50, Some(1_000.0));
        }
    }
}

fn batch(session: &SessionMaterial) -> Vec<Vec<u8>> {
    let mut random = [0; 48 * BATCH];
    let filled = getrandom::fill(&mut random).is_ok();
    let seeds = if filled { seeds(&random) } else { Vec::new() };
    let validity = Validity { issued_at: NOW, expires_at: NOW + TOKEN_LIFE_SECS };
    let minted = Minter::new(session, &scope(), 1).and_then(|minter| minter.mint(validity, &seeds));
    expect(minted.ok().filter(|tokens| tokens.len() == BATCH), "a batch")
}

fn tokens(suite: Suite, count: usize) -> Vec<Vec<u8>> {
    mint(&KEYS.in_suite(suite).material(), 0, count + count / 100)
}

fn request() -> Request<'static> {
    Request { action: Some("read"), resource: Some("docs/a"), ..Request::new("search") }
}

fn accept(token: Result<Unverified, Denial>, verifier: &Verifier) {
    let spent = token.and_then(|token| token.verify(verifier, &request())?.spend().wait());
    expect(black_box(spent).ok(), "an acceptance");
}

fn refuse(token: Vec<u8>, verifier: &Verifier) {
    let refused = Unverified::from_bytes(token).and_then(|token| token.verify(verifier, &request()));
    expect(black_box(refused).err(), "a refusal");
}

/// What tells a session apart whose nonces are not all derived.
fn note(nonces: Nonces) -> &'static str {
    match nonces {
        Nonces::Derived => "",
        Nonces::Any => ", any nonce",
    }
}

fn verifier(suite: Suite) -> Verifier {
    verifier_of(suite, Nonces::Derived)
}

fn verifier_of(suite: Suite, nonces: Nonces) -> Verifier {
    verifier_for(session(suite, nonces))
}

fn session(suite: Suite, nonces: Nonces) -> Session {
    Session::new(
        KEYS.in_suite(suite).material().with_nonces(nonces),
        Audience::new(AUDIENCE).expect("an audience"),
        ORG,
    )
}

fn verifier_for(session: Session) -> Verifier {
    let sessions = Arc::new(MemorySessionTable::new());
    let audience = Audience::new(AUDIENCE).expect("an audience");
    let added = sessions.add(session);
    let clock = Arc::new(ManualClock::new(NOW + 1));
    let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), TOKEN_LIFE_SECS));
    let any = Arc::new(Template::Any);
    let built = Verifier::builder(audience, sessions, spent).templates(any).clock(clock).build();
    expect(added.ok().and_then(|()| built.ok()), "a verifier")
}

/// Sorted durations, in nanoseconds.
struct Times {
    p50: f64,
    p99: f64,
}

impl Times {
    fn of(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        let at = |part: usize| nanoseconds.get(nanoseconds.len() * part / 100).copied().unwrap_or_default();
        Self { p50: at(50) as f64, p99: at(99) as f64 }
    }
}

/// Times `operation` on each input; the first hundredth warms up.
fn times<I, O>(inputs: Vec<I>, mut operation: impl FnMut(I) -> O) -> Times {
    let warm_up = inputs.len() / 100;
    let mut measured = Vec::with_capacity(inputs.len());
    for input in inputs {
        let begin = Instant::now();
        black_box(operation(black_box(input)));
        measured.push(nanoseconds(begin));
    }
    Times::of(measured.split_off(warm_up))
}

fn nanoseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn record_time(what: String, nanoseconds: f64, at_most: Option<f64>) {
    let row = Row::new("token", what, Unit::Nanoseconds, nanoseconds);
    record(at_most.map_or(row.clone(), |most| row.wants(Target::AtMost(most))));
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn record(row: Row) {
    let ratio = row.ratio().map_or_else(String::new, |ratio| format!("  ratio {ratio:.2}"));
    println!("{:<48} {:>12.0} {:?}{ratio}", row.what, row.measured, row.unit);
    row.record();
}

#[expect(
    clippy::expect_used,
    reason = "a benchmark that measures something else than it says is worth nothing"
)]
fn expect<T>(value: Option<T>, what: &str) -> T {
    value.expect(what)
}
