//! What the handler gets: proof that a token was spent for this request.

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use obol_token::{ChannelKeys, Jti, Scope, SessionId};
use obol_verify::Spent;

use crate::refusal::Problem;

/// A token that was spent for this request. [`crate::TbacLayer`] puts it into the request; as an axum extractor it
/// hands it to the handler, and answers 500 on a route that has no such layer.
#[derive(Clone)]
pub struct VerifiedToken(Arc<Contents>);

struct Contents {
    session_id: SessionId,
    jti: Jti,
    channel: Mutex<Option<ChannelKeys>>,
    scope: Scope,
}

impl VerifiedToken {
    pub(crate) fn new(mut spent: Spent) -> Self {
        Self(Arc::new(Contents {
            session_id: spent.session_id(),
            jti: spent.jti(),
            channel: Mutex::new(spent.take_channel_keys()),
            scope: spent.into_scope(),
        }))
    }

    /// What the token allows. The handler must keep the limits that only it can keep: `max_rows`, `time_window_sec`
    /// and `data_classification`.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// The token's name inside its session.
    pub fn jti(&self) -> Jti {
        self.0.jti
    }

    /// The token's session.
    pub fn session_id(&self) -> SessionId {
        self.0.session_id
    }

    /// Takes the token's channel keys. The first who asks gets them, among all clones: a token seals one response.
    pub fn take_channel_keys(&self) -> Option<ChannelKeys> {
        self.0.channel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken").field("session_id", &self.0.session_id).finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for VerifiedToken {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("a handler asks for a VerifiedToken on a route without TbacLayer");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "GUARD_MISSING", "This route is not guarded")
                .into()
        })
    }
}
