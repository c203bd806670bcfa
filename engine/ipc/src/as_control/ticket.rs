//! What lets others in without a human who looks at each: invitations, and codes for resource servers.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::{Audience, Label};
use crate::secret::TicketText;
use crate::time::UtcTime;

/// Parameters of `invite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InviteParams {
    /// The class that agents must name.
    pub class: Label,
    /// The roles that they get.
    pub roles: Vec<Label>,
    /// How many may use it.
    pub max_agents: u32,
    /// For how many seconds it is good.
    pub lifetime_seconds: u64,
}

/// Parameters of `inviteServer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InviteServerParams {
    /// Its identifier, the audience of tokens for it.
    pub audience: Audience,
    /// The numbers of the suites that it reads.
    pub suites: Vec<u32>,
}

/// Result of `invite` and of `inviteServer`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketResult {
    /// What is to be presented.
    pub ticket: TicketText,
    /// Until when it is good.
    pub expires_at: UtcTime,
}

binary_struct! {
    InviteParams { class, roles, max_agents, lifetime_seconds }
    InviteServerParams { audience, suites }
    TicketResult { ticket, expires_at }
}
