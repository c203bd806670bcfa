//! The control protocol: what the operator may say on `control.sock`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::approvals::MintApprovedParams;
use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::frame::EncodeError;
use crate::message::Empty;
use crate::names::{
    AgentInstanceId, Audience, EventKind, Reason, SessionId, ToolName, ValueError, either_case,
    list_in_either_case,
};
use crate::numbers::{AlgorithmSuite, optional_whole_number, whole_number};
use crate::proof::PopPublic;
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};
use crate::scope::scope;
use crate::secret::{SessionDocumentText, SessionPartText};
use crate::time::UtcTime;

protocol! {
    /// The operator's socket.
    ControlProtocol { ControlMethod, ControlRequest, ControlReply }

    /// Give the TQS a session to mint from.
    Provision "provision" (ProvisionParams) -> ProvisionResult;
    /// Destroy what was minted ahead.
    Flush "flush" (FlushParams) -> FlushResult;
    /// Tell the TQS of a security event, which destroys what was minted ahead for its subject.
    SecurityEvent "securityEvent" (SecurityEventParams) -> FlushResult;
    /// Put a new policy epoch into force.
    Policy "policy" (PolicyParams) -> Empty;
    /// Everything about sessions and queues that is not a secret, a page at a time.
    Status "status" (StatusParams) -> StatusResult;
    /// Whether the TQS can do its job.
    Health "health" (Empty) -> HealthResult;
    /// Stop handing out, finish what is under way, and exit.
    Drain "drain" (Empty) -> Empty;
    /// Take new sessions again after a flush.
    Resume "resume" (Empty) -> ResumeResult;
    /// Put a tool on the operator's own list of denials.
    Deny "deny" (ToolParams) -> DenyResult;
    /// Take a tool off that list.
    Allow "allow" (ToolParams) -> AllowResult;
    /// Make a key for proofs of possession, for a session that is to come.
    PopKey "popKey" (Empty) -> PopKeyResult;
    /// Give the TQS a session to mint from, in pieces.
    ProvisionPart "provisionPart" (ProvisionPartParams) -> ProvisionPartResult;
    /// Tell the TQS that the Authentication Service was heard: the leases of its sessions begin anew.
    Lease "lease" (LeaseParams) -> Empty;
    /// Note calls that a human said yes to, whose tokens are minted when they are drawn.
    MintApproved "mintApproved" (MintApprovedParams) -> Empty;
}

/// Parameters of `provision`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvisionParams {
    /// The session document, keys included.
    pub session: SessionDocumentText,
    /// Take the session even if a flush holds new sessions back, and stop holding them back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub resume: bool,
}

/// Result of `provision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionResult {
    /// The session that is now there.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// How many grants it has.
    pub grants: u64,
}

/// Result of `popKey`: the private half stays in the daemon, for some minutes if no session comes that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PopKeyResult {
    /// The public half.
    pub pop_pub: PopPublic,
}

/// Parameters of `provisionPart`: one piece of a session document. The pieces come on one connection and in order; with the
/// last of them the session is taken, or nothing is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvisionPartParams {
    /// Which piece it is, from 0 on; 0 begins anew.
    #[serde(deserialize_with = "whole_number")]
    pub number: u64,
    /// The piece, keys included.
    pub text: SessionPartText,
    /// Whether it is the last.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub last: bool,
    /// With the last: the key of `popKey` that the session's proofs are made with. The document then has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop_pub: Option<PopPublic>,
}

/// Result of `provisionPart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionPartResult {
    /// Bytes of the document that have come.
    pub received: u64,
    /// The session that is now there, after the last piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<ProvisionResult>,
}

/// Parameters of `lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseParams {
    /// How many seconds ago the service was heard.
    #[serde(deserialize_with = "whole_number")]
    pub heard_seconds_ago: u64,
}

scope! {
    /// What a flush or a security event is about. In JSON an object with exactly one of the members `all` (which must be
    /// `true`), `session`, `tool` and `agent`.
    FlushScope {
        /// Everything.
        All = 0,
        /// One session.
        Session(SessionId, read by "either_case") = 1,
        /// One tool, in every session.
        Tool(ToolName) = 2,
        /// Every session of one running agent.
        Agent(AgentInstanceId) = 3,
    }
}

