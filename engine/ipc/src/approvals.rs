//! A human's yes to a call, on its way: what an agent asks for on `auth.sock`, what the sidecar is told on `control.sock`, and
//! what an operator of the Authentication Service sees on `as-control.sock`.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::frame::EncodeError;
use crate::names::{Audience, Label, ToolName};
use crate::numbers::{WaitMs, optional_whole_number, whole_number};
use crate::time::UtcTime;

/// The most calls that one approval is asked for.
pub const MAX_CALLS: usize = 16;
/// The longest text in one of them, in bytes: arguments, constraints, a purpose.
pub const MAX_CALL_TEXT_BYTES: usize = 4_096;

/// A call that an agent wants to make. What is absent is as the grant has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantedCall {
    /// The tool.
    pub tool: ToolName,
    /// The resource server; needed only where the tool is granted for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// What is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Limits beyond those of the grant, as a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<String>,
    /// The call's arguments, as a JSON object: the human sees them, and a call with others is refused. Absent: with whatever the grant
    /// allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// How often it is made; once if not said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_whole_number")]
    pub count: Option<u64>,
}

/// Parameters of `requestApproval`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestApprovalParams {
    /// The calls that one yes is asked for.
    pub calls: Vec<WantedCall>,
    /// Why they are made, for the human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// For how many seconds after the yes they may be made; five minutes if not said, which is the longest.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_whole_number")]
    pub lifetime_seconds: Option<u64>,
}

/// Parameters of `approvalStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalStatusParams {
    /// The approval.
    pub approval_id: Label,
    /// How long to wait for the human.
    #[serde(default)]
    pub wait_ms: WaitMs,
}

/// How an approval stands. In JSON: `waiting`, `approved`, `denied` or `expired`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ApprovalState {
    /// A human has yet to decide.
    Waiting,
    /// A human said yes.
    Approved,
    /// A human said no.
    Denied,
    /// Nobody decided in time, or the time after a yes is over.
    Expired,
}

/// Result of `requestApproval` and `approvalStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalResult {
    /// The approval; what a human at the Authentication Service decides by.
    pub approval_id: String,
    /// How it stands.
    pub state: ApprovalState,
    /// What each call's tokens are drawn by, in the order in which they were asked for. They are drawn once it is approved.
    pub calls: Vec<String>,
    /// Until when somebody may decide; once it is approved, until when the calls may be made.
    pub expires_at: UtcTime,
}

/// One use of a call that was approved, and what the human said yes to with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedUse {
    /// The transaction: 32 hex digits.
    pub txn_id: String,
    /// The digest of what was approved: 64 hex digits.
    pub digest: String,
}

/// Parameters of `mintApproved`: a call that a human said yes to. One token for each use, minted when it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MintApprovedParams {
    /// What the tokens are drawn by.
    pub approval_id: Label,
    /// The tool.
    pub tool: ToolName,
    /// The resource server.
    pub audience: Audience,
    /// What is done; as the grant has it if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// With what; as the grant has it if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Limits beyond those of the grant, as a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<String>,
    /// Why it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// One for each token.
    pub uses: Vec<ApprovedUse>,
    /// When the human said yes, in Unix seconds.
    #[serde(deserialize_with = "whole_number")]
    pub confirmed_at: u64,
    /// Until when the tokens may be drawn, in Unix seconds.
    #[serde(deserialize_with = "whole_number")]
    pub expires_at: u64,
}

/// A call, as a human is asked about it. What the agent says is freed of what steers a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedCall {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub audience: String,
    /// What policy knows this way of using the tool by.
    pub offer: String,
    /// What is done.
    pub actions: Vec<String>,
    /// With what.
    pub resource: String,
    /// The limits, as a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<String>,
    /// The arguments, as the agent says them. A call with others is refused. Absent: whatever the limits allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// How often.
    pub count: u64,
}

/// A request for approval that waits for a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedApproval {
    /// Its id.
    pub approval_id: String,
    /// The agent's id.
    pub agent_id: String,
    /// The agent's name.
    pub agent: String,
    /// Who answers for the agent.
    pub owner: String,
    /// Why the calls are made, as the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The calls.
    pub calls: Vec<AskedCall>,
    /// For how many seconds after a yes they may be made.
    pub lifetime_seconds: u64,
    /// When it was asked for.
    pub created_at: UtcTime,
    /// Until when somebody may decide.
    pub expires_at: UtcTime,
    /// How it stands.
    pub state: ApprovalState,
    /// Whether policy lets whoever asks say yes.
    pub allowed: bool,
}

/// Result of `approvals`: as many as one answer holds, the one whose time is over next first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalsResult {
    /// Those that wait.
    pub approvals: Vec<AskedApproval>,
    /// How many more wait.
    pub more: u64,
}

/// Parameters of `approval`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalParams {
    /// Which.
    pub approval_id: Label,
}

/// Parameters of `decideApproval`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecideApprovalParams {
    /// Which.
    pub approval_id: Label,
    /// Yes or no.
    pub approve: bool,
}

binary_struct! {
    WantedCall { tool, audience, actions, resource, constraints, arguments, count }
    RequestApprovalParams { calls, purpose, lifetime_seconds }
    ApprovalStatusParams { approval_id, wait_ms }
    ApprovalResult { approval_id, state, calls, expires_at }
    ApprovedUse { txn_id, digest }
    MintApprovedParams {
        approval_id, tool, audience, actions, resource, constraints, purpose, uses, confirmed_at, expires_at
    }
    AskedCall { tool, audience, offer, actions, resource, constraints, arguments, count }
    AskedApproval {
        approval_id, agent_id, agent, owner, purpose, calls, lifetime_seconds, created_at, expires_at, state, allowed
    }
    ApprovalsResult { approvals, more }
    ApprovalParams { approval_id }
    DecideApprovalParams { approval_id, approve }
}

binary_enum! {
    ApprovalState "state of an approval" { Waiting = 0, Approved = 1, Denied = 2, Expired = 3 }
}
