//! How much the directory keeps of each thing, and for how long.

/// The most rows that a method gives at a time.
pub const MAX_PAGE: usize = 1_000;
/// The most live sessions of one agent; one more ends the oldest.
pub const MAX_LIVE_SESSIONS: usize = 16;
/// How long a registration waits for a human, in seconds.
pub(crate) const PENDING_SECS: u64 = 600;
/// The most registrations that wait from one source.
pub(crate) const MAX_PENDING_PER_SOURCE: usize = 5;
/// How often what shows that a human's yes came back may be wrong.
pub(crate) const MAX_WRONG_CODES: u8 = 3;
/// The most registrations that wait in all.
pub(crate) const MAX_PENDING: u64 = 10_000;
/// The most approvals by one human within an hour.
pub(crate) const MAX_APPROVALS_PER_HOUR: usize = 20;
/// The most humans that are known.
pub(crate) const MAX_PERSONS: u64 = 1_000_000;
/// The most agents, revoked ones included.
pub(crate) const MAX_AGENTS: u64 = 1_000_000;
/// How long the key that an agent replaced is still taken, in seconds.
pub const KEY_OVERLAP_SECS: u64 = 600;
/// How long a handshake's answer is kept, in seconds: no cookie opens that is older.
pub(crate) const ANSWER_KEPT_SECS: u64 = 2 * obol_handshake::KEY_LIFE_SECS;
/// The most answers that are kept.
pub(crate) const MAX_ANSWERS: u64 = 500_000;
/// How long an event is kept, in seconds.
pub(crate) const EVENT_KEPT_SECS: u64 = 3_600;
/// The most events that are kept.
pub(crate) const MAX_EVENTS: u64 = 200_000;

/// How long it is remembered that a security event was heard, in seconds: 30 days.
pub(crate) const SET_KEPT_SECS: u64 = 30 * 86_400;
/// The most security events that are remembered.
pub(crate) const MAX_SETS: u64 = 500_000;

/// The most versions of the policy whose texts are kept, so that there is a way back to them.
pub(crate) const MAX_POLICY_TEXTS: u64 = 50;
/// The most versions of the policy of which it is known when they came into force.
pub(crate) const MAX_POLICY_VERSIONS: u64 = 10_000;
