//! What a process closes itself to, once it knows what it needs.
//!
//! What lives here: what a process does to itself before it holds a key ([`harden_process`]), and what it gives up once it
//! has what it needs ([`Sandbox`]): files and ports that are none of its business (Landlock), and system calls that it never
//! makes (seccomp, from the one table in [`calls`]).
//!
//! What it promises: each measure is reported, what is in force and what the system does not have; nothing is ever silently
//! absent. A system that lacks a measure runs without it, in the open.
//!
//! What it must not know: which files a role has, and which role this is.

pub mod calls;
mod filter;
mod harden;
mod measure;
mod sandbox;

pub use harden::harden_process;
pub use measure::{Measure, report};
pub use sandbox::Sandbox;
