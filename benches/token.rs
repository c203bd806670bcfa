//! Minting and verifying, on one core.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use obol_benches::{AUDIENCE, ISSUED_AT, mint, session};
use obol_token::{Audience, Envelope};
use obol_verify::{ManualClock, MemorySessionTable, MemorySpentSet, Request, Session, Unverified, Verifier};

/// Tokens in a batch.
const BATCH: usize = 64;

fn minting(criterion: &mut Criterion) {
    let session = session();
    let mut group = criterion.benchmark_group("mint");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("suite 1, batch of 64", |bencher| {
        bencher.iter(|| black_box(mint(&session, 0, BATCH)));
    });
    group.finish();
}

fn verifying(criterion: &mut Criterion) {
    let verifier = verifier();
    let request = Request { action: Some("read"), ..Request::new("search") };
    let mut group = criterion.benchmark_group("verify");

    let token = one(0);
    group.bench_function("header only", |bencher| {
        bencher.iter(|| Envelope::parse(black_box(&token)).is_ok());
    });
    group.bench_function("suite 1, without spending", |bencher| {
        bencher.iter_batched(
            || token.clone(),
            |token| Unverified::from_bytes(token).and_then(|token| token.verify(&verifier, &request)).is_ok(),
            BatchSize::SmallInput,
        );
    });
    let mut next = 1;
    group.bench_function("suite 1, verify and spend in memory", |bencher| {
        bencher.iter_batched(
            || {
                next += 1;
                one(next)
            },
            |token| {
                let verified =
                    Unverified::from_bytes(token).and_then(|token| token.verify(&verifier, &request));
                verified.and_then(|verified| verified.spend().wait()).is_ok()
            },
            BatchSize::SmallInput,
        );
    });
    let mut forged = one(0);
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    group.bench_function("suite 1, refusing a forged token", |bencher| {
        bencher.iter_batched(
            || forged.clone(),
            |token| {
                Unverified::from_bytes(token).and_then(|token| token.verify(&verifier, &request)).is_err()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn one(number: u64) -> Vec<u8> {
    mint(&session(), number, 1).pop().unwrap_or_default()
}

fn verifier() -> Verifier {
    let sessions = Arc::new(MemorySessionTable::new());
    let audience = Audience::new(AUDIENCE);
    let added = sessions.add(Session::new(session(), audience.clone(), "example"));
    let clock = Arc::new(ManualClock::new(ISSUED_AT + 1));
    let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), 60));
    let built = Verifier::builder(audience, sessions, spent).clock(clock).build();
    #[expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
    added.ok().and_then(|()| built.ok()).expect("a verifier")
}

criterion_group!(benches, minting, verifying);
criterion_main!(benches);
