//! Resource servers: their copies, and who has confirmed what.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::{Audience, Label, SessionId, list_in_either_case};
use crate::time::UtcTime;

/// A running copy of a resource server that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyStatus {
    /// Its id.
    pub copy_id: String,
    /// Its resource server.
    pub audience: String,
    /// Whether it follows the service now.
    pub follows: bool,
    /// Whether it says that it has applied the event that was asked about, or the newest.
    pub confirmed: bool,
    /// When it accepts nothing any more unless it hears from the service.
    pub lease_ends_at: UtcTime,
}

/// An agent's sidecar, of which the authenticator beside it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// The agent.
    pub agent_id: String,
    /// Whether its authenticator follows the service now.
    pub follows: bool,
    /// Whether it says that what was minted ahead is destroyed.
    pub confirmed: bool,
}

/// Parameters of `confirmations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmationsParams {
    /// The event's number, as `disable` gave it.
    pub event: u64,
    /// The resource servers that must confirm it.
    pub audiences: Vec<Audience>,
    /// The agents whose sidecars must.
    pub agents: Vec<Label>,
    /// Sessions whose agents' sidecars must as well.
    #[serde(deserialize_with = "list_in_either_case")]
    pub sessions: Vec<SessionId>,
    /// How long to wait for those who follow, in milliseconds, at most 10,000.
    pub wait_ms: u32,
}

/// Result of `confirmations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationsResult {
    /// The copies of those resource servers, those first that have not confirmed; as many as one answer holds.
    pub copies: Vec<CopyStatus>,
    /// How many more there are.
    pub more_copies: u64,
    /// The agents' sidecars.
    pub sidecars: Vec<SidecarStatus>,
}

/// A resource server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Its identifier, the audience of tokens for it.
    pub audience: String,
    /// The numbers of the suites that it reads.
    pub suites: Vec<u32>,
}

/// Result of `servers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServersResult {
    /// The resource servers; as many as one answer holds.
    pub servers: Vec<ServerStatus>,
    /// Their copies; as many as one answer holds.
    pub copies: Vec<CopyStatus>,
    /// How many more of either there are.
    pub more: u64,
}

/// Parameters of `removeCopy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveCopyParams {
    /// Its id.
    pub copy_id: Label,
}

/// Result of `removeCopy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveCopyResult {
    /// Whether there was such a copy.
    pub matched: bool,
}

binary_struct! {
    CopyStatus { copy_id, audience, follows, confirmed, lease_ends_at }
    SidecarStatus { agent_id, follows, confirmed }
    ConfirmationsParams { event, audiences, agents, sessions, wait_ms }
    ConfirmationsResult { copies, more_copies, sidecars }
    ServerStatus { audience, suites }
    ServersResult { servers, copies, more }
    RemoveCopyParams { copy_id }
    RemoveCopyResult { matched }
}
