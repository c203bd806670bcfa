//! The queue beside its peers, in one run: handing out, the whole way through the disk, latency while everything else goes
//! on, flush, memory, and size.
//!
//! Tokens are made ahead (`store::Premade`), but where it says otherwise: minting is measured in `token.rs`. Parts can
//! be picked by name, `cargo bench -p obol-benches --bench queue -- flush memory`; without a name all are run.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

mod flush;
mod hand_out;
mod latency;
mod open;
mod peers;
mod size;
mod store;
mod sustained;

use std::process::ExitCode;

use obol_benches::rows;

/// Name, and what is run.
const PARTS: [(&str, fn()); 6] = [
    ("dequeue", hand_out::run),
    ("sustained", sustained::run),
    ("latency", latency::run),
    ("flush", flush::run),
    ("open", open::run),
    ("size", size::run),
];

fn main() -> ExitCode {
    if open::is_child() {
        open::child();
        return ExitCode::SUCCESS;
    }
    rows::begin();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
    ExitCode::SUCCESS
}
