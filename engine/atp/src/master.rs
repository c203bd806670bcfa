//! The dialect of npm `agentdom`: a long-lived master credential in a header instead of a signature.

use serde::{Deserialize, Serialize};

use crate::MAX_BODY_BYTES;
use crate::body::BodyError;
use crate::scope::ScopeSet;
use crate::text::Text;

/// The longest label, in bytes.
const MAX_LABEL_BYTES: usize = 64;
/// What token ids begin with; 32 hex digits follow.
const ID_PREFIX: &str = "tok_";
const ID_DIGITS: usize = 32;

/// A request for a token under a master credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssueBody {
    /// None at all asks for the master's default scopes.
    pub scopes: ScopeSet,
    /// Wanted life, in seconds.
    pub ttl_seconds: Option<u64>,
    /// An unproven label.
    pub label: Box<str>,
}

/// The label of a client that names none.
const DEFAULT_LABEL: &str = "agentdom";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    #[serde(borrow, default)]
    scopes: Vec<Text<'a>>,
    /// `null` where the client was asked for something that is not a number.
    #[serde(default)]
    ttl_seconds: Option<u64>,
    #[serde(borrow, default)]
    agent_id: Option<Text<'a>>,
}

impl IssueBody {
    /// Reads a request.
    ///
    /// # Errors
    /// [`BodyError`] names the member that is wrong.
    pub fn parse(json: &[u8]) -> Result<Self, BodyError> {
        let wrong = |field, problem| BodyError { field, problem };
        if json.len() > MAX_BODY_BYTES || json.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong("body", "must be one JSON object of at most 8192 bytes"));
        }
        let read: Read<'_> = serde_json::from_slice(json).map_err(|_| {
            wrong(
                "body",
                "must have scopes (a list), ttl_seconds (a whole number), agent_id (text), and nothing else",
            )
        })?;
        let label = read.agent_id.as_ref().map_or(DEFAULT_LABEL, |label| &label.0);
        if !is_label(label) {
            return Err(wrong("agent_id", "must be 1 to 64 characters of A-Z a-z 0-9 . _ : -"));
        }
        let scopes = ScopeSet::from_texts(read.scopes.iter().map(|scope| &*scope.0))
            .ok_or(wrong("scopes", "must be at most 32 distinct scopes"))?;
        Ok(Self { scopes, ttl_seconds: read.ttl_seconds, label: label.into() })
    }
}

fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// Whether a text has the form of a token's id.
pub fn is_token_id(text: &str) -> bool {
    text.strip_prefix(ID_PREFIX).is_some_and(|digits| {
        digits.len() == ID_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A token's id, from random bytes.
pub fn token_id(random: &[u8; 16]) -> String {
    format!("{ID_PREFIX}{}", obol_secret::text::to_hex(random))
}

/// One entry of the list of a master's tokens.
#[derive(Serialize, Debug)]
pub struct ListEntry<'a> {
    /// The token's id.
    pub id: &'a str,
    /// Its scopes.
    pub scopes: &'a ScopeSet,
    /// Its expiry, in Unix milliseconds.
    pub expires_at: u64,
    /// Its label.
    pub agent_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_the_npm_client_is_read() {
        let read = IssueBody::parse(br#"{"scopes":[],"ttl_seconds":3600,"agent_id":"agentdom"}"#).unwrap();
        assert_eq!((read.scopes.len(), read.ttl_seconds, &*read.label), (0, Some(3600), "agentdom"));
        assert_eq!(
            IssueBody::parse(br#"{"scopes":["a"],"ttl_seconds":null,"agent_id":"x"}"#).unwrap().ttl_seconds,
            None
        );
        for bad in [
            r#"{"scopes":["a","a"]}"#,
            r#"{"agent_id":"a b"}"#,
            r#"{"agent_id":""}"#,
            r#"{"ttl_seconds":1.5}"#,
            r#"{"ttl_seconds":-1}"#,
            r#"{"signature":"00"}"#,
            r#"{"scopes":["a"],"scopes":["b"]}"#,
            "[]",
            "",
        ] {
            assert!(IssueBody::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_of_one_form() {
        let id = token_id(&[0xab; 16]);
        assert!(is_token_id(&id));
        for bad in ["tok_", "tok_AB", "../tok_", &id[1..], &format!("{id}0"), &id.to_uppercase()] {
            assert!(!is_token_id(bad), "{bad}");
        }
    }
}
