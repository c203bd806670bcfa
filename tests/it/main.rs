//! Tests that cross crates: known answers, whole processes, crashes, attackers. One binary, one folder for each subject.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails by panicking, and says on screen what it skipped"
)]

mod approvals;
mod atp;
mod audit;
mod authenticator;
mod authority;
mod cli;
mod end_to_end;
mod gateway;
mod handshake;
mod house;
mod mcp;
mod people;
mod proof;
mod proxy;
mod queue;
mod resource;
mod sdk;
mod sidecar;
mod token;
mod verify;
