//! A token in front of a route.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, Response};
use obol_verify::Denial;
use serde_json::{Map, Value};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::arguments::{self, SentArguments};
use crate::bodies::{BODY_TIMEOUT, Bodies, Peer};
use crate::call::ToolCall;
use crate::credentials;
use crate::gate::{Gate, OpenedToken};
use crate::refusal::{Problem, ServiceProblem};
use crate::request_id;
use crate::sealing;
use crate::spent_token::SpentToken;

/// Lets a request through only with a token for the call it stands for. The token is spent before the inner service
/// sees the request, and taken out of it; in its place the request carries a [`SpentToken`].
#[derive(Clone, Debug)]
pub struct TbacLayer {
    gate: Gate,
    call: Calls,
    arguments: Option<Bodies>,
    rest: Option<Rest>,
}

type CallOf = dyn Fn(&Parts) -> Result<ToolCall, Denial> + Send + Sync;

/// What of the call follows from its arguments.
#[derive(Clone)]
struct Rest(Arc<RestOf>);

type RestOf = dyn Fn(&Parts, &Map<String, Value>, ToolCall) -> Result<ToolCall, Denial> + Send + Sync;

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("from the arguments")
    }
}

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
    pub fn new(gate: Gate, call: ToolCall) -> Self {
        Self { gate, call: Calls::Fixed(Arc::new(call)), arguments: None, rest: None }
    }

    /// Guards routes whose call follows from the request, as where a part of the path is the resource. A request that
    /// stands for no call is refused by an `Err`, usually [`Denial::malformed_request`].
    pub fn from_parts(
        gate: Gate,
        call: impl Fn(&Parts) -> Result<ToolCall, Denial> + Send + Sync + 'static,
    ) -> Self {
        Self { gate, call: Calls::Of(Arc::new(call)), arguments: None, rest: None }
    }

    /// Takes the body, a JSON object or nothing, for the arguments of the call. Tokens that limit their arguments, ask
    /// for proof of possession or for channel encryption can then be served; without this they are refused.
    ///
    /// The handler gets the arguments that were checked, as JSON. A request whose body is of type
    /// [`crate::SEALED_CONTENT_TYPE`] is opened, and its response sealed. Arguments are only what is in the body: what
    /// the handler takes from path or query must be part of the call.
    #[must_use]
    pub fn json_arguments(mut self) -> Self {
        self.arguments = Some(Bodies::new(BODY_TIMEOUT));
        self
    }

    /// With [`json_arguments`](Self::json_arguments): what else the call is follows from its arguments, as where the resource
    /// stands in the body. Sealed ones are opened for it.
    #[must_use]
    pub fn rest_from_arguments(
        mut self,
        rest: impl Fn(&Parts, &Map<String, Value>, ToolCall) -> Result<ToolCall, Denial> + Send + Sync + 'static,
    ) -> Self {
        self.rest = Some(Rest(Arc::new(rest)));
        self
    }

    /// The request as the handler may see it.
    async fn admit(&self, request: Request<Body>) -> Result<(Request<Body>, SpentToken), Problem> {
        let (mut parts, body) = request.into_parts();
        let refused = |denial| Problem::from(&self.gate.refuse(denial));
        let call = self.call(&parts).map_err(refused)?;
        // Without a genuine token nobody's body is read.
        let opened = self.open(&parts, &call)?;
        let Some(bodies) = &self.arguments else {
            let token = self.spend(opened, &call).await?;
            return Ok((passed_on(parts, body, &token), token));
        };
        let body = bodies.read(Peer::of(&parts.extensions), body).await?;
        let sent = SentArguments::parse(&parts.headers, &body.bytes)?;
        let call = self.with_rest(&parts, &sent, call)?;
        let token = self.spend(opened, &sent.of(call)).await?;
        let arguments = match &sent {
            SentArguments::None => None,
            SentArguments::Plain(arguments) => Some(arguments),
            SentArguments::Sealed(_) => token.opened_arguments(),
        };
        let body = match arguments {
            Some(arguments) => arguments::body_of(&mut parts, arguments).map_err(refused)?,
            None => Body::empty(),
        };
        Ok((passed_on(parts, body, &token), token))
    }

    fn call(&self, parts: &Parts) -> Result<ToolCall, Denial> {
        let call = match &self.call {
            Calls::Fixed(call) => ToolCall::clone(call),
            Calls::Of(call_of) => call_of(parts)?,
        };
        Ok(match credentials::proof(&parts.headers)? {
            Some(proof) => call.proof(proof),
            None => call,
        })
    }

    /// The whole call, where some of it follows from its arguments.
    fn with_rest(&self, parts: &Parts, sent: &SentArguments, call: ToolCall) -> Result<ToolCall, Problem> {
        let Some(Rest(rest)) = &self.rest else { return Ok(call) };
        let told = |denial| Problem::told(&self.gate.refuse(denial));
        match sent {
            SentArguments::None => rest(parts, &Map::new(), call).map_err(told),
            SentArguments::Plain(arguments) => rest(parts, arguments, call).map_err(told),
            SentArguments::Sealed(message) => {
                let token = credentials::token(&parts.headers).map_err(told)?;
                let sealed = call.clone().sealed_arguments(message.clone());
                let opened = self.gate.open_arguments(token, &sealed);
                let arguments = opened.map_err(|denial| Problem::from(&denial))?;
                rest(parts, &arguments, call).map_err(told)
            }
        }
    }

    fn open(&self, parts: &Parts, call: &ToolCall) -> Result<OpenedToken, Problem> {
        let opened = match credentials::token(&parts.headers) {
            Ok(token) => self.gate.open(token, Some(call.tool())),
            Err(denial) => Err(self.gate.refuse(denial)),
        };
        opened.map_err(|denial| Problem::from(&denial))
    }

    async fn spend(&self, token: OpenedToken, call: &ToolCall) -> Result<SpentToken, Problem> {
        self.gate.admit_opened(token, call).await.map_err(|denial| Problem::from(&denial))
    }
}

/// A handler has no use for the token itself, and for what came with it.
fn passed_on(mut parts: Parts, body: Body, token: &SpentToken) -> Request<Body> {
    parts.headers.remove(AUTHORIZATION);
    parts.headers.remove(credentials::PROOF);
    parts.extensions.insert(token.clone());
    Request::from_parts(parts, body)
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

impl<S> Service<Request<Body>> for TbacService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        let span = tracing::info_span!("guarded", request_id = request_id::of(request.headers()));
        let future = async move {
            let (request, token) = match layer.admit(request).await {
                Ok(admitted) => admitted,
                Err(problem) => return Ok(problem.into()),
            };
            let response = inner.call(request).await?;
            Ok(match token.opened_arguments() {
                Some(_) => sealing::seal(&token, response).await,
                None => response,
            })
        };
        Box::pin(future.instrument(span))
    }
}

impl<S: Sync> FromRequestParts<S> for SpentToken {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response<Body>> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("a handler asks for a SpentToken on a route without TbacLayer");
            Problem::from(ServiceProblem::GuardMissing).into()
        })
    }
}
