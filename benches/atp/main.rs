//! The Agent Token Protocol: signing and checking a body beside the bare HMAC, a route with and without the layer, tokens issued a
//! second with everything durable and beside the Express middleware, memory with 100,000 live tokens, and when a thousand agents that
//! began in one second come back.
//!
//! `cargo bench -p obol-benches --bench atp`; with `-- --quick` a tenth of it.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark talks to whoever runs it, and one that cannot go on says so and stops"
)]

mod herd;
mod issue;
mod timing;
mod world;

use core::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_atp::{Signed, TokenBody};
use obol_benches::clients::Failure;
use obol_benches::rows::{self, Row, Target, Unit};
use sha2::Sha256;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    /// Bodies in one sample of the micro-benchmarks.
    bodies: u32,
    requests: usize,
    live_tokens: usize,
    /// Requests of each kind whose times are compared.
    timed: usize,
    agents: usize,
}

fn main() -> Result<(), Failure> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let size = if quick {
        Size { bodies: 2_000, requests: 2_000, live_tokens: 5_000, timed: 1_000, agents: 100 }
    } else {
        Size { bodies: 20_000, requests: 40_000, live_tokens: 100_000, timed: 10_000, agents: 1_000 }
    };
    rows::begin();
    // First: what others gave back to the allocator would be taken again, and not be seen to grow.
    herd::memory(size)?;
    signatures(size);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(issue::measure(size))?;
    runtime.block_on(timing::measure(size))?;
    runtime.block_on(herd::plot(size))
}

/// Nanoseconds of one call: the fastest of several samples, since whatever else runs only adds.
fn fastest(calls: u32, mut call: impl FnMut()) -> f64 {
    let sample = |call: &mut dyn FnMut()| {
        let begin = Instant::now();
        (0..calls).for_each(|_| call());
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    (0..11).map(|_| sample(&mut call)).fold(f64::INFINITY, f64::min)
}

/// What is signed of a body.
fn canonical(text: &[u8]) -> Option<Vec<u8>> {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    members.remove("signature");
    obol_atp::canonical(&members).ok()
}

/// Signing a typed body, and reading and checking one, beside the HMAC over its bytes.
fn signatures(size: Size) {
    let secret = world::secret();
    let body = world::body(1);
    let text = body.signed_with(&secret);
    let canonical = canonical(&text).unwrap_or_else(|| panic!("a signed body is an object"));
    let keyed: Hmac<Sha256> =
        Hmac::new_from_slice(secret.expose()).unwrap_or_else(|error| panic!("no key: {error}"));
    let hmac = fastest(size.bodies, || {
        let mut mac = keyed.clone();
        mac.update(black_box(&canonical));
        black_box(mac.finalize());
    });
    let sign = fastest(size.bodies, || drop(black_box(black_box(&body).signed_with(&secret))));
    let verify = fastest(size.bodies, || {
        let signed = Signed::<TokenBody<'_>>::parse(black_box(&text));
        // As a provider does: always two keys.
        let authentic = signed.ok().and_then(|signed| signed.verify(&secret, &secret));
        assert!(black_box(authentic).is_some());
    });
    let peer = || format!("HMAC-SHA256 of its {} bytes", canonical.len());
    for (what, measured, most) in
        [("sign a typed body", sign, 2.0), ("parse and verify a signed body, both keys", verify, 5.0)]
    {
        println!("{what}: {measured:.0} ns, HMAC alone {hmac:.0} ns");
        let row = Row::new("atp", what, Unit::Nanoseconds, measured).beside(peer(), hmac);
        row.wants(Target::RatioAtMost(most)).record();
    }
}
