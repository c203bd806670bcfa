//! Tests that cross crates: known answers, whole processes, crashes, attackers. One binary, one module each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails by panicking, and says on screen what it skipped"
)]

mod known_answers;
