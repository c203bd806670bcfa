//! Refusals as HTTP (RFC 9457 and RFC 9110, section 11.6.1).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use obol_probe::problem::type_uri;
use obol_verify::{Code, Denial, FailedCheck};
use serde::Serialize;

/// When to try again, in seconds.
const RETRY_AFTER_SECS: &str = "1";

/// A problem document.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_check: Option<FailedCheck>,
    /// Only about the form of a request, which its sender knows anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { kind: type_uri(code), title, status, code, failed_check: None, detail: None }
    }

    /// Nothing can be verified, spent or written down at the moment.
    pub(crate) fn unavailable(title: &'static str) -> Self {
        Self::new(http_status(Code::Unavailable), Code::Unavailable.as_str(), title)
    }

    /// Adds what the sender can do about it, in words that do not repeat the request.
    pub(crate) fn explain(&mut self, detail: impl Into<String>) {
        self.detail = Some(detail.into());
    }

    /// The same refusal under another status.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Too many requests at once.
    pub(crate) fn overloaded() -> Self {
        ServiceProblem::Overloaded.into()
    }

    /// A refusal with its detail, which says nothing that the sender does not know.
    pub(crate) fn told(denial: &Denial) -> Self {
        let mut problem = Self::from(denial);
        problem.detail = Some(denial.detail.clone().into_owned());
        problem
    }

    /// A request whose form is wrong, with words that do not repeat it.
    pub(crate) fn malformed(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut problem =
            Self::new(status, Code::MalformedRequest.as_str(), title_of(Code::MalformedRequest));
        problem.failed_check = Some(FailedCheck::RequestFraming);
        problem.detail = Some(detail.into());
        problem
    }
}

/// What is answered beside refusals of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServiceProblem {
    /// Too many requests at once.
    Overloaded,
    /// There is no such route.
    NotFound,
    /// The route does not allow the method.
    MethodNotAllowed,
    /// The request names another machine, on a loopback address.
    ForeignHost,
    /// The response to a sealed request cannot be sealed.
    SealingFailed,
    /// A handler asks for a token on a route without the layer.
    GuardMissing,
    /// A call that its caller named is being carried out.
    CallRunning,
    /// A call that its caller named was begun, and nobody knows what became of it.
    OutcomeUnknown,
    /// A call that its caller named was carried out, and its answer was not kept.
    AnswerNotKept,
    /// The name is that of another call.
    KeyReused,
    /// An identifier was spent before.
    AlreadySpent,
    /// Whether an identifier was spent before is not known any more.
    NotRemembered,
    /// The API behind a gateway was asked, and did not answer whole.
    UpstreamFailed,
    /// The API behind a gateway was asked, and did not answer in time.
    UpstreamTimeout,
    /// The API behind a gateway does not take the gateway's own credential.
    CredentialRefused,
}

impl ServiceProblem {
    /// Every one, in a stable order.
    pub const ALL: [Self; 15] = [
        Self::Overloaded,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ForeignHost,
        Self::SealingFailed,
        Self::GuardMissing,
        Self::CallRunning,
        Self::OutcomeUnknown,
        Self::AnswerNotKept,
        Self::KeyReused,
        Self::AlreadySpent,
        Self::NotRemembered,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::CredentialRefused,
    ];

    /// The stable name. Programs may depend on it.
    pub const fn code(self) -> &'static str {
        self.parts().0
    }

    /// The status it is answered with.
    pub const fn http_status(self) -> StatusCode {
        self.parts().1
    }

    /// The answer, with what its reader can do about it. That must not repeat a secret.
    pub fn answer(self, detail: impl Into<String>) -> Response<Body> {
        let mut problem = Problem::from(self);
        problem.explain(detail);
        problem.into()
    }

    /// Code, status and title.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once"),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND, "No such route"),
            Self::MethodNotAllowed => {
                ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed on this route")
            }
            Self::ForeignHost => {
                ("FOREIGN_HOST", StatusCode::MISDIRECTED_REQUEST, "Not meant for this machine")
            }
            Self::SealingFailed => {
                ("SEALING_FAILED", StatusCode::INTERNAL_SERVER_ERROR, "The response could not be sealed")
            }
            Self::GuardMissing => {
                ("GUARD_MISSING", StatusCode::INTERNAL_SERVER_ERROR, "This route is not guarded")
            }
            Self::CallRunning => ("CALL_RUNNING", StatusCode::CONFLICT, "The call is being carried out"),
            Self::OutcomeUnknown => {
                ("OUTCOME_UNKNOWN", StatusCode::CONFLICT, "Nobody knows what became of the call")
            }
            Self::AnswerNotKept => {
                ("ANSWER_NOT_KEPT", StatusCode::CONFLICT, "The call was carried out, and its answer is gone")
            }
            Self::KeyReused => {
                ("KEY_REUSED", StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key is another call's")
            }
            Self::AlreadySpent => ("ALREADY_SPENT", StatusCode::CONFLICT, "The identifier was spent before"),
            Self::NotRemembered => {
                ("NOT_REMEMBERED", StatusCode::CONFLICT, "Whether it was spent before is not known any more")
            }
            Self::UpstreamFailed => {
                ("UPSTREAM_FAILED", StatusCode::BAD_GATEWAY, "The API behind the gateway did not answer")
            }
            Self::UpstreamTimeout => {
                ("UPSTREAM_TIMEOUT", StatusCode::GATEWAY_TIMEOUT, "The API behind the gateway took too long")
            }
            Self::CredentialRefused => {
                ("CREDENTIAL_REFUSED", StatusCode::BAD_GATEWAY, "The API refused the gateway's credential")
            }
        }
    }
}

