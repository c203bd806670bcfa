//! Operators of other machines who are let in.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::Label;
use crate::time::UtcTime;

/// Result of `logins`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginsResult {
    /// Those who are let in, oldest first.
    pub logins: Vec<LoginStatus>,
    /// How many more there are.
    pub more: u64,
}

/// An operator of another machine who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginStatus {
    /// The login's name.
    pub login_id: String,
    /// Who it is: issuer and subject.
    pub human: String,
    /// The machine, as it says.
    pub host: String,
    /// The user of that machine, as it says.
    pub user: String,
    /// The address that it was asked from.
    pub source: String,
    /// Since when.
    pub since: UtcTime,
    /// Until when.
    pub until: UtcTime,
}

/// Parameters of `endLogin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndLoginParams {
    /// The login's name, or its human: all of theirs.
    pub login: Label,
}

/// Result of `endLogin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndLoginResult {
    /// How many ended.
    pub ended: u64,
}

binary_struct! {
    LoginsResult { logins, more }
    LoginStatus { login_id, human, host, user, source, since, until }
    EndLoginParams { login }
    EndLoginResult { ended }
}
