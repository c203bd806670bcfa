//! A request's body as the arguments of the call.

use axum::body::Body;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use obol_secret::json::{self, Bounds};
use obol_verify::Denial;
use serde_json::{Map, Value};

use crate::call::ToolCall;
use crate::refusal::Problem;
use crate::sealed::SealedMessage;
use crate::sealing::SEALED_CONTENT_TYPE;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Arguments as they came.
pub(crate) enum SentArguments {
    None,
    Plain(Map<String, Value>),
    Sealed(SealedMessage),
}

impl SentArguments {
    /// Reads a body that is there, or says why not.
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
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
                let arguments = json::parse_within(body, Bounds::REQUEST)
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
