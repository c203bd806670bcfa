//! The layer in front of an API's routes: a request passes only with a token that has the scope.

use core::future::Future;
use core::net::IpAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use obol_atp::AtpErrorCode;
use obol_atp::jwt::{Claims, Credential, Use};
use tower::{Layer, Service};

use crate::denied::Denied;
use crate::metrics::Route;
use crate::provider::{Provider, about_token};
use crate::request;

/// What a request's token says. A handler that asks for it on a route without the layer answers 500.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentToken {
    /// Whom it was issued to; an unproven label where `credential` is [`Credential::Master`].
    pub agent_id: String,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// Its id.
    pub id: String,
    /// Where the agent proved no secret of its own.
    pub credential: Option<Credential>,
}

impl<S: Sync> FromRequestParts<S> for AgentToken {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, StatusCode> {
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Made by [`Router::require`](crate::Router::require).
#[derive(Clone, Debug)]
pub struct RequireLayer {
    pub(crate) provider: Arc<Provider>,
    pub(crate) scope: Arc<str>,
}

/// A service behind a [`RequireLayer`].
#[derive(Clone, Debug)]
pub struct RequireService<S> {
    inner: S,
    layer: RequireLayer,
}

impl<S> Layer<S> for RequireLayer {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> RequireService<S> {
        RequireService { inner, layer: self.clone() }
    }
}

impl<S> Service<Request> for RequireService<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // The one that was found ready is used, and a fresh one left.
        let fresh = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, fresh);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.admit(request.headers(), request::address(&request)).await {
                Ok(token) => {
                    request.extensions_mut().insert(token);
                    inner.call(request).await
                }
                Err(denied) => Ok(denied.into_response()),
            }
        })
    }
}

impl RequireLayer {
    async fn admit(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Result<AgentToken, Denied> {
        let start = std::time::Instant::now();
        let outcome = self.check(headers, address).await;
        let refused = outcome.as_ref().err().map(|denied| denied.code);
        self.provider.metrics.count(Route::Require, refused, start.elapsed());
        outcome
    }

    async fn check(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Result<AgentToken, Denied> {
        let token = request::bearer(headers);
        let challenge = if token.is_none() { "Bearer" } else { "Bearer error=\"invalid_token\"" };
        let invalid = || Denied::token(challenge, AtpErrorCode::InvalidToken, "a valid token is needed");
        let claims =
            token.map(|token| self.provider.live(token)).transpose()?.flatten().ok_or_else(invalid)?;
        if !claims.scopes.iter().any(|scope| **scope == *self.scope) {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", self.scope);
            let denied =
                Denied::token(&challenge, AtpErrorCode::InsufficientScope, "the token lacks the scope");
            self.provider.auditor.refused(&denied, &about_token(&claims, address));
            return Err(denied);
        }
        if claims.usage == Some(Use::Once) {
            self.provider.spend_once(&claims, address).await.map_err(|denied| match denied.code {
                AtpErrorCode::Replayed => invalid(),
                _ => denied,
            })?;
        }
        Ok(described(claims))
    }
}

fn described(claims: Claims) -> AgentToken {
    let id = claims.id_and_generation().map_or_else(String::new, |(id, _)| id.to_owned());
    AgentToken { agent_id: claims.agent_id, scopes: claims.scopes, id, credential: claims.cred }
}
