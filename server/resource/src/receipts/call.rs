//! A call that its caller named: the key, and all that makes the call.

use axum::body::Body;
use http::{HeaderName, Request, StatusCode};
use obol_verify::receipt::{CallDigest, ReceiptId};

use crate::bodies::{Bodies, Peer};
use crate::refusal::Problem;
use crate::spent_token::SpentToken;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// Takes the key out of a request, where there is one.
pub(super) fn key(mut request: Request<Body>) -> Result<(Request<Body>, Option<String>), Problem> {
    let wrong = || {
        let detail = "an Idempotency-Key stands there once, and is 1 to 255 visible ASCII characters";
        Problem::malformed(StatusCode::BAD_REQUEST, detail)
    };
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok((request, None)) };
    if values.next().is_some() || !(1..=MAX_KEY_BYTES).contains(&value.len()) {
        return Err(wrong());
    }
    let key = value
        .to_str()
        .ok()
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(wrong)?;
    let key = key.to_owned();
    request.headers_mut().remove(IDEMPOTENCY_KEY);
    Ok((request, Some(key)))
}

/// A call that is named.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedCall {
    pub(super) id: ReceiptId,
    pub(super) digest: CallDigest,
}

impl NamedCall {
    /// Reads a request whole: its tool, method, path, query and body make the call, its agent and key the name. Gives the request back
    /// for the handler.
    pub(super) async fn read(
        request: Request<Body>,
        token: &SpentToken,
        key: &str,
        bodies: &Bodies,
    ) -> Result<(Request<Body>, Self), Problem> {
        let (parts, body) = request.into_parts();
        let body = bodies.read(Peer::of(&parts.extensions), body).await?;
        let scope = token.scope();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let digest = CallDigest::new(&[
            scope.tool.as_bytes(),
            parts.method.as_str().as_bytes(),
            target.as_bytes(),
            &body.bytes,
        ]);
        let id = ReceiptId::new(&scope.org_id, &scope.agent_instance_id, key);
        let bytes = body.bytes.clone();
        Ok((Request::from_parts(parts, Body::from(bytes)), Self { id, digest }))
    }
}
