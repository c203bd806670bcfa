//! `POST /v1/spend`: the spent set for what other protocols want used once: the `jti` of a DPoP proof, an assertion, the state of a
//! round of MCP. On a local socket of its own, for the users that the socket is for, and on no port.
//!
//! The request is `{"issuer", "id", "expires", "issued"?}`. Of any number of requests with one `issuer` and `id`, at any time and at
//! any of the servers that share the set, exactly one is answered 200, and only once that can no longer be lost.
//!
//! | answer | when |
//! |---|---|
//! | 200 `{"ok":true}` | it was never spent, and is now |
//! | 409 `ALREADY_SPENT` | it was |
//! | 409 `NOT_REMEMBERED` | whether it was is not known any more: it has expired, or may be older than a [fence](obol_verify::SpentSet::fence) |
//! | 503 `UNAVAILABLE`, `OVERLOADED` | nothing can be spent now, or there is no room |
//!
//! Whoever asks does nothing for any answer but the first, nor for none. Marks of identifiers and of tokens are made of different bytes, so
//! that neither spends the other; and identifiers fill no more than half of the set.

mod identifier;
mod quota;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::{Limits, Listen, Place, accept};
use obol_probe::contract::Ended;
use obol_probe::http::{Bounds, serve};
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use obol_secret::json;
use obol_verify::{Clock, SpendError};
use parking_lot::Mutex;

use self::identifier::{Asked, Identifier};
use self::quota::Quota;
use super::server::{DRAIN_TIMEOUT, HEADER_TIMEOUT, WRITE_TIMEOUT};
use crate::bodies::{BODY_TIMEOUT, Bodies, Peer};
use crate::gate::{Gate, SPEND_TIMEOUT};
use crate::metrics::Identified;
use crate::refusal::{Problem, ServiceProblem};

const LIMITS: Limits = Limits { max_connections: 256, drain_timeout: DRAIN_TIMEOUT };
/// The most that is read before a request's headers must be complete, in bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// The longest body, in bytes.
const MAX_BODY_BYTES: usize = 16 << 10;

/// What spends identifiers. Not running yet.
#[derive(Clone, Debug)]
pub struct SpendService {
    gate: Gate,
    clock: Arc<dyn Clock>,
    quota: Arc<Mutex<Quota>>,
    bodies: Bodies,
}

impl SpendService {
    /// Spends in the set that this gate spends tokens in.
    pub fn new(gate: Gate, clock: Arc<dyn Clock>) -> Self {
        Self { gate, clock, quota: Arc::default(), bodies: Bodies::new(BODY_TIMEOUT) }
    }

    /// Serves until the word to stop is said, then lets requests under way finish, for a while. The listener gives only connections
    /// of users that may spend.
    pub async fn run<L: Listen>(self, listener: L, stop: &Stop) -> Ended {
        let router = Router::new()
            .route("/v1/spend", post(handle))
            .fallback(|| async { Problem::from(ServiceProblem::NotFound) })
            .method_not_allowed_fallback(|| async { Problem::from(ServiceProblem::MethodNotAllowed) })
            .with_state(self);
        let bounds = Bounds {
            header_timeout: HEADER_TIMEOUT,
            max_header_bytes: MAX_HEADER_BYTES,
            life: None,
            keep_alive: true,
        };
        let each = |stream, _, place: Place<'_>| {
            let (stream, stop) = (Patience::new(stream, WRITE_TIMEOUT), stop.clone());
            let service = TowerToHyperService::new(router.clone());
            place.serve(async move { serve(stream, service, bounds, &stop).await });
        };
        accept(listener, LIMITS, stop, core::future::pending(), each).await
    }

    async fn answer(&self, request: Request) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        let body = self.bodies.read(Peer::of(&head.extensions), body).await?;
        let malformed = |why: String| Problem::malformed(StatusCode::BAD_REQUEST, why);
        if body.bytes.len() > MAX_BODY_BYTES {
            return Err(malformed(format!("the body is longer than {MAX_BODY_BYTES} bytes")));
        }
        let asked: Asked = json::parse(&body.bytes).map_err(|error| malformed(error.to_string()))?;
        let (now, skew) = (self.clock.now(), self.gate.verifier().limits().clock_skew);
        let identifier = asked.check(now, skew).map_err(malformed)?;
        let outcome = self.spend(&identifier, now, skew).await;
        self.gate.count_identifier(match &outcome {
            Ok(()) => Identified::First,
            Err(SpendError::AlreadySpent) => Identified::Again,
            Err(SpendError::Forgotten) => Identified::NotRemembered,
            Err(SpendError::Unavailable(_)) => Identified::Unavailable,
        });
        match outcome {
            Ok(()) => Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], "{\"ok\":true}\n")
                .into_response()),
            Err(SpendError::AlreadySpent) => Err(ServiceProblem::AlreadySpent.into()),
            Err(SpendError::Forgotten) => Err(ServiceProblem::NotRemembered.into()),
            Err(SpendError::Unavailable(why)) => {
                tracing::error!(%why, "an identifier cannot be spent");
                Err(Problem::unavailable("The identifier cannot be spent"))
            }
        }
    }

    async fn spend(&self, identifier: &Identifier, now: u64, skew: u64) -> Result<(), SpendError> {
        let spent = self.gate.verifier().spent_set();
        if identifier.has_expired(now, skew) || identifier.may_be_older_than(spent.fence()) {
            return Err(SpendError::Forgotten);
        }
        let mark = identifier.mark();
        // Looked at first, so that what was spent is known as such also where there is no room for more.
        if spent.is_spent(&mark)? {
            return Err(SpendError::AlreadySpent);
        }
        self.quota.lock().take(mark.expires_at(), now, spent.marks())?;
        let Ok(outcome) = tokio::time::timeout(SPEND_TIMEOUT, spent.spend(mark)).await else {
            return Err(SpendError::Unavailable("the spent set did not answer in time".into()));
        };
        outcome?;
        // Marks may have been lost while this one was made.
        if identifier.may_be_older_than(spent.fence()) {
            return Err(SpendError::Forgotten);
        }
        Ok(())
    }
}

async fn handle(State(service): State<SpendService>, request: Request) -> Response {
    service.answer(request).await.unwrap_or_else(Response::from)
}
