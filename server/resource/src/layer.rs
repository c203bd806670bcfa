//! A token in front of a route.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, Response};
use obol_verify::Denial;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::call::ToolCall;
use crate::credentials;
use crate::guard::Guard;
use crate::refusal::Problem;
use crate::request_id;
use crate::verified::VerifiedToken;

/// Lets a request through only with a token for the call it stands for. The token is spent before the inner service
/// sees the request, and taken out of it; in its place the request carries a [`VerifiedToken`].
#[derive(Clone, Debug)]
pub struct TbacLayer {
    guard: Guard,
    call: Calls,
}

type CallOf = dyn Fn(&Parts) -> Result<ToolCall, Denial> + Send + Sync;

#[derive(Clone)]
enum Calls {
    Fixed(Arc<ToolCall>),
    Of(Arc<CallOf>),
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(call) => call.fmt(f),
            Self::Of(_) => f.write_str("from the request"),
        }
    }
}

impl TbacLayer {
    /// Guards routes that all stand for the same call.
    pub fn new(guard: Guard, call: ToolCall) -> Self {
        Self { guard, call: Calls::Fixed(Arc::new(call)) }
    }

    /// Guards routes whose call follows from the request, as where a part of the path is the resource. A request that
    /// stands for no call is refused by an `Err`, usually [`Denial::malformed_request`].
    pub fn from_parts(
        guard: Guard,
        call: impl Fn(&Parts) -> Result<ToolCall, Denial> + Send + Sync + 'static,
    ) -> Self {
        Self { guard, call: Calls::Of(Arc::new(call)) }
    }

    async fn admit(&self, parts: &Parts) -> Result<VerifiedToken, Denial> {
        let token = match credentials::token(&parts.headers) {
            Ok(token) => token,
            Err(denial) => return self.guard.refuse(denial),
        };
        match &self.call {
            Calls::Fixed(call) => self.guard.admit(token, call).await,
            Calls::Of(call_of) => match call_of(parts) {
                Ok(call) => self.guard.admit(token, &call).await,
                Err(denial) => self.guard.refuse(denial),
            },
        }
    }
}

impl<S> Layer<S> for TbacLayer {
    type Service = TbacService<S>;

    fn layer(&self, inner: S) -> TbacService<S> {
        TbacService { inner, layer: self.clone() }
    }
}

/// The service that [`TbacLayer`] makes of another.
#[derive(Clone, Debug)]
pub struct TbacService<S> {
    inner: S,
    layer: TbacLayer,
}

impl<S, B> Service<Request<B>> for TbacService<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        let span = tracing::info_span!("guarded", request_id = request_id::of(request.headers()));
        let future = async move {
            let (mut parts, body) = request.into_parts();
            match layer.admit(&parts).await {
                Ok(token) => {
                    parts.headers.remove(AUTHORIZATION);
                    parts.extensions.insert(token);
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(denial) => Ok(Problem::from(&denial).into()),
            }
        };
        Box::pin(future.instrument(span))
    }
}
