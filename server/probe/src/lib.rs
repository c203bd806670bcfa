//! What every server of this machine does the same way for those who ask it.
//!
//! Plain values in and out: no sockets, no HTTP library, nothing else of Obol.

pub mod host;
pub mod metrics;
pub mod problem;
#[cfg(feature = "tls")]
pub mod tls;
