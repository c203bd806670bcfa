//! What a provider answers, in words that both dialects share.

use core::fmt;

use serde::Serialize;

use crate::scope::ScopeSet;

/// Every refusal, by the name that stands in its `error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AtpErrorCode {
    /// 400: the form is wrong; the description names the field.
    InvalidRequest,
    /// 405: the route does not allow the method.
    MethodNotAllowed,
    /// 413: more than a body may have.
    TooLarge,
    /// 415: the body is not `application/json`.
    UnsupportedMediaType,
    /// 401: wrong signature, unknown agent or retired secret, all in the same bytes.
    InvalidSignature,
    /// 401: signed for another endpoint.
    WrongAudience,
    /// 401: signed too long ago, or in the future.
    StaleTimestamp,
    /// 401: this very request was answered before.
    Replayed,
    /// 401: the master credential is unknown.
    InvalidMaster,
    /// 401: no token, or one that is not valid.
    InvalidToken,
    /// 403: the agent is disabled.
    AgentDisabled,
    /// 403: the token is valid and lacks the scope.
    InsufficientScope,
    /// 400: a scope that is not offered, or above the agent's ceiling, or none at all.
    InvalidScope,
    /// 404: no such route, or no such token of this master.
    NotFound,
    /// 429: too many requests.
    TooManyRequests,
    /// 503: a store, the audit log or a fence; nothing was issued.
    Unavailable,
}

impl AtpErrorCode {
    /// All of them, in the order in which metrics list them.
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidSignature,
        Self::WrongAudience,
        Self::StaleTimestamp,
        Self::Replayed,
        Self::InvalidMaster,
        Self::InvalidToken,
        Self::AgentDisabled,
        Self::InsufficientScope,
        Self::InvalidScope,
        Self::NotFound,
        Self::TooManyRequests,
        Self::Unavailable,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.parts().1
    }

    fn parts(self) -> (&'static str, u16) {
        match self {
            Self::InvalidRequest => ("invalid_request", 400),
            Self::MethodNotAllowed => ("method_not_allowed", 405),
            Self::TooLarge => ("request_too_large", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
            Self::InvalidSignature => ("invalid_signature", 401),
            Self::WrongAudience => ("wrong_audience", 401),
            Self::StaleTimestamp => ("stale_timestamp", 401),
            Self::Replayed => ("replayed", 401),
            Self::InvalidMaster => ("invalid_master", 401),
            Self::InvalidToken => ("invalid_token", 401),
            Self::AgentDisabled => ("agent_disabled", 403),
            Self::InsufficientScope => ("insufficient_scope", 403),
            Self::InvalidScope => ("invalid_scope", 400),
            Self::NotFound => ("not_found", 404),
            Self::TooManyRequests => ("too_many_requests", 429),
            Self::Unavailable => ("unavailable", 503),
        }
    }
}

impl fmt::Display for AtpErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of a refusal.
#[derive(Serialize, Debug)]
pub struct AtpRefusal<'a> {
    /// An [`AtpErrorCode`].
    pub error: &'static str,
    /// For people; never holds a value that was sent.
    pub error_description: &'a str,
}

/// The answer that carries a token, in both dialects.
#[derive(Serialize)]
pub struct TokenAnswer<'a> {
    /// The token; opaque to the agent.
    pub token: &'a str,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// The token's expiry, in Unix milliseconds.
    pub expires_at: u64,
    /// What was granted: what was asked for, sorted.
    pub scopes_granted: &'a ScopeSet,
    /// The same under the master dialect's name.
    pub scopes: &'a ScopeSet,
    /// The token's id, which stays over rotations.
    pub id: &'a str,
    /// Whom it was issued to.
    pub agent_id: &'a str,
}

impl fmt::Debug for TokenAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAnswer").field("id", &self.id).finish_non_exhaustive()
    }
}
