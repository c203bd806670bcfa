//! The figures of the cascade.

/// How far two clocks may be apart unless told otherwise, in seconds (TBAC r41, section 4.3).
pub const DEFAULT_CLOCK_SKEW_SECS: u64 = 60;
/// How long a token may live unless told otherwise, in seconds (section 3.0).
pub const DEFAULT_MAX_TTL_SECS: u64 = 60;
/// How old a human's approval may be when a token is issued on it, in seconds. The text asks for freshness and gives
/// no figure; this is the reference implementation's.
const MAX_APPROVAL_AGE_SECS: u64 = 300;

/// How often a scope may still be delegated unless told otherwise: the length of the longest chain.
pub const DEFAULT_MAX_DELEGATION_DEPTH: u64 = 3;

/// The figures of the cascade; times in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CascadeLimits {
    /// How far two clocks may be apart.
    pub clock_skew: u64,
    /// The longest a token may live.
    pub max_ttl: u64,
    /// The oldest approval a token may be issued on.
    pub max_approval_age: u64,
    /// The highest `delegation_depth` of a token.
    pub max_delegation_depth: u64,
}

impl Default for CascadeLimits {
    fn default() -> Self {
        Self {
            clock_skew: DEFAULT_CLOCK_SKEW_SECS,
            max_ttl: DEFAULT_MAX_TTL_SECS,
            max_approval_age: MAX_APPROVAL_AGE_SECS,
            max_delegation_depth: DEFAULT_MAX_DELEGATION_DEPTH,
        }
    }
}
