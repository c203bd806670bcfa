//! What tests, benchmarks and fuzz targets share: one session with fixed keys, its two halves, a forge that can get every
//! part of a token wrong, a resource server in this process, and real processes to start, ask and kill.
//!
//! Everything here panics where it cannot go on.

#![allow(clippy::new_without_default, reason = "what makes files and servers is begun by name")]

pub mod certificates;
pub mod forge;
pub mod halves;
mod keys;
pub mod mint;
pub mod random;
pub mod scope;
pub mod server;

#[cfg(feature = "processes")]
pub mod authority;
#[cfg(feature = "processes")]
pub mod canary;
#[cfg(feature = "processes")]
pub mod home;
#[cfg(feature = "processes")]
pub mod http;
#[cfg(feature = "processes")]
pub mod idp;
#[cfg(feature = "processes")]
pub mod redis;
#[cfg(feature = "processes")]
pub mod reverse;
#[cfg(feature = "processes")]
pub mod rs;
#[cfg(feature = "processes")]
pub mod tqs;

pub use keys::{KEYS, Keys, SESSION};
pub use obol_clock::ManualClock;

/// The audience of every token.
pub const AUDIENCE: &str = "https://api.example/mcp";
/// The organisation of every session.
pub const ORG: &str = "example-org";
/// The tool of the standard scope.
pub const TOOL: &str = "search";
/// The resource of the standard scope.
pub const RESOURCE: &str = "docs/**";
/// When a clock by hand starts, and when tokens are issued unless said otherwise, in Unix seconds.
pub const NOW: u64 = 1_780_000_000;
/// How long a token lives unless said otherwise, in seconds.
pub const LIFE_SECS: u64 = 60;

/// The time of this machine, in Unix seconds.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}
