//! Retry receipts: a layer by which a call that its caller named is carried out once, and answered alike however often it is sent.
//!
//! It stands between [`TbacLayer`](crate::TbacLayer) and the handler. Each sending brings a token of its own, which is spent first; a
//! request that brings an `Idempotency-Key` beside it is then looked up under its agent and that key:
//!
//! | found | answer |
//! |---|---|
//! | nothing | *running* is noted, the handler runs, and *done* is noted with the answer |
//! | the same call, done | the answer as it was kept, with `Idempotent-Replayed: true` |
//! | the same call, running | 409 `CALL_RUNNING`, with `Retry-After` |
//! | the same call, begun, and nobody knows how far it came | 409 `OUTCOME_UNKNOWN` |
//! | the same call, done, its answer too long to be kept | 409 `ANSWER_NOT_KEPT` |
//! | another call | 422 `KEY_REUSED` |
//!
//! The handler goes on when its caller goes away: whoever asks again gets what it came to.

mod answer;
mod call;

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode};
use obol_probe::metrics::{Counter, Kind, Page};
use obol_verify::receipt::{Begun, Finished, ReceiptId, ReceiptStore, ReceiptsUnavailable};
use tokio::task::spawn_blocking;
use tower::{Layer, Service};

use self::answer::Kept;
use self::call::NamedCall;
use crate::bodies::{BODY_TIMEOUT, Bodies};
use crate::refusal::{Problem, ServiceProblem};
use crate::spent_token::SpentToken;

/// What an answer says that was kept.
const REPLAYED: &str = "idempotent-replayed";
/// What calls come to, as metrics name it.
const OUTCOMES: [&str; 7] = ["fresh", "replayed", "running", "unknown", "not_kept", "reused", "unavailable"];

/// Receipts, and what is counted of them. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Receipts(Arc<Shared>);

struct Shared {
    store: Arc<dyn ReceiptStore>,
    bodies: Bodies,
    counts: [Counter; OUTCOMES.len()],
}

impl Receipts {
    /// Kept in this store. Calls may run as long as its limits say.
    pub fn new(store: Arc<dyn ReceiptStore>) -> Self {
        Self(Arc::new(Shared { store, bodies: Bodies::new(BODY_TIMEOUT), counts: Default::default() }))
    }

    /// The layer, to stand below [`TbacLayer`](crate::TbacLayer).
    pub fn layer(&self) -> ReceiptLayer {
        ReceiptLayer(self.clone())
    }

    /// Whether calls can be begun, as far as is known.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn health(&self) -> Result<(), ReceiptsUnavailable> {
        self.0.store.health()
    }

    /// What named calls came to, and how many receipts there are; in the text format of Prometheus, to stand behind
    /// [`Gate::metrics`](crate::Gate::metrics).
    pub fn metrics(&self) -> String {
        let mut page = Page::part();
        let mut outcomes =
            page.series("obol_receipts_total", Kind::Counter, "Calls with an idempotency key by outcome.");
        for (name, counter) in OUTCOMES.iter().zip(&self.0.counts) {
            outcomes.value(&[("outcome", name)], counter.get());
        }
        page.number("obol_receipts", Kind::Gauge, "Receipts that are kept.", self.0.store.receipts() as u64);
        page.into_text()
    }

    fn count(&self, outcome: &str) {
        let counted = OUTCOMES.iter().zip(&self.0.counts).find(|(name, _)| **name == outcome);
        if let Some((_, counter)) = counted {
            counter.increment();
        }
    }

    /// Does something with the store, which may wait for a disk or a network, off the runtime's threads.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ReceiptStore) -> Result<T, ReceiptsUnavailable> + Send + 'static,
    ) -> Result<T, ReceiptsUnavailable> {
        let store = Arc::clone(&self.0.store);
        let asked = spawn_blocking(move || work(&*store)).await;
        asked.unwrap_or_else(|_| Err(ReceiptsUnavailable("the server is stopping".into())))
    }

    /// What was found, as an answer; `None` where the call is to be carried out.
    async fn begin(&self, call: &NamedCall) -> Option<Response<Body>> {
        let (id, digest) = (call.id, call.digest);
        let begun = self.ask(move |store| store.begin(&id, &digest)).await;
        let (outcome, answer) = match begun {
            Ok(Begun::Fresh) => {
                self.count("fresh");
                return None;
            }
            Ok(Begun::Done(kept)) => match answer::from_bytes(&kept) {
                Some(response) => ("replayed", replayed(response)),
                None => ("not_kept", problem(ServiceProblem::AnswerNotKept)),
            },
            Ok(Begun::Running) => ("running", problem(ServiceProblem::CallRunning)),
            Ok(Begun::Unknown) => ("unknown", problem(ServiceProblem::OutcomeUnknown)),
            Ok(Begun::NotKept) => ("not_kept", problem(ServiceProblem::AnswerNotKept)),
            Ok(Begun::OtherCall) => ("reused", problem(ServiceProblem::KeyReused)),
            Err(error) => {
                tracing::error!(%error, "a call with an idempotency key is not carried out");
                (
                    "unavailable",
                    Problem::unavailable("Calls with an idempotency key cannot be noted at the moment")
                        .into(),
                )
            }
        };
        self.count(outcome);
        Some(answer)
    }

    async fn finish(&self, id: ReceiptId, kept: Kept) {
        let noted = self.ask(move |store| {
            let finished = match &kept {
                Kept::Answer(bytes) => Finished::Answer(bytes),
                Kept::Not => Finished::NotKept,
                Kept::Unknown => Finished::Unknown,
            };
            store.finish(&id, finished)
        });
        if let Err(error) = noted.await {
            tracing::error!(%error, "what became of a call is not noted; whoever asks again is told that nobody knows");
        }
    }
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipts").field(&self.0.store).finish()
    }
}

