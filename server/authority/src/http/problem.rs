//! Refusals in clear, as RFC 9457 has them, with a stable code. What a handshake protects is refused inside it instead.

use core::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use obol_handshake::HandshakeError;
use serde_json::json;

use crate::authority::Rejected;

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    suites: Option<Vec<u8>>,
    retry_after_secs: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), suites: None, retry_after_secs: None }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED", detail)
    }

    /// There is too much to do for everybody.
    pub(super) fn overloaded() -> Self {
        let detail = "the service has too much to do; ask again";
        Self { retry_after_secs: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail) }
    }

    /// Whoever asks asks too often.
    pub(super) fn too_many(code: &'static str, wait: Duration) -> Self {
        let wait_secs = wait.as_secs().saturating_add(1);
        let detail = format!("too many requests from here; wait {wait_secs} s");
        Self { retry_after_secs: Some(wait_secs), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Malformed(HandshakeError::Length) => {
                Self::malformed("the message does not have the length of a handshake message")
            }
            // Which check failed is for the log alone.
            Rejected::Malformed(error) => {
                tracing::debug!(%error, "a handshake message was refused");
                Self::malformed(
                    "the message does not belong to a handshake with this service, or was changed on its way",
                )
            }
            Rejected::UnknownKey => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                "UNKNOWN_AUTHORITY_KEY",
                "the message is for a key that this service does not have; compare the pinned key with \
                 /.well-known/obol-configuration over a channel you trust",
            ),
            Rejected::Suite(suites) => Self {
                suites: Some(suites),
                ..Self::new(StatusCode::CONFLICT, "SUITE", "this service does not speak that suite")
            },
            Rejected::CookieExpired => Self::new(
                StatusCode::CONFLICT,
                "COOKIE_EXPIRED",
                "the handshake took too long, or the service was restarted; begin anew",
            ),
            Rejected::Used => Self::new(
                StatusCode::CONFLICT,
                "HANDSHAKE_USED",
                "this handshake was used for another message; begin anew",
            ),
            Rejected::Unavailable(error) => {
                tracing::error!(%error, "a request could not be carried out");
                Self {
                    retry_after_secs: Some(1),
                    ..Self::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "UNAVAILABLE",
                        "it cannot be done now, and nothing was done; ask again",
                    )
                }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let (Some(suites), Some(object)) = (&self.suites, body.as_object_mut()) {
            object.insert("suites".to_owned(), json!(suites));
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}
