//! A refusal on its way out: one of the protocol's codes, a sentence, and the headers that go with it.

use core::time::Duration;
use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use obol_atp::{AtpErrorCode, AtpRefusal, BodyError};
use obol_verify::SpendError;
use serde::Serialize;

/// Seconds that a client is asked to wait when something here cannot be written.
const RETRY_SECS: u64 = 5;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) code: AtpErrorCode,
    description: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Denied {
    pub(crate) fn new(code: AtpErrorCode, description: &'static str) -> Self {
        Self { code, description: Cow::Borrowed(description), header: None }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(AtpErrorCode::Unavailable, "nothing can be issued, checked or revoked at the moment")
            .with(RETRY_AFTER, HeaderValue::from(RETRY_SECS))
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let wait_secs = wait.as_secs().saturating_add(1);
        Self::new(AtpErrorCode::TooManyRequests, "too many requests")
            .with(RETRY_AFTER, HeaderValue::from(wait_secs))
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self::new(AtpErrorCode::MethodNotAllowed, "this route does not allow the method")
            .with(ALLOW, HeaderValue::from_static(allow))
    }

    pub(crate) fn token(challenge: &str, code: AtpErrorCode, description: &'static str) -> Self {
        let denied = Self::new(code, description);
        // Scopes are visible ASCII.
        match HeaderValue::try_from(challenge) {
            Ok(value) => denied.with(WWW_AUTHENTICATE, value),
            Err(_) => denied,
        }
    }

    pub(crate) fn invalid_signature() -> Self {
        Self::new(AtpErrorCode::InvalidSignature, "the signature is not valid for this agent")
    }
}

impl From<BodyError> for Denied {
    fn from(error: BodyError) -> Self {
        Self { code: AtpErrorCode::InvalidRequest, description: error.to_string().into(), header: None }
    }
}

impl From<SpendError> for Denied {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::AlreadySpent => {
                Self::new(AtpErrorCode::Replayed, "this request was answered before; sign a new one")
            }
            SpendError::Forgotten => Self::unavailable(),
            SpendError::Unavailable(why) => {
                tracing::error!(%why, "replay marks cannot be written");
                Self::unavailable()
            }
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let body = AtpRefusal { error: self.code.as_str(), error_description: &self.description };
        let mut response = json(status, &body);
        response.extensions_mut().insert(self.code);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An answer that nobody may keep.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Text, numbers and lists into memory: this cannot fail.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, bytes).into_response()
}
