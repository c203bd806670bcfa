//! `/v1/authorize`, for reverse proxies.
//!
//! The proxy must set `X-Obol-Tool` itself, as well as `X-Obol-Action` and `X-Obol-Resource` where it uses them, and
//! must not let the client's own through: they say which call the token is spent on. A header that stands there twice
//! is refused for that reason.
//!
//! What a caller brings about is 401 or 403: any other code is turned into 500 by nginx, and would be anybody's to cause.
//! What the proxy did wrong is 400, and says what.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use obol_verify::{Code, Denial};

use super::ServiceState;
use crate::call::ToolCall;
use crate::credentials;
use crate::refusal::Problem;
use crate::spent_token::SpentToken;

const TOOL: HeaderName = HeaderName::from_static("x-obol-tool");
const ACTION: HeaderName = HeaderName::from_static("x-obol-action");
const RESOURCE: HeaderName = HeaderName::from_static("x-obol-resource");
/// In the answer, for the proxy to pass on: which session the token belongs to, as 16 hex digits.
const SESSION: HeaderName = HeaderName::from_static("x-obol-session-id");

pub(super) async fn handle(State(state): State<ServiceState>, headers: HeaderMap) -> Response {
    let _place = match state.enter() {
        Ok(place) => place,
        Err(problem) => return problem.into(),
    };
    match admit(&state, &headers).await {
        Ok(token) => {
            let session = HeaderValue::try_from(token.session_id().to_string());
            let mut response = ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], "").into_response();
            if let Ok(session) = session {
                response.headers_mut().insert(SESSION, session);
            }
            response
        }
        Err(problem) => problem.into(),
    }
}

async fn admit(state: &ServiceState, headers: &HeaderMap) -> Result<SpentToken, Problem> {
    let call = call(headers).map_err(|denial| Problem::told(&state.gate.refuse(denial)))?;
    let token = credentials::token(headers)
        .map_err(|denial| by_caller(&state.gate.refuse(denial), StatusCode::UNAUTHORIZED))?;
    let outcome = state.gate.admit(token, &call).await;
    outcome.map_err(|denial| by_caller(&denial, StatusCode::FORBIDDEN))
}

/// A refusal that lies with the caller; `malformed` is the status of a request without form.
fn by_caller(denial: &Denial, malformed: StatusCode) -> Problem {
    let problem = Problem::from(denial);
    match denial.code {
        Code::MalformedRequest => problem.with_status(malformed),
        _ => problem,
    }
}

/// The call as the proxy names it. An error is the proxy's.
fn call(headers: &HeaderMap) -> Result<ToolCall, Denial> {
    let tool = single(headers, &TOOL)?.ok_or_else(|| Denial::malformed_request("X-Obol-Tool is missing"))?;
    let mut call = ToolCall::new(tool);
    if let Some(action) = single(headers, &ACTION)? {
        call = call.action(action);
    }
    if let Some(resource) = single(headers, &RESOURCE)? {
        call = call.resource(resource);
    }
    Ok(call)
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::malformed_request(format!("{name} is given more than once")));
    }
    let text = core::str::from_utf8(value.as_bytes());
    // A proxy may hand on a path as its caller wrote it. No pattern covers this.
    Ok(Some(text.unwrap_or("\0")))
}
