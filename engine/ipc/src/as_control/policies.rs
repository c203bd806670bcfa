//! The policy: its texts in parts, which are known by what they are, and what is done with them.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::frame::EncodeError;
use crate::names::Label;
use crate::time::UtcTime;

/// Parameters of `policyPart`. Parts come in order; files as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPartParams {
    /// The digest of the whole version: what it will be activated by.
    pub digest: Label,
    /// Whether this is the first part; what came before of the same version is forgotten.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub first: bool,
    /// The file that it goes to the end of: `catalogue.toml`, or a file of policies.
    pub file: String,
    /// The text.
    pub text: String,
}

/// What is done with a version. In JSON: `force`, `observe`, `weigh` or `stopObserving`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActivateMode {
    /// It is put in force.
    Force,
    /// It is looked at beside the one in force: what it would change is audited, and nothing changes.
    Observe,
    /// It is said what it would change, and nothing changes.
    Weigh,
    /// No version is looked at any more; which is named does not matter.
    StopObserving,
}

/// Parameters of `activate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivateParams {
    /// The version: one whose parts were sent, or one that was in force before.
    pub digest: Label,
    /// What is done with it.
    pub mode: ActivateMode,
    /// That it is meant, whatever it takes away.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub anyway: bool,
}

/// What a version changes for the agents there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyImpact {
    /// How many agents were asked about.
    pub agents: u64,
    /// How many grants they would get by the version in force.
    pub held: u64,
    /// How many of these they lose.
    pub lost: u64,
    /// How many agents get less of something.
    pub narrowed: u64,
    /// How many only get more.
    pub widened: u64,
}

/// Result of `activate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivateResult {
    /// The version that came into force, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<PolicyVersionStatus>,
    /// What it changes, or would.
    pub impact: PolicyImpact,
    /// What is valid in it and may be a mistake, the first of it.
    pub warnings: Vec<String>,
    /// How long a session that is open now keeps its grants at most, in seconds.
    pub sessions_last_seconds: u64,
}

/// A version that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersionStatus {
    /// Its number.
    pub version: u64,
    /// The epoch that began with it.
    pub epoch: u64,
    /// Its digest.
    pub digest: String,
    /// Who put it in force.
    pub by: String,
    /// When.
    pub at: UtcTime,
}

/// Result of `policyVersions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersionsResult {
    /// The newest versions, oldest first; the last one is in force.
    pub versions: Vec<PolicyVersionStatus>,
    /// The digest of the version that is only looked at, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
}

binary_struct! {
    PolicyPartParams { digest, first, file, text }
    ActivateParams { digest, mode, anyway }
    PolicyImpact { agents, held, lost, narrowed, widened }
    ActivateResult { version, impact, warnings, sessions_last_seconds }
    PolicyVersionStatus { version, epoch, digest, by, at }
    PolicyVersionsResult { versions, observed }
}

binary_enum! {
    ActivateMode "thing to do with a version" { Force = 0, Observe = 1, Weigh = 2, StopObserving = 3 }
}
