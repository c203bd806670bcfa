//! What a token allows: the scope, its rules and its JSON form (TBAC r41, section 3.2).
//!
//! The same rules hold where a scope is minted and where it is verified: [`Scope::to_tlv`] and
//! [`Scope::from_tlv`] both end in [`Scope::check`].

mod approval;
mod canonical;
mod constraints;

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::text::hex_option;
pub use constraints::Constraints;

/// The longest `user_raw_intent`, in bytes of UTF-8.
pub const MAX_INTENT_BYTES: usize = 4096;

/// Why a scope is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScopeError {
    /// The bytes are not canonical, or a field has the wrong type or length (`MALFORMED_TOKEN`).
    Malformed(&'static str),
    /// A required field is missing or breaks a rule of its own (`SCOPE_FIELD_MISSING`).
    Field(&'static str),
    /// `user_raw_intent` is longer than [`MAX_INTENT_BYTES`] (`INTENT_PAYLOAD_TOO_LARGE`).
    IntentTooLarge,
    /// A field, or the whole scope, is longer than 32,767 bytes.
    TooLong,
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed scope: {what}"),
            Self::Field(what) => write!(f, "invalid scope: {what}"),
            Self::IntentTooLarge => write!(f, "user_raw_intent is longer than {MAX_INTENT_BYTES} bytes"),
            Self::TooLong => f.write_str("the scope is longer than 32767 bytes"),
        }
    }
}

impl core::error::Error for ScopeError {}

/// What a token allows, to whom, where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Issuer.
    pub iss: String,
    /// Subject: whose key the session was established with.
    pub sub: String,
    /// The agent instance that may use the token.
    pub agent_instance_id: String,
    /// The one tool the token is for.
    pub tool: String,
    /// The allowed actions, at least one, order kept.
    #[serde(with = "one_or_many")]
    pub action: Vec<String>,
    /// The allowed resources, as a pattern (see [`crate::pattern::ResourcePattern`]).
    pub resource: String,
    /// Limits on how the tool is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// How many times the scope may still be delegated.
    pub delegation_depth: u64,
    /// SHA-256 of the parent's canonical scope, where this one was delegated. Base64url in JSON.
    #[serde(default, with = "base64url_option", skip_serializing_if = "Option::is_none")]
    pub parent_token_hash: Option<[u8; 32]>,
    /// Whether the request must prove possession of the session's key.
    #[serde(default)]
    pub require_pop: bool,
    /// The resource server the token is for.
    pub aud: String,
    /// The organisation that owns the session.
    pub org_id: String,
    /// 0 to 3; 3 means a human confirmed this very call.
    pub trust_level: u64,
    /// When the human confirmed, in Unix seconds; 0 below trust level 3.
    pub human_confirmed_at: u64,
    /// What the human confirmed; at trust level 3 only. Hex in JSON.
    #[serde(default, with = "hex_option", skip_serializing_if = "Option::is_none")]
    pub approval_digest: Option<[u8; 32]>,
    /// Why the call is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The transaction the call belongs to. Hex in JSON.
    #[serde(default, with = "hex_option", skip_serializing_if = "Option::is_none")]
    pub txn_id: Option<[u8; 16]>,
    /// What the user asked for, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_raw_intent: Option<String>,
    /// SHA-256 of `user_raw_intent` as 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent_hash: Option<String>,
}

impl Scope {
    /// Checks every rule that a scope must keep by itself, whoever asks.
    ///
    /// # Errors
    ///
    /// [`ScopeError`] names the first rule that is broken.
    pub fn check(&self) -> Result<(), ScopeError> {
        self.check_required()?;
        self.check_trust()?;
        self.check_intent()
    }

    fn check_required(&self) -> Result<(), ScopeError> {
        let required = [
            (&self.iss, "iss is empty"),
            (&self.sub, "sub is empty"),
            (&self.agent_instance_id, "agent_instance_id is empty"),
            (&self.tool, "tool is empty"),
            (&self.resource, "resource is empty; use ** for the whole tool"),
            (&self.aud, "aud is empty"),
            (&self.org_id, "org_id is empty"),
        ];
        if let Some((_, what)) = required.into_iter().find(|(value, _)| value.is_empty()) {
            return Err(ScopeError::Field(what));
        }
        if self.action.is_empty() { Err(ScopeError::Field("action is missing")) } else { Ok(()) }
    }

    fn check_trust(&self) -> Result<(), ScopeError> {
        match (self.trust_level, self.human_confirmed_at, &self.approval_digest) {
            (0..=2, 0, None) => Ok(()),
            (0..=2, 0, Some(_)) => {
                Err(ScopeError::Field("approval_digest must be absent below trust level 3"))
            }
            (0..=2, _, _) => Err(ScopeError::Field("human_confirmed_at must be 0 below trust level 3")),
            (3, 0, _) => Err(ScopeError::Field("trust level 3 requires human_confirmed_at")),
            (3, _, None) => Err(ScopeError::Field("trust level 3 requires approval_digest")),
            (3, _, Some(_)) => Ok(()),
            _ => Err(ScopeError::Field("trust_level must be 0, 1, 2 or 3")),
        }
    }

    fn check_intent(&self) -> Result<(), ScopeError> {
        match (&self.user_raw_intent, &self.intent_hash) {
            (None, None) => Ok(()),
            (Some(intent), _) if intent.len() > MAX_INTENT_BYTES => Err(ScopeError::IntentTooLarge),
            (Some(_), Some(hash)) if crate::text::from_hex::<32>(hash).is_some() => Ok(()),
            (Some(_), Some(_)) => Err(ScopeError::Field("intent_hash must be 64 lower-case hex digits")),
            _ => Err(ScopeError::Field("user_raw_intent and intent_hash go together")),
        }
    }
}

/// JSON form of `action`: a string, or a list of strings.
pub mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    /// Writes one action as a string, and several as a list.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(actions: &[String], to: S) -> Result<S::Ok, S::Error> {
        match actions {
            [one] => one.serialize(to),
            many => many.serialize(to),
        }
    }

    /// Reads either.
    ///
    /// # Errors
    ///
    /// If it is neither a text nor a list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

/// JSON form of `parent_token_hash`.
mod base64url_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => to.serialize_some(&crate::text::to_base64url(hash)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        crate::text::from_base64url(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Some)
            .ok_or_else(|| D::Error::custom("expected 32 bytes of base64url without padding"))
    }
}
