//! What a program is told where there is no answer of an API's: a problem document (RFC 9457).

use core::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use obol_agent::{Code, Error};
use obol_probe::problem::type_uri_in;
use serde_json::json;

use crate::answer::Answer;

/// By this the libraries of several APIs are told not to send a request again by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The part of the catalogue of errors that its codes are in.
const CATALOGUE_PART: &str = "sdk";
/// The code of a request that names a host which is not this machine, as a page in a browser can bring about. All other codes are
/// those of [`Code`].
pub const FOREIGN_HOST: &str = "FOREIGN_HOST";

/// A refusal of the proxy's own.
pub(crate) fn refused(status: StatusCode, code: &str, detail: &str) -> Response<Answer> {
    let title = "The proxy did not pass the request on";
    let text = json!({
        "type": type_uri_in(CATALOGUE_PART, code), "title": title, "status": status.as_u16(), "code": code, "detail": detail,
    });
    let mut response = Response::new(Answer::text(text.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// Why a call has no result.
pub(crate) fn failed(error: &Error) -> Response<Answer> {
    let status = status(error.code());
    let mut response = refused(status, error.code().as_str(), error.message());
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let pause = error.retry_after().unwrap_or(Duration::from_secs(1));
        let secs = pause.as_secs().max(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    if may_have_run(error.code()) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// Whether the call may have been carried out: a program that sends it again does it twice.
const fn may_have_run(code: Code) -> bool {
    matches!(code, Code::OutcomeUnknown | Code::TokenStolen | Code::ChannelFailed | Code::RedirectRefused)
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::ToolRequired => StatusCode::BAD_REQUEST,
        Code::UnknownDestination => StatusCode::NOT_FOUND,
        Code::PolicyDeny
        | Code::ApprovalRequired
        | Code::ApprovalPending
        | Code::ApprovalDenied
        | Code::ApprovalExpired
        | Code::Expired
        | Code::NoSession
        | Code::SessionFlushed
        | Code::NotRegistered
        | Code::Suspended
        | Code::Revoked
        | Code::AuthorityRefused
        | Code::UserNotServed => StatusCode::FORBIDDEN,
        Code::QueueEmpty
        | Code::Overloaded
        | Code::Unavailable
        | Code::AuthorityUnreachable
        | Code::DaemonUnreachable
        | Code::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
