//! Limits on how a tool is used (TBAC r41, section 3.3).

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The longest name that an error repeats, in bytes: longer than any that there is.
const LONGEST_SHOWN_BYTES: usize = 31;

/// Limits on how a tool is used; an absent field limits nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Constraints {
    /// The most rows a call may return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// The most calls; always 1 in a token, which is single-use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_calls: Option<u64>,
    /// The longest window a call may look back, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_window_sec: Option<u64>,
    /// Whether the request must arrive encrypted under the token's channel keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_channel_encryption: Option<bool>,
    /// The highest classification of data the call may touch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_classification: Option<String>,
    /// Pattern for each argument (see [`crate::pattern::parameter_matches`]). Present and empty allows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_parameters: Option<BTreeMap<String, String>>,
}

/// The JSON object as it comes. Unknown limits are refused: to drop a limit silently would widen the token.
/// Names that begin with `x-` are a vendor's own remarks and do not limit anything.
#[derive(Deserialize)]
struct Fields {
    max_rows: Option<u64>,
    max_calls: Option<u64>,
    time_window_sec: Option<u64>,
    require_channel_encryption: Option<bool>,
    data_classification: Option<String>,
    allowed_parameters: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: BTreeMap<String, IgnoredAny>,
}

impl TryFrom<Fields> for Constraints {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match fields.other.keys().find(|name| !name.starts_with("x-")) {
            // A long name may be a key in the wrong place.
            Some(name) if name.len() > LONGEST_SHOWN_BYTES => {
                Err("there is no constraint of this name; vendor fields begin with x-".to_owned())
            }
            Some(name) => Err(format!("there is no constraint `{name}`; vendor fields begin with x-")),
            None => Ok(Self {
                max_rows: fields.max_rows,
                max_calls: fields.max_calls,
                time_window_sec: fields.time_window_sec,
                require_channel_encryption: fields.require_channel_encryption,
                data_classification: fields.data_classification,
                allowed_parameters: fields.allowed_parameters,
            }),
        }
    }
}