/// Parameters of `flush`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlushParams {
    /// What to destroy.
    pub scope: FlushScope,
    /// Why, for the log.
    pub reason: Reason,
}

/// The most sessions that one answer names.
pub const MAX_NAMED_SESSIONS: usize = 1_024;

/// Result of `flush` and `securityEvent`: what was destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlushResult {
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Partitions of the queue (one per session, tool and audience) that were emptied.
    pub partitions: u64,
    /// Tokens that will now never be handed out.
    pub tokens_discarded: u64,
    /// The sessions that ended, the first [`MAX_NAMED_SESSIONS`] of them: what is left to do is to revoke them where their
    /// tokens are accepted.
    #[serde(default, deserialize_with = "list_in_either_case")]
    pub sessions: Vec<SessionId>,
    /// Whether no new session is taken from now on, until `resume`.
    #[serde(default)]
    pub held: bool,
}

/// Result of `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeResult {
    /// Why new sessions were held back, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
}

/// Why no new session is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// Since when. In JSON: ISO 8601, UTC.
    pub since: UtcTime,
    /// What was flushed.
    pub scope: String,
    /// The reason that was given.
    pub reason: String,
}

/// Parameters of `deny` and `allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolParams {
    /// The tool.
    pub tool: ToolName,
}

/// Result of `deny`. The tool is denied in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DenyResult {
    /// Whether any session grants the tool.
    pub granted: bool,
}

/// Result of `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowResult {
    /// Whether the tool was on the operator's list.
    pub was_denied: bool,
    /// Whether it is on the other list, that of `policy`, and so still denied.
    pub denied_by_policy: bool,
}

/// Parameters of `securityEvent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityEventParams {
    /// What happened.
    pub kind: EventKind,
    /// To whom or what.
    pub subject: FlushScope,
    /// Why, for the log.
    pub reason: Reason,
}

/// Parameters of `policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyParams {
    /// The epoch from which this holds.
    #[serde(deserialize_with = "whole_number")]
    pub epoch: u64,
    /// The tools no token is handed out for from now on, whatever the operator's own list says.
    pub denied_tools: Vec<ToolName>,
}

/// Parameters of `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusParams {
    /// Where the page begins: `next` of the page before; the first page if absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_whole_number")]
    pub from: Option<u64>,
}

/// Result of `status`: sessions, then queues, then denied tools, as many as one answer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusResult {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The user the daemon runs as.
    pub uid: u32,
    /// The users and `@groups` whose processes may draw, as the configuration names them. Empty where agents and daemon are
    /// one user, so that an agent that runs code has the daemon's keys.
    pub agent_users: Vec<String>,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The sessions it holds.
    pub sessions: Vec<SessionStatus>,
    /// The queues it keeps.
    pub tools: Vec<ToolStatus>,
    /// Denials for each tool that was asked for, since the daemon started, whether the tool exists or not. Only on the
    /// first page, and only the first few dozen names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denials: BTreeMap<ToolName, u64>,
    /// Where the next page begins; absent on the last. What comes or goes between two pages may be missed or seen twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Why no new session is taken, while none is. Only on the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// The tools that are denied, whether anybody has a grant for them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DeniedTool>,
}

/// One tool that is denied, in [`StatusResult`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedTool {
    /// The tool.
    pub tool: ToolName,
    /// Whether it is on the operator's own list: `deny`.
    pub by_operator: bool,
    /// Whether it is on the list that came with the policy epoch: `policy`.
    pub by_policy: bool,
}

/// One session in [`StatusResult`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The session.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// The running agent it belongs to.
    pub agent_instance_id: AgentInstanceId,
    /// The negotiated suite, 1 to 4.
    pub algorithm_suite: AlgorithmSuite,
    /// When it ends. In JSON: ISO 8601, UTC.
    pub expires_at: UtcTime,
    /// Whether tokens can still be drawn from it.
    pub state: SessionState,
    /// When its lease ends unless the Authentication Service is heard. In JSON: ISO 8601, UTC. Absent where it has none, and
    /// where the service was not heard since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends_at: Option<UtcTime>,
}

