//! Responses to sealed requests.

use core::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use crate::refusal::{Problem, ServiceProblem};
use crate::sealed::MAX_SEALED_BYTES;
use crate::spent_token::SpentToken;

/// The type of a sealed body: a nonce of 12 bytes, the ciphertext, and a tag of 16 bytes.
pub const SEALED_CONTENT_TYPE: &str = "application/vnd.obol.sealed";
/// In a sealed response: the type of what is sealed.
pub const SEALED_TYPE_HEADER: HeaderName = HeaderName::from_static("tbac-sealed-type");

/// How long a handler may take to write a response that is to be sealed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Seals a response whole, or answers 500: nothing of it leaves in the clear but status and headers. A handler that
/// took the channel keys has sealed the response itself, and must say so by its type.
pub(crate) async fn seal(token: &SpentToken, response: Response<Body>) -> Response<Body> {
    match try_seal(token, response).await {
        Ok(response) => response,
        Err(reason) => {
            tracing::error!(reason, "the response to a sealed request cannot be sealed, and is not sent");
            Problem::from(ServiceProblem::SealingFailed).into()
        }
    }
}

async fn try_seal(token: &SpentToken, response: Response<Body>) -> Result<Response<Body>, String> {
    let (mut parts, body) = response.into_parts();
    if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    if parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == SEALED_CONTENT_TYPE) {
        return Ok(Response::from_parts(parts, body));
    }
    if parts.status.is_informational() || parts.headers.contains_key(CONTENT_ENCODING) {
        return Err("it is compressed, or changes the protocol".to_owned());
    }
    let plaintext = tokio::time::timeout(RESPONSE_TIMEOUT, Limited::new(body, MAX_SEALED_BYTES).collect())
        .await
        .map_err(|_| "it was not written in time".to_owned())?
        .map_err(|error| error.to_string())?
        .to_bytes();
    let sealed = token.seal_response(&plaintext).map_err(|error| error.to_string())?.to_bytes();
    if let Some(kind) = parts.headers.remove(CONTENT_TYPE) {
        parts.headers.insert(SEALED_TYPE_HEADER, kind);
    }
    // Both would tell about the plaintext, and be wrong about what is sent.
    parts.headers.remove(ETAG);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(sealed.len()));
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(SEALED_CONTENT_TYPE));
    Ok(Response::from_parts(parts, Body::from(sealed)))
}
