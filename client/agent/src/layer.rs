//! A token for every request of a `tower` client.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};

use crate::agent::Agent;

type BoxError = Box<dyn core::error::Error + Send + Sync>;

/// Draws a token for each request before the client below sends it, as [`Agent::sign`] does. Nothing is sent again here. The
/// client below must not follow redirects and must not send a request twice: the token would go with it.
#[derive(Clone, Debug)]
pub struct AgentLayer(Agent);

impl AgentLayer {
    /// With the tokens of this agent.
    pub const fn new(agent: Agent) -> Self {
        Self(agent)
    }
}

impl<S> Layer<S> for AgentLayer {
    type Service = AgentService<S>;

    fn layer(&self, inner: S) -> AgentService<S> {
        AgentService { agent: self.0.clone(), inner }
    }
}

/// The service that [`AgentLayer`] makes of a client.
#[derive(Clone, Debug)]
pub struct AgentService<S> {
    agent: Agent,
    inner: S,
}

impl<S, B> Service<Request<B>> for AgentService<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, clone);
        let agent = self.agent.clone();
        Box::pin(async move {
            agent.sign(&mut request).await?;
            inner.call(request).await.map_err(Into::into)
        })
    }
}
