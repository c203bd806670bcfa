//! Verification as a service: for APIs in other languages, and for reverse proxies that ask before they forward.
//!
//! | route | for |
//! |---|---|
//! | `POST /v1/verify` | an API that sends the token and the call it is about to make |
//! | any `/v1/authorize`, and below it | nginx `auth_request`, Traefik `forwardAuth`, Envoy `ext_authz`: token and call in headers |
//! | `GET /livez`, `/readyz`, `/metrics` | whoever watches the process |
//!
//! Both routes **spend** the token: 200 means that this one call may be made now. `POST /v1/spend`, for what is no token, has a local
//! socket of its own: [`SpendService`].

mod authorize;
mod server;
mod spend;
mod verify;

use core::time::Duration;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use obol_probe::health;
use obol_verify::FailedCheck;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use crate::bodies::{BODY_TIMEOUT, Bodies};
use crate::gate::Gate;
use crate::refusal::{Problem, ServiceProblem};
use crate::request_id;

pub use obol_probe::contract::{BindCause, BindError};
pub use server::{Handle, Options, Service};
pub use spend::SpendService;

/// The most requests that are verified at a time, unless told otherwise. One takes well under a millisecond of
/// processor time; the rest of the wait is for the disk, which serves all of them at once.
pub const MAX_IN_FLIGHT: usize = 1_024;

/// What the routes share.
#[derive(Clone, Debug)]
pub struct ServiceState {
    gate: Gate,
    in_flight: Arc<Semaphore>,
    bodies: Bodies,
}

impl ServiceState {
    /// Verifies with this gate, within the standard limits.
    pub fn new(gate: Gate) -> Self {
        Self { gate, in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), bodies: Bodies::new(BODY_TIMEOUT) }
    }

    /// Verifies at most this many requests at a time; more are answered 503.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.in_flight = Arc::new(Semaphore::new(requests));
        self
    }

    /// Waits at most this long for a request's body.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.bodies = Bodies::new(timeout);
        self
    }

    /// A place among the requests that are verified at a time, taken once all of a request is there: one that was merely
    /// announced must not keep others out.
    fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| Problem::overloaded())
    }
}

/// The route for reverse proxies; also with more behind it.
const AUTHORIZE: &str = "/v1/authorize";

/// Refuses what was meant for another machine, on a loopback address: what a web page asks for under a name of its own.
/// A proxy hands on the name that its caller used, so that route takes any; it answers with no more than a yes or no.
pub(crate) async fn refuse_foreign_names(request: Request, next: Next) -> Response {
    if may_pass(&request) {
        return next.run(request).await;
    }
    let mut problem = Problem::from(ServiceProblem::ForeignHost);
    problem.explain(
        "ask for a loopback address or localhost in Host, and in Origin where there is one; a proxy in front must set Host",
    );
    problem.into()
}

fn may_pass(request: &Request) -> bool {
    let path = request.uri().path();
    if path.strip_prefix(AUTHORIZE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return true;
    }
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    obol_probe::host::is_local(values(HOST).chain(named), values(ORIGIN))
}

/// The routes. Put them behind nothing that is reachable from outside without TLS: they carry tokens.
pub fn router(state: ServiceState) -> Router {
    Router::new()
        .route("/v1/verify", post(verify::handle))
        .route(AUTHORIZE, any(authorize::handle))
        // Envoy appends the path of the request that it asks about.
        .route("/v1/authorize/", any(authorize::handle))
        .route("/v1/authorize/{*path}", any(authorize::handle))
        .route("/livez", get(|| async { health::ALIVE }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { Problem::from(ServiceProblem::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::from(ServiceProblem::MethodNotAllowed) })
        .layer(middleware::from_fn(name_request))
        .with_state(state)
}

async fn name_request(request: Request, next: Next) -> Response {
    let name = request_id::of(request.headers());
    let span = tracing::info_span!("request", request_id = name, path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::try_from(name) {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    response
}

async fn ready(State(state): State<ServiceState>) -> Response {
    match state.gate.health() {
        Ok(()) => health::READY.into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready");
            let title = match error.failed_check {
                FailedCheck::AuditLog => "The audit log cannot be written, and nothing is accepted unaudited",
                _ => "Tokens cannot be spent",
            };
            Problem::unavailable(title).into()
        }
    }
}

async fn metrics(State(state): State<ServiceState>) -> Response {
    let text = state.gate.metrics();
    ([(CONTENT_TYPE, health::TEXT)], text).into_response()
}
