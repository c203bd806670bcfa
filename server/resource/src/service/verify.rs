//! `POST /v1/verify`

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use obol_secret::json::{self, Bounds, ReadArguments};
use obol_token::text::to_base64url;
use obol_token::{ChannelKeys, Jti, Scope};
use obol_verify::Denial;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ServiceState;
use crate::bodies::Peer;
use crate::call::ToolCall;
use crate::refusal::Problem;
use crate::sealed::{EncField, PopField};
use crate::spent_token::SpentToken;

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
    arguments: Option<ReadArguments>,
    /// The proof of possession.
    #[serde(default)]
    pop: Option<PopField>,
    /// The arguments, sealed. Then there are no others.
    #[serde(default)]
    enc: Option<EncField>,
}

impl Body {
    fn split(self) -> Result<(Option<String>, ToolCall), Denial> {
        let call = ToolCall::new(self.tool);
        let plain = self.arguments.unwrap_or_default();
        let mut call = match self.enc {
            None => call.read_arguments(plain),
            Some(enc) if plain.map.is_empty() => call.sealed_arguments(enc.message()?),
            Some(_) => {
                return Err(Denial::malformed_request("there are arguments in the clear beside sealed ones"));
            }
        };
        if let Some(pop) = self.pop {
            call = call.proof(pop.proof()?);
        }
        if let Some(action) = self.action {
            call = call.action(action);
        }
        if let Some(resource) = self.resource {
            call = call.resource(resource);
        }
        Ok((self.token, call))
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    ok: bool,
    /// 16 hex digits, as everywhere.
    session_id: String,
    jti: &'a str,
    scope: &'a Scope,
    /// What was sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a Map<String, Value>>,
    /// With it the API seals its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseChannel>,
}

/// What it takes to seal one response.
#[derive(Serialize)]
struct ResponseChannel {
    alg: &'static str,
    key: String,
    iv: String,
    aad: String,
}

impl ResponseChannel {
    fn of(keys: &ChannelKeys) -> Self {
        Self {
            alg: keys.algorithm(),
            key: to_base64url(keys.response_key()),
            iv: to_base64url(keys.response_iv()),
            aad: to_base64url(&keys.response_aad()),
        }
    }
}

pub(super) async fn handle(State(state): State<ServiceState>, request: Request) -> Response {
    answer(&state, request).await.unwrap_or_else(Response::from)
}

async fn answer(state: &ServiceState, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = state.bodies.read(Peer::of(&head.extensions), body).await?;
    let _place = state.enter()?;
    // The token first: for who has none, the rest is not read into values.
    let [token, tool] = json::find_texts(&body.bytes, ["token", "tool"], Bounds::REQUEST)
        .map_err(|error| malformed(&error))?;
    let opened = match &token {
        Some(token) => state.gate.open(token.as_bytes(), tool.as_deref()),
        None => Err(state.gate.refuse(Denial::token_absent())),
    };
    let opened = opened.map_err(|denial| Problem::from(&denial))?;
    let (read, call) = json::parse::<Body>(&body.bytes)
        .map_err(|error| malformed(&error))?
        .split()
        .map_err(|denial| Problem::told(&denial))?;
    if read.as_deref() != token.as_deref() {
        let detail = "the token can be read in two ways";
        return Err(Problem::malformed(StatusCode::BAD_REQUEST, detail));
    }
    let admitted = state.gate.admit_opened(opened, &call).await;
    admitted.map(|token| accepted(&token)).map_err(|denial| Problem::from(&denial))
}

fn malformed(error: &json::JsonError) -> Problem {
    Problem::malformed(StatusCode::BAD_REQUEST, error.to_string())
}

fn accepted(token: &SpentToken) -> Response {
    let jti: Jti = token.jti();
    let arguments = token.opened_arguments();
    let answer = Accepted {
        ok: true,
        session_id: token.session_id().to_string(),
        jti: jti.as_str(),
        scope: token.scope(),
        arguments,
        response: arguments.and_then(|_| token.take_channel_keys()).as_ref().map(ResponseChannel::of),
    };
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer)).into_response()
}
