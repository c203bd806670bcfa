//! The resource server's control protocol: what the operator may say on `rs-control.sock`.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::control::{HealthResult, StatusParams};
use crate::frame::EncodeError;
use crate::message::Empty;
use crate::names::{
    AgentInstanceId, Audience, Reason, SessionId, ValueError, either_case, list_in_either_case,
};
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};
use crate::scope::scope;
use crate::time::UtcTime;

protocol! {
    /// The socket of the resource server's operator.
    RsControlProtocol { RsControlMethod, RsControlRequest, RsControlReply }

    /// Stop accepting tokens of a session, or of an agent's sessions, for good.
    Revoke "revoke" (RevokeParams) -> RevokeResult;
    /// The sessions whose tokens are accepted, without their keys, a page at a time.
    Status "status" (StatusParams) -> RsStatusResult;
    /// Whether tokens can be verified and spent.
    Health "health" (Empty) -> HealthResult;
    /// Read the file of sessions again.
    Reload "reload" (Empty) -> ReloadResult;
    /// How the server stands with the Authentication Service that it follows.
    Authority "authority" (Empty) -> AuthorityStanding;
}

scope! {
    /// Whose tokens are not accepted any more. In JSON an object with exactly one of the members `all` (which must be
    /// `true`), `session` and `agent`.
    RevokeScope {
        /// Those of every session there is.
        All = 0,
        /// Those of one session.
        Session(SessionId, read by "either_case") = 1,
        /// Those of every session of one running agent.
        Agent(AgentInstanceId) = 2,
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
    #[serde(deserialize_with = "list_in_either_case")]
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
    #[serde(deserialize_with = "either_case")]
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

/// Result of `authority`. All but `follows` is absent where the server follows none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStanding {
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whether it is heard now.
    pub follows: bool,
    /// When nothing is accepted any more unless it is heard; absent where it was not heard yet, and nothing is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends_at: Option<UtcTime>,
    /// The number of the last event that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// What is wrong, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

binary_struct! {
    AuthorityStanding { service, follows, lease_ends_at, event, problem }
    RevokeParams { scope, reason }
    RevokeResult { revoked, sessions, kept }
    RsStatusResult { version, pid, audience, kept, sessions, next }
    RsSessionStatus { session_id, agent_instance_id, expires_at, state }
    ReloadResult { sessions }
}

binary_enum! {
    RsSessionState "state of a session" { Active = 0, Expired = 1, Revoked = 2 }
    Kept "way to keep sessions" { Memory = 0, File = 1, Shared = 2 }
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
