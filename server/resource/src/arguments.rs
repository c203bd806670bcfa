//! A request's body as the arguments of the call.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use obol_secret::json;
use obol_verify::Denial;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::call::ToolCall;
use crate::refusal::Problem;
use crate::sealed::SealedMessage;
use crate::sealing::SEALED_CONTENT_TYPE;

/// How long a request's body may take to arrive, unless told otherwise.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;
/// The most bodies of one layer that are read or held at a time.
const MAX_BODIES: usize = 1_024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Reads a body whole, within bounds.
pub(crate) async fn read(body: Body, timeout: Duration) -> Result<Bytes, Problem> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            Err(Problem::malformed(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(_)) => Err(Problem::malformed(StatusCode::BAD_REQUEST, "the body did not arrive whole")),
        Err(_) => Err(Problem::malformed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// How many bodies a layer reads at a time.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

impl Bodies {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }

    /// Reads the arguments, or says why not.
    pub(crate) async fn arguments(&self, headers: &HeaderMap, body: Body) -> Result<SentArguments, Problem> {
        let Ok(_place) = self.0.try_acquire() else { return Err(Problem::overloaded()) };
        let body = read(body, BODY_TIMEOUT).await?;
        SentArguments::parse(headers, &body)
    }
}

/// Arguments as they came.
pub(crate) enum SentArguments {
    None,
    Plain(Map<String, Value>),
    Sealed(SealedMessage),
}

impl SentArguments {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let malformed = |detail: &str| Err(Problem::malformed(StatusCode::BAD_REQUEST, detail));
        if headers.contains_key(CONTENT_ENCODING) {
            return malformed("the body must not be compressed");
        }
        match media_type(headers) {
            Some(media_type) if media_type.eq_ignore_ascii_case(SEALED_CONTENT_TYPE.as_bytes()) => {
                let message = SealedMessage::from_bytes(body).map_err(|denial| Problem::told(&denial))?;
                Ok(Self::Sealed(message))
            }
            _ if body.is_empty() => Ok(Self::None),
            Some(media_type) if media_type.eq_ignore_ascii_case(JSON.as_bytes()) => {
                let arguments = json::parse(body)
                    .map_err(|error| Problem::malformed(StatusCode::BAD_REQUEST, error.to_string()))?;
                Ok(Self::Plain(arguments))
            }
            _ => malformed("the body must be of one type, application/json or application/vnd.obol.sealed"),
        }
    }

    /// The call with these arguments. A copy of them stays, where the handler is to have them.
    pub(crate) fn of(&self, call: ToolCall) -> ToolCall {
        match self {
            Self::None => call.arguments(Map::new()),
            Self::Plain(arguments) => call.arguments(arguments.clone()),
            Self::Sealed(message) => call.sealed_arguments(message.clone()),
        }
    }
}

/// Exactly one type, without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next()?.as_bytes();
    let essence = value.split(|byte| *byte == b';').next()?.trim_ascii();
    values.next().is_none().then_some(essence)
}

/// The body for the handler: the arguments that were checked, written anew, so that no second reading of what came
/// can find other ones.
pub(crate) fn body_of(parts: &mut Parts, arguments: &Map<String, Value>) -> Result<Body, Denial> {
    let body = serde_json::to_vec(arguments)
        .map_err(|_| Denial::malformed_request("the arguments cannot be written as JSON"))?;
    parts.headers.insert(CONTENT_TYPE, JSON);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Body::from(body))
}