/// The answer to a request whose form is wrong, in words that do not repeat it.
pub fn malformed(status: StatusCode, detail: impl Into<String>) -> Response<Body> {
    Problem::malformed(status, detail).into()
}

/// The answer where something that it depends on is away, and nothing was done. Nor was a token spent, or it is burned.
pub fn unavailable(title: &'static str, detail: impl Into<String>) -> Response<Body> {
    let mut problem = Problem::unavailable(title);
    problem.explain(detail);
    problem.into()
}

impl From<ServiceProblem> for Problem {
    fn from(problem: ServiceProblem) -> Self {
        let (code, status, title) = problem.parts();
        Self::new(status, code, title)
    }
}

impl From<&Denial> for Problem {
    fn from(denial: &Denial) -> Self {
        let mut problem = Self::new(http_status(denial.code), denial.code.as_str(), title_of(denial.code));
        problem.failed_check = Some(denial.failed_check);
        problem
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Self::new(Body::from(body));
        *response.status_mut() = problem.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match problem.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, challenge(problem.code, problem.failed_check));
            }
            // Of all conflicts the one that passes by itself.
            StatusCode::CONFLICT if problem.code != ServiceProblem::CallRunning.code() => {}
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into()
    }
}

/// The names are upper-case letters and underscores, which need no quoting.
fn challenge(code: &str, failed_check: Option<FailedCheck>) -> HeaderValue {
    let check = failed_check.map_or("", FailedCheck::as_str);
    HeaderValue::try_from(format!("TBAC error=\"{code}\", failed_check=\"{check}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("TBAC"))
}

/// The status that a refusal is answered with: 401 where another token may help, 403 where this one is genuine and does not allow the call.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InsufficientPrivilege
        | Code::OrgIdMismatch
        | Code::ChannelEncryptionRequired
        | Code::ApprovalDigestMismatch
        | Code::CibaApprovalExpired
        | Code::IntentIntegrityFailed
        | Code::IntentPayloadTooLarge => StatusCode::FORBIDDEN,
        Code::MalformedRequest => StatusCode::BAD_REQUEST,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}

fn title_of(code: Code) -> &'static str {
    match code {
        Code::TbacRequired => "A token is required",
        Code::TokenReplayed => "The token was spent before",
        Code::StaleTimestamp | Code::EpochExpired => "The token is not valid at this time",
        Code::SessionNotFound | Code::SessionExpired => "The token's session is not known or has ended",
        Code::PopRequired | Code::PopFailed => "Possession of the session's key is not proven",
        Code::MalformedRequest => "The request is malformed",
        Code::Unavailable => "Tokens cannot be verified at the moment",
        _ if http_status(code) == StatusCode::FORBIDDEN => "The token does not allow this call",
        _ => "The token is not accepted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_who_can_do_something_about_it() {
        for (code, status) in [
            (Code::TbacRequired, 401),
            (Code::InvalidSignature, 401),
            (Code::TokenReplayed, 401),
            (Code::PopRequired, 401),
            (Code::InsufficientPrivilege, 403),
            (Code::OrgIdMismatch, 403),
            (Code::MalformedRequest, 400),
            (Code::Unavailable, 503),
        ] {
            assert_eq!(http_status(code).as_u16(), status, "{code}");
        }
    }

    #[test]
    fn problems_hold_no_detail_of_a_refusal() {
        let denial = Denial::new(Code::TokenReplayed, FailedCheck::ReplayConsume, "seen at 12:00");
        let problem = serde_json::to_value(Problem::from(&denial)).unwrap();
        assert_eq!(
            problem,
            serde_json::json!({
                "type": type_uri("TOKEN_REPLAYED"), "title": "The token was spent before", "status": 401,
                "code": "TOKEN_REPLAYED", "failed_check": "REPLAY_CONSUME"
            })
        );
    }

    #[test]
    fn every_code_has_a_challenge_or_a_reason_not_to() {
        for code in Code::ALL {
            let denial = Denial::new(*code, FailedCheck::FramingCheck, "");
            let response = Response::from(Problem::from(&denial));
            let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenged, response.status() == StatusCode::UNAUTHORIZED, "{code}");
        }
    }
}
