//! The resource server's control protocol: what the operator may say on `rs-control.sock`.

use serde::{Deserialize, Serialize};

use crate::control::{HealthResult, StatusParams};
use crate::message::Empty;
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};
use crate::time::UtcTime;
use crate::value::{AgentInstanceId, Audience, Reason, SessionId, ValueError};

protocol! {
    /// The socket of the resource server's operator.
    RsControlProtocol { RsControlMethod, RsControlRequest, RsControlReply }

    /// Accept no token of a session, or of an agent's sessions, any more, for good.
    Revoke "revoke" (RevokeParams) -> RevokeResult;
    /// The sessions whose tokens are accepted, without their keys, a page at a time.
    Status "status" (StatusParams) -> RsStatusResult;
    /// Whether tokens can be verified and spent.
    Health "health" (Empty) -> HealthResult;
    /// Read the file of sessions again.
    Reload "reload" (Empty) -> ReloadResult;
}

/// Whose tokens are not accepted any more. In JSON an object with exactly one of the members `all` (which must be
/// `true`), `session` and `agent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ScopeMember", into = "ScopeMember")]
pub enum RevokeScope {
    /// Those of every session there is.
    All,
    /// Those of one session.
    Session(SessionId),
    /// Those of every session of one running agent.
    Agent(AgentInstanceId),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ScopeMember {
    All(bool),
    Session(SessionId),
    Agent(AgentInstanceId),
}

impl TryFrom<ScopeMember> for RevokeScope {
    type Error = ValueError;

    fn try_from(member: ScopeMember) -> Result<Self, ValueError> {
        match member {
            ScopeMember::All(true) => Ok(Self::All),
            ScopeMember::All(false) => Err(ValueError::new("all", "true where it is given")),
            ScopeMember::Session(session) => Ok(Self::Session(session)),
            ScopeMember::Agent(agent) => Ok(Self::Agent(agent)),
        }
    }
}

impl From<RevokeScope> for ScopeMember {
    fn from(scope: RevokeScope) -> Self {
        match scope {
            RevokeScope::All => Self::All(true),
            RevokeScope::Session(session) => Self::Session(session),
            RevokeScope::Agent(agent) => Self::Agent(agent),
        }
    }
}

/// Parameters of `revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokeParams {
    /// Whose tokens.
    pub scope: RevokeScope,
    /// Why, for the log.
    pub reason: Reason,
}

/// Result of `revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeResult {
    /// How many sessions it found; those that were revoked before included.
    pub revoked: u64,
    /// Which they are, the first [`MAX_NAMED_SESSIONS`](crate::control::MAX_NAMED_SESSIONS) of them.
    pub sessions: Vec<SessionId>,
    /// Where that is written down.
    pub kept: Kept,
}

/// Where a resource server keeps its sessions, and what was revoked. In JSON: `memory`, `file` or `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Kept {
    /// Nowhere: a restart forgets what was revoked.
    Memory,
    /// In a file of its own: revoked for good.
    File,
    /// In a store that several servers share: revoked for good, on all of them.
    Shared,
}

/// Result of `status`: as many sessions as one answer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RsStatusResult {
    /// The server's version.
    pub version: String,
    /// The server's process id.
    pub pid: u32,
    /// What tokens must be for.
    pub audience: Audience,
    /// Where its sessions are kept.
    pub kept: Kept,
    /// The sessions it knows, by number.
    pub sessions: Vec<RsSessionStatus>,
    /// Where the next page begins; absent on the last. What comes or goes between two pages may be missed or seen twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One session in [`RsStatusResult`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RsSessionStatus {
    /// The session.
    pub session_id: SessionId,
    /// The running agent it belongs to, where the server was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_instance_id: Option<AgentInstanceId>,
    /// Until when tokens may be issued, where that is limited. In JSON: ISO 8601, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UtcTime>,
    /// Whether its tokens are accepted.
    pub state: RsSessionState,
}

/// What has become of a session at a resource server. In JSON: `active`, `expired` or `revoked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RsSessionState {
    /// Its tokens are accepted.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// Result of `reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadResult {
    /// How many sessions the file lists.
    pub sessions: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_exactly_one_member_and_is_written_the_way_it_is_read() {
        for json in [r#"{"all":true}"#, r#"{"session":"00000000000000ff"}"#, r#"{"agent":"a"}"#] {
            let scope: RevokeScope = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&scope).unwrap(), json);
        }
        for refused in ["{}", "[]", r#"{"all":false}"#, r#"{"tool":"t"}"#, r#"{"all":true,"agent":"a"}"#] {
            assert!(serde_json::from_str::<RevokeScope>(refused).is_err(), "{refused}");
        }
    }
}
