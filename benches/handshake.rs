//! The service's side of a handshake, beside the bare operations in it that cannot be left out: three Diffie-Hellman
//! exchanges and one key pair, in suite 4 also checking an ML-KEM key and encapsulating to it. Both are timed in turns,
//! on one core.
//!
//! `cargo bench -p obol-benches --bench handshake`; with `-- --quick` a tenth of the samples.

#![allow(
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on says so and stops"
)]

use core::hint::black_box;
use std::time::Instant;

use ml_kem::kem::TryKeyInit as _;
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use obol_benches::rows::{self, Row, Target, Unit};
use obol_handshake::{
    AuthoritySecret, CookieRing, Header, IdentityKey, Initiator, Pending, Prologue, Proof, Purpose, Random,
    Responder, SuiteOffer, reply,
};
use obol_token::Suite;
use x25519_dalek::{PublicKey, StaticSecret};

const ORIGIN: &str = "https://as.example";
const NOW: u64 = 1_767_225_600;
const SAMPLES: usize = 5_000;

struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap_or_else(|error| panic!("no randomness: {error}"));
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let samples = if quick { SAMPLES / 10 } else { SAMPLES };
    rows::begin();
    for suite in [Suite::Tbac, Suite::HybridAesGcm] {
        measure(suite, samples);
    }
}

/// Both ends of one handshake; the service's part is timed.
struct World {
    service: AuthoritySecret,
    agent: IdentityKey,
    ring: CookieRing,
    prologue: Prologue,
}

impl World {
    fn new(suite: Suite) -> Self {
        let service = AuthoritySecret::generate(&mut System);
        let header = Header {
            purpose: Purpose::Session,
            suite,
            offer: SuiteOffer::of(&Suite::ALL),
            authority_key: service.key().id(),
        };
        Self {
            agent: IdentityKey::generate(&mut System),
            ring: CookieRing::new(NOW, &mut System),
            prologue: Prologue::new(header, ORIGIN).unwrap_or_else(|error| panic!("{error}")),
            service,
        }
    }

    /// Nanoseconds of the service's work: first message read and answered, last message read.
    fn handshake(&self) -> Option<f64> {
        let (waiting, hello) = Initiator::start(&self.prologue, &self.service.key(), &mut System).ok()?;
        let begin = Instant::now();
        let (pending, message) = Responder::accept(ORIGIN, &self.service, &hello, b"{}", &mut System).ok()?;
        let answer = reply(&pending.seal(&self.ring, NOW, &mut System), &message).ok()?;
        let first = nanoseconds(begin);
        let (ready, _) = waiting.read(&answer).ok()?;
        let (_, proof) = ready.prove(&self.agent, b"{}").ok()?;
        let begin = Instant::now();
        let proof = Proof::read(&proof).ok()?;
        let pending = Pending::open(proof.cookie, Purpose::Session, &self.ring, NOW).ok()?;
        black_box(pending.finish(proof.message).ok()?);
        Some(first + nanoseconds(begin))
    }
}

/// Nanoseconds of the operations alone.
fn bare(suite: Suite, private: &StaticSecret, peer: &PublicKey, kem_public: &[u8]) -> Option<f64> {
    let begin = Instant::now();
    for _ in 0..3 {
        black_box(private.diffie_hellman(peer));
    }
    let mut bytes = [0; 32];
    System.fill(&mut bytes);
    black_box(PublicKey::from(&StaticSecret::from(bytes)));
    if suite == Suite::HybridAesGcm {
        let key = EncapsulationKey::new_from_slice(kem_public).ok()?;
        System.fill(&mut bytes);
        black_box(key.encapsulate_deterministic(&bytes.into()));
    }
    Some(nanoseconds(begin))
}

fn measure(suite: Suite, samples: usize) {
    let world = World::new(suite);
    let (mut bytes, mut seed) = ([0; 32], [0; 64]);
    System.fill(&mut bytes);
    System.fill(&mut seed);
    let private = StaticSecret::from(bytes);
    let peer = PublicKey::from(&StaticSecret::from(seed.first_chunk().copied().unwrap_or(bytes)));
    let kem = DecapsulationKey::from_seed(seed.into());
    let kem_public = ml_kem::kem::KeyExport::to_bytes(kem.encapsulation_key());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..samples + samples / 10 {
        let handshake = world.handshake().unwrap_or_else(|| panic!("suite {suite}: the handshake ends"));
        let bare = bare(suite, &private, &peer, &kem_public).unwrap_or_else(|| panic!("the KEM key is good"));
        if round >= samples / 10 {
            ours.push(handshake);
            theirs.push(bare);
        }
    }
    let what = format!("the service's side, suite {suite}, p50");
    let row = Row::new("handshake", what, Unit::Nanoseconds, median(ours))
        .beside("its DH and KEM operations alone", median(theirs))
        .wants(Target::RatioAtMost(1.15));
    record(row);
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn record(row: Row) {
    let ratio = row.ratio().map_or_else(String::new, |ratio| format!("  ratio {ratio:.2}"));
    println!("{:<48} {:>12.0} {:?}{ratio}", row.what, row.measured, row.unit);
    row.record();
}

fn nanoseconds(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
