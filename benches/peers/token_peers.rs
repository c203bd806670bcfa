//! Obol's tokens beside other kinds, minted and verified on one core in one run.
//!
//! Every token carries the same claims as the scope in `obol_benches`: issuer, subject, agent instance, organisation,
//! tool, action, resource, audience, times and a name. Every verification checks the signature or the authentication tag,
//! reads all claims, and compares issuer, audience, organisation, tool, action, resource and times. What the others do not do
//! and Obol does: a fresh key for each token, an encrypted body (PASETO local has one too), a policy epoch, and patterns.
//!
//! "And spend" adds the same replay check to all of them: Obol's set of spent tokens in memory. The others have none of
//! their own; without one, their tokens can be used again until they end.
//!
//! Each peer is used in the way that costs it least: keys are parsed once, Datalog is parsed once, and PASETO's claims are
//! plain JSON.

mod peers;

use core::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group};
use obol_benches::rows::{self, Row, Unit, criterion_median};
use obol_verify::{Mark, MemorySpentSet, SpentSet as _};
use obol_world::ManualClock;
use obol_world::{AUDIENCE, NOW as ISSUED_AT};

use peers::biscuit::BiscuitPeer;
use peers::jwt::Jwt;
use peers::obol::Obol;
use peers::paseto::{PasetoLocal, PasetoPublic};
use peers::{Peer, jti};

/// What is measured beside what, in the order in which it is measured.
fn all() -> Vec<Box<dyn Peer>> {
    let mut peers: Vec<Box<dyn Peer>> =
        Obol::all().into_iter().map(|obol| Box::new(obol) as Box<dyn Peer>).collect();
    peers.push(Box::new(Jwt::hs256()));
    peers.push(Box::new(Jwt::eddsa()));
    peers.push(Box::new(PasetoLocal::new()));
    peers.push(Box::new(PasetoPublic::new()));
    peers.push(Box::new(BiscuitPeer::new()));
    peers
}

fn measure(criterion: &mut Criterion) {
    for peer in all() {
        assert!(peer.verify(&peer.mint(0)).is_some(), "{} verifies what it minted", peer.name());
        assert!(peer.verify(&changed(peer.mint(0))).is_none(), "{} refuses what was changed", peer.name());
        mint(criterion, &*peer);
        verify(criterion, &*peer);
        verify_and_spend(criterion, &*peer);
    }
}

/// The same token with one of its last bytes changed.
fn changed(mut token: Vec<u8>) -> Vec<u8> {
    let near_the_end = token.len() - 8;
    if let Some(byte) = token.get_mut(near_the_end) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    token
}

fn mint(criterion: &mut Criterion, peer: &dyn Peer) {
    let mut number = 0;
    criterion.benchmark_group("peers, mint").bench_function(peer.name(), |bencher| {
        bencher.iter(|| {
            number += 1;
            black_box(peer.mint(number))
        });
    });
}

fn verify(criterion: &mut Criterion, peer: &dyn Peer) {
    let token = peer.mint(0);
    criterion.benchmark_group("peers, verify").bench_function(peer.name(), |bencher| {
        bencher.iter(|| peer.verify(black_box(&token)).is_some());
    });
}

fn verify_and_spend(criterion: &mut Criterion, peer: &dyn Peer) {
    let spent = MemorySpentSet::unfenced(Arc::new(ManualClock::new(ISSUED_AT + 1)), 60);
    let mut number = 0;
    criterion.benchmark_group("peers, verify and spend").bench_function(peer.name(), |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                peer.mint(number)
            },
            |token| {
                let verified = peer.verify(&token)?;
                let mark = Mark::new(peers::SESSION, &verified.jti, verified.expires_at);
                spent.spend(mark).wait().ok()
            },
            BatchSize::SmallInput,
        );
    });
    let last = peer.verify(&peer.mint(number)).map(|verified| verified.jti);
    assert!(number == 0 || last == Some(jti(number)), "the token's name is read from the token");
    let marks = spent.marks().and_then(|marks| u64::try_from(marks).ok());
    assert_eq!(marks, Some(number), "every token was spent, and none twice");
}

/// Ours first, each peer in a row of its own.
fn record() {
    for group in ["peers, mint", "peers, verify", "peers, verify and spend"] {
        let measured: Vec<(String, f64)> = all()
            .iter()
            .filter_map(|peer| Some((peer.name().to_owned(), criterion_median(group, peer.name())?)))
            .collect();
        let (ours, theirs): (Vec<_>, Vec<_>) =
            measured.into_iter().partition(|(name, _)| name.starts_with("obol"));
        let what = group.trim_start_matches("peers, ");
        for (name, median) in &ours {
            for (peer, peer_median) in &theirs {
                Row::new("token_peers", format!("{what}, {name}"), Unit::Nanoseconds, *median)
                    .beside(peer.clone(), *peer_median)
                    .record();
            }
        }
    }
}

criterion_group!(benches, measure);

fn main() {
    rows::begin();
    assert_eq!(AUDIENCE, peers::Claims::new(0).aud);
    benches();
    Criterion::default().configure_from_args().final_summary();
    record();
}
