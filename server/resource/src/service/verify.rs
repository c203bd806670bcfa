//! `POST /v1/verify`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use obol_token::{Jti, Scope};
use obol_verify::{Denial, strict_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MAX_BODY_BYTES, ServiceState};
use crate::call::ToolCall;
use crate::refusal::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    token: Option<String>,
    tool: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    resource: Option<String>,
    /// Absent or `null` is a call without arguments.
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
}

impl Body {
    fn split(self) -> (Option<String>, ToolCall) {
        let mut call = ToolCall::new(self.tool).arguments(self.arguments.unwrap_or_default());
        if let Some(action) = self.action {
            call = call.action(action);
        }
        if let Some(resource) = self.resource {
            call = call.resource(resource);
        }
        (self.token, call)
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    ok: bool,
    /// Decimal, as text: not every JSON parser keeps 64 bits.
    session_id: String,
    jti: &'a str,
    scope: &'a Scope,
}

pub(super) async fn handle(State(state): State<ServiceState>, request: Request) -> Response {
    let body = match read(&state, request).await {
        Ok(body) => body,
        Err(problem) => return problem.into(),
    };
    let (token, call) = match strict_json::parse::<Body>(&body) {
        Ok(body) => body.split(),
        Err(error) => return Problem::malformed(StatusCode::BAD_REQUEST, error.to_string()).into(),
    };
    let outcome = match token {
        Some(token) => state.guard.admit(token.as_bytes(), &call).await,
        None => state.guard.refuse(Denial::token_absent()),
    };
    match outcome {
        Ok(token) => {
            let jti: Jti = token.jti();
            let answer = Accepted {
                ok: true,
                session_id: token.session_id().0.to_string(),
                jti: jti.as_str(),
                scope: token.scope(),
            };
            ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer)).into_response()
        }
        Err(denial) => Problem::from(&denial).into(),
    }
}

async fn read(state: &ServiceState, request: Request) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(state.body_timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            Err(Problem::malformed(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(_)) => Err(Problem::malformed(StatusCode::BAD_REQUEST, "the body did not arrive whole")),
        Err(_) => Err(Problem::malformed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}
