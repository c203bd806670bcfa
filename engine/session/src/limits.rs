//! How long and how many: the bounds of a session and of what is in it.

/// The longest document of an agent's half, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// The longest list of resource servers' halves, in bytes: room for 100,000 of them.
pub const MAX_LIST_BYTES: usize = 64 << 20;
/// The most grants in one session.
pub const MAX_GRANTS: usize = 4096;
/// The most resource servers in one session.
pub const MAX_RESOURCE_SERVERS: usize = 256;
/// The longest tool name and agent instance id, in bytes of visible ASCII.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest audience, in bytes without control characters.
pub const MAX_AUDIENCE_BYTES: usize = 2048;
/// A token's life where the grant does not say, in seconds.
pub const DEFAULT_TTL_SECS: u64 = 60;
/// The longest life a token may have, in seconds.
pub const MAX_TTL_SECS: u64 = 3600;

/// Whether this can be the name of a tool or of an agent instance: 1 to [`MAX_NAME_BYTES`] bytes of visible ASCII.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether this can be an audience: 1 to [`MAX_AUDIENCE_BYTES`] bytes without control characters.
pub fn is_audience(audience: &str) -> bool {
    (1..=MAX_AUDIENCE_BYTES).contains(&audience.len()) && !audience.contains(char::is_control)
}
