//! What identifies a session, without its tokens.

use obol_token::{SessionId, Suite};

/// See the module's header.
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    pub(crate) agent_instance_id: String,
    pub(crate) suite: Suite,
    pub(crate) established_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) lease_secs: Option<u64>,
    pub(crate) order: u64,
    pub(crate) slot: u32,
}
