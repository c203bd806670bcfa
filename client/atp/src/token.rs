//! What an agent asks for, and what it gets.

use obol_atp::{AtpScope, ScopeSet, purpose};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::AtpError;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRequest {
    pub(crate) scopes: ScopeSet,
    pub(crate) purpose: Option<String>,
}

impl TokenRequest {
    /// For these scopes.
    ///
    /// # Errors
    /// [`AtpError::Argument`] if there are none, or one is not a scope.
    pub fn new<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Result<Self, AtpError> {
        let wrong = AtpError::Argument(
            "ask for 1 to 32 scopes, each of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -",
        );
        let scopes: Result<Vec<AtpScope>, _> = scopes.into_iter().map(AtpScope::new).collect();
        match scopes {
            Ok(scopes) if (1..=obol_atp::MAX_SCOPES).contains(&scopes.len()) => {
                Ok(Self { scopes: scopes.into_iter().collect(), purpose: None })
            }
            _ => Err(wrong),
        }
    }

    /// Says what it is for.
    ///
    /// # Errors
    /// [`AtpError::Argument`] if it is too long, or holds control or format characters.
    pub fn purpose(mut self, text: &str) -> Result<Self, AtpError> {
        if !purpose::is_valid(text) {
            return Err(AtpError::Argument(
                "a purpose is at most 256 bytes long, without control or format characters",
            ));
        }
        self.purpose = Some(text.to_owned());
        Ok(self)
    }
}

/// A token.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub access_token: Zeroizing<String>,
    /// Seconds that are left.
    pub expires_in: u64,
    /// Unix milliseconds, by this machine's clock.
    pub expires_at: u64,
    /// When it is refreshed, in Unix milliseconds: ahead of its end, and for each token at another moment.
    pub refresh_at: u64,
    /// Sorted.
    pub scopes_granted: Vec<String>,
    /// This agent.
    pub agent_id: String,
    /// The token's id.
    pub id: String,
    /// Where it is kept.
    pub stored_in: &'static str,
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What an issuer says about a token.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct TokenVerdict {
    /// Whether it is valid.
    pub valid: bool,
    /// Its scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Its end, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whom it was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
}

/// What came of a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// Whether there was a token.
    pub had_token: bool,
    /// Whether the provider knows. If not, it is told before the next request.
    pub remote: bool,
}
