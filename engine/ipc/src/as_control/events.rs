//! Security events: who is listened to, who is told, and a trial of the way from a token to those who refuse.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::Label;
use crate::time::UtcTime;

/// Result of `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventsResult {
    /// Who is listened to.
    pub transmitters: Vec<TransmitterState>,
    /// Who is told.
    pub outlets: Vec<OutletState>,
}

/// One who is listened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransmitterState {
    /// Its name.
    pub issuer: String,
    /// How many keys of its are known.
    pub keys: u32,
    /// When they were fetched last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_fetched_at: Option<UtcTime>,
    /// Why they could not be fetched since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tokens that were carried out.
    pub taken: u64,
    /// Tokens that had been carried out before.
    pub again: u64,
    /// Tokens about nobody who has agents here.
    pub unknown: u64,
    /// Tokens that were refused.
    pub refused: u64,
    /// When a token of its was taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<UtcTime>,
}

/// One who is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutletState {
    /// Its name.
    pub name: String,
    /// What it is: `stream`, `webhook` or `mail`.
    pub kind: String,
    /// How much waits for it.
    pub waiting: u64,
    /// How much it has taken since the service began.
    pub sent: u64,
    /// How much was given up since then.
    pub dropped: u64,
    /// Why it took nothing the last time, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Parameters of `testEvent`: an agent, or a user and who knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestEventParams {
    /// The agent, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Label>,
    /// The user's name where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Label>,
    /// Who knows the user; `local` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Label>,
    /// The event: `session-revoked` or `account-disabled`.
    pub event: Label,
}

binary_struct! {
    EventsResult { transmitters, outlets }
    TransmitterState { issuer, keys, keys_fetched_at, error, taken, again, unknown, refused, heard_at }
    OutletState { name, kind, waiting, sent, dropped, error }
    TestEventParams { agent, user, issuer, event }
}
