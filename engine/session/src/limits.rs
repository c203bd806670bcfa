//! How long and how many: the bounds of a session and of what is in it.

use obol_token::Audience;
pub use obol_token::{MAX_AUDIENCE_BYTES, MAX_NAME_BYTES, is_name};

/// The longest document of an agent's half, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// The longest list of resource servers' halves, in bytes: room for 100,000 of them.
pub const MAX_LIST_BYTES: usize = 64 << 20;
/// The most grants in one session.
pub const MAX_GRANTS: usize = 4096;
/// The most resource servers in one session.
pub const MAX_RESOURCE_SERVERS: usize = 256;
/// The longest lease of a session, in seconds: how long tokens are handed out while nobody hears the service that opened it.
pub const MAX_LEASE_SECS: u64 = 900;
/// A token's life where the grant does not say, in seconds.
pub const DEFAULT_TTL_SECS: u64 = 60;
/// The longest life a token may have, in seconds.
pub(crate) const MAX_TTL_SECS: u64 = 3600;

/// Whether a document may name this audience: 1 to [`MAX_AUDIENCE_BYTES`] bytes without any control character, also beyond
/// ASCII.
pub fn is_audience(audience: &str) -> bool {
    Audience::new(audience).is_ok() && !audience.contains(char::is_control)
}