/// What has become of a session. In JSON: `active`, `expired`, `flushed`, `held` or `lapsed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SessionState {
    /// Tokens can be drawn from it.
    Active,
    /// Its time is over, or what is left of it is too short for a token.
    Expired,
    /// It was flushed; its keys are destroyed.
    Flushed,
    /// Nothing is drawn from it before `resume`: a younger session was flushed, and it must not take that one's place.
    Held,
    /// Nothing is drawn from it while the Authentication Service is not heard: its lease is over.
    Lapsed,
}

/// One queue in [`StatusResult`]: a tool for an audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolStatus {
    /// The session its tokens come from.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// The tool.
    pub tool: ToolName,
    /// The resource server its tokens are for.
    pub audience: Audience,
    /// Tokens claimed and ready in memory.
    pub ready: u64,
    /// Tokens in the store.
    pub stored: u64,
    /// Tokens handed out since the daemon started.
    pub handed_out: u64,
    /// Tokens minted since the daemon started.
    pub minted: u64,
    /// Tokens that expired unused since the daemon started.
    pub expired: u64,
    /// Tokens given up for other reasons, such as a flush, since the daemon started.
    pub discarded: u64,
    /// Seconds of life left in the token that would be drawn next; 0 if none is ready.
    pub ttl: u64,
    /// Whether policy denies the tool.
    pub denied: bool,
    /// Whether more are being minted or granted right now, or will be once that is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: in how many milliseconds it makes sense to ask again. Long where minting fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Result of `health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    /// Whether the daemon can do its job right now.
    pub ready: bool,
    /// If not, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

binary_struct! {
    ProvisionParams { session, resume }
    ProvisionResult { session_id, grants }
    PopKeyResult { pop_pub }
    ProvisionPartParams { number, text, last, pop_pub }
    ProvisionPartResult { received, session }
    LeaseParams { heard_seconds_ago }
    FlushParams { scope, reason }
    FlushResult { sessions_ended, partitions, tokens_discarded, sessions, held }
    ResumeResult { hold }
    HoldStatus { since, scope, reason }
    ToolParams { tool }
    DenyResult { granted }
    AllowResult { was_denied, denied_by_policy }
    SecurityEventParams { kind, subject, reason }
    PolicyParams { epoch, denied_tools }
    StatusParams { from }
    StatusResult {
        version, pid, uid, agent_users, uptime_seconds, sessions, tools, denials, next, hold, denied
    }
    DeniedTool { tool, by_operator, by_policy }
    SessionStatus { session_id, agent_instance_id, algorithm_suite, expires_at, state, lease_ends_at }
    ToolStatus {
        session_id, tool, audience, ready, stored, handed_out, minted, expired, discarded, ttl, denied, renewal_pending,
        retry_after_ms
    }
    HealthResult { ready, reason }
}

binary_enum! {
    SessionState "state of a session" { Active = 0, Expired = 1, Flushed = 2, Held = 3, Lapsed = 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(json: &str) -> Result<FlushScope, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_scope_has_exactly_one_member() {
        assert_eq!(scope(r#"{"all":true}"#).unwrap(), FlushScope::All);
        assert_eq!(
            scope(r#"{"session":"00000000000000ff"}"#).unwrap(),
            FlushScope::Session(SessionId::from_u64(255))
        );
        assert_eq!(scope(r#"{"tool":"mail"}"#).unwrap(), FlushScope::Tool(ToolName::new("mail").unwrap()));
        assert_eq!(
            scope(r#"{"agent":"a1"}"#).unwrap(),
            FlushScope::Agent(AgentInstanceId::new("a1").unwrap())
        );
        for refused in [
            "{}",
            "[]",
            "null",
            r#""all""#,
            r#"{"all":false}"#,
            r#"{"all":true,"tool":"mail"}"#,
            r#"{"tool":"mail","tool":"mail"}"#,
            r#"{"everything":true}"#,
            r#"{"session":"ff"}"#,
        ] {
            assert!(scope(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_scope_is_written_the_way_it_is_read() {
        for json in
            [r#"{"all":true}"#, r#"{"session":"00000000000000ff"}"#, r#"{"tool":"t"}"#, r#"{"agent":"a"}"#]
        {
            assert_eq!(serde_json::to_string(&scope(json).unwrap()).unwrap(), json);
        }
    }
}
