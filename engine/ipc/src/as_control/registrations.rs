//! Registrations: what waits for a human, and the human's word.

use serde::{Deserialize, Serialize};

use super::agents::{AgentStatus, AgentWishes};
use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::Label;
use crate::scope::scope;
use crate::time::UtcTime;

/// A registration that waits. Its code is known to the agent's own terminal alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingRegistration {
    /// Its id.
    pub registration_id: String,
    /// What the agent says.
    pub wishes: AgentWishes,
    /// The key in words; the agent shows the same.
    pub words: String,
    /// The subject that tokens of this key name.
    pub subject: String,
    /// The address that it came from.
    pub source: String,
    /// When it came.
    pub created_at: UtcTime,
    /// Until when it can be approved.
    pub expires_at: UtcTime,
}

/// Result of `registrations`: as many as one answer holds, the one whose time is over next first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationsResult {
    /// The registrations.
    pub registrations: Vec<WaitingRegistration>,
    /// How many more wait, of the first thousand.
    pub more: u64,
}

/// Parameters of `registration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationParams {
    /// The code, as somebody typed it.
    pub code: Label,
    /// The roles that the agent would get; those that it asks for if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Label>>,
    /// For how many seconds; as the service has it if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
}

/// A grant that an agent would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantPreview {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub audience: String,
    /// What may be done.
    pub actions: Vec<String>,
    /// With what.
    pub resource: String,
}

/// Result of `registration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResult {
    /// The registration.
    pub registration: WaitingRegistration,
    /// The agent as it was approved before, where this renews an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<AgentStatus>,
    /// The roles that the agent would get.
    pub roles: Vec<String>,
    /// For how many seconds.
    pub lifetime_seconds: u64,
    /// Whether policy lets whoever asks approve it so.
    pub allowed: bool,
    /// What policy would grant now, the first of it.
    pub grants: Vec<GrantPreview>,
    /// How many more grants there would be.
    pub more_grants: u64,
}

/// Parameters of `approve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApproveParams {
    /// The code.
    pub code: Label,
    /// The registration that was looked at; another one with this code is not approved.
    pub registration_id: Label,
    /// The roles that the agent gets.
    pub roles: Vec<Label>,
    /// For how many seconds; as the service has it if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
}

scope! {
    /// Which registration is denied. In JSON an object with exactly one of the members `code` and `registration`.
    DenyTarget {
        /// The one with this code.
        Code(Label) = 1,
        /// The one with this id.
        Registration(Label) = 2,
    }
}

/// Parameters of `deny`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DenyParams {
    /// Which.
    pub target: DenyTarget,
    /// Take no more registrations from the same address for an hour.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub block: bool,
}

binary_struct! {
    WaitingRegistration { registration_id, wishes, words, subject, source, created_at, expires_at }
    RegistrationsResult { registrations, more }
    RegistrationParams { code, roles, lifetime_seconds }
    GrantPreview { tool, audience, actions, resource }
    RegistrationResult { registration, renews, roles, lifetime_seconds, allowed, grants, more_grants }
    ApproveParams { code, registration_id, roles, lifetime_seconds }
    DenyParams { target, block }
}
