# Names for the things one does here. Everything also works without `just`: see the scripts.

# All tests, as CI runs them.
test:
    scripts/test

# The whole story on this machine.
demo:
    cargo run -p obol -- demo

# Everything CI checks.
ci:
    .ci/run

# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# One fuzz target for a number of seconds: just fuzz token 60
fuzz target seconds="60":
    scripts/fuzz {{target}} {{seconds}}

# All benchmarks and their peers, as one table; some only: just bench queue
bench *benches:
    scripts/bench {{benches}}

# The long form of the tests that look for broken promises; parts by name: just soak power kills followers flips growth model
soak *parts:
    scripts/soak {{parts}}

# Known advisories of what we depend on; needs the network.
advisories:
    cargo deny check advisories
