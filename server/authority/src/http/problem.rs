//! Refusals in clear, as RFC 9457 has them, with a stable code. What a handshake protects is refused inside it instead.

use core::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use obol_handshake::HandshakeError;
use obol_probe::problem::type_uri_in;
use serde_json::json;

use super::code::ProblemCode;
use crate::authority::Rejected;
use crate::refused::Refused;

/// The part of the catalogue of errors that its codes are in.
const CATALOGUE_PART: &str = "as";

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
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self::with(code.status(), code.as_str(), detail.into())
    }

    /// What is refused inside a handshake elsewhere, told in clear.
    pub(super) fn refused(refused: &Refused) -> Self {
        Self::with(StatusCode::FORBIDDEN, refused.code(), refused.to_string())
    }

    fn with(status: StatusCode, code: &'static str, detail: String) -> Self {
        Self { status, code, detail, suites: None, retry_after_secs: None }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Malformed, detail)
    }

    /// There is too much to do for everybody.
    pub(super) fn overloaded() -> Self {
        let detail = "the service has too much to do; ask again";
        Self { retry_after_secs: Some(1), ..Self::new(ProblemCode::Overloaded, detail) }
    }

    /// Whoever asks asks too often.
    pub(super) fn too_many(code: ProblemCode, wait: Duration) -> Self {
        let wait_secs = wait.as_secs().saturating_add(1);
        let detail = format!("too many requests from here; wait {wait_secs} s");
        Self { retry_after_secs: Some(wait_secs), ..Self::new(code, detail) }
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
                ProblemCode::UnknownAuthorityKey,
                "the message is for a key that this service does not have; compare the pinned key with \
                 /.well-known/obol-configuration over a channel you trust",
            ),
            Rejected::Suite(suites) => Self {
                suites: Some(suites),
                ..Self::new(ProblemCode::Suite, "this service does not speak that suite")
            },
            Rejected::CookieExpired => Self::new(
                ProblemCode::CookieExpired,
                "the handshake took too long, or the service was restarted; begin anew",
            ),
            Rejected::Used => Self::new(
                ProblemCode::HandshakeUsed,
                "this handshake was used for another message; begin anew",
            ),
            Rejected::Unavailable(error) => {
                tracing::error!(%error, "a request could not be carried out");
                Self {
                    retry_after_secs: Some(1),
                    ..Self::new(
                        ProblemCode::Unavailable,
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
            "type": type_uri_in(CATALOGUE_PART, self.code),
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
