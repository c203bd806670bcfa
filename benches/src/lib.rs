//! Benchmarks of Obol and of the peers measured beside it.