fn problem(what: ServiceProblem) -> Response<Body> {
    Problem::from(what).into()
}

fn replayed(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct ReceiptLayer(Receipts);

impl<S> Layer<S> for ReceiptLayer {
    type Service = ReceiptService<S>;

    fn layer(&self, inner: S) -> ReceiptService<S> {
        ReceiptService { receipts: self.0.clone(), inner }
    }
}

/// The service that [`ReceiptLayer`] makes of another.
#[derive(Clone, Debug)]
pub struct ReceiptService<S> {
    receipts: Receipts,
    inner: S,
}

impl<S> Service<Request<Body>> for ReceiptService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
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
        let receipts = self.receipts.clone();
        Box::pin(async move {
            let (request, key) = match call::key(request) {
                Ok((request, Some(key))) => (request, key),
                Ok((request, None)) => return inner.call(request).await,
                Err(problem) => return Ok(problem.into()),
            };
            let Some(token) = request.extensions().get::<SpentToken>().cloned() else {
                tracing::error!("a ReceiptLayer stands on a route without TbacLayer above it");
                return Ok(problem(ServiceProblem::GuardMissing));
            };
            let (request, call) = match NamedCall::read(request, &token, &key, &receipts.0.bodies).await {
                Ok(read) => read,
                Err(problem) => return Ok(problem.into()),
            };
            match receipts.begin(&call).await {
                Some(answer) => Ok(answer),
                None => carried_out(receipts, call.id, inner.call(request)).await,
            }
        })
    }
}

/// Carries a call out, to its end whoever goes away meanwhile, and notes how it ended.
async fn carried_out<E: Send + 'static>(
    receipts: Receipts,
    id: ReceiptId,
    handling: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
) -> Result<Response<Body>, E> {
    let longest = Duration::from_secs(receipts.0.store.limits().running_secs);
    let task = tokio::spawn(async move {
        // In a task of its own, so that one that panics is noticed.
        let handled = tokio::spawn(tokio::time::timeout(longest, async {
            Ok::<_, E>(answer::kept(handling.await?).await)
        }));
        let (kept, outcome) = match handled.await {
            Ok(Ok(Ok((kept, response)))) => (kept, Ok(response)),
            Ok(Ok(Err(error))) => (Kept::Unknown, Err(error)),
            Ok(Err(_)) => {
                tracing::error!(seconds = longest.as_secs(), "a call took too long, and was given up");
                (Kept::Unknown, Ok(problem(ServiceProblem::OutcomeUnknown)))
            }
            Err(_) => (Kept::Unknown, Ok(panicked())),
        };
        receipts.finish(id, kept).await;
        outcome
    });
    task.await.unwrap_or_else(|_| Ok(panicked()))
}

fn panicked() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
