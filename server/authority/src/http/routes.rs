//! The routes for agents and resource servers, and what each asks of the service.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use obol_handshake::{MAX_MESSAGE_BYTES, Purpose};
use obol_probe::rate::{Limiter, Rate, Start};
use obol_probe::stop::Stop;
use obol_secret::json;
use obol_stream::Word;
use serde::Deserialize;
use serde_json::{Value, json};

use super::code::ProblemCode;
use super::counters::Counters;
use super::events;
use super::lasting::Lasting;
use super::load::{Turnstile, source_of};
use super::now;
use super::problem::Problem;
use super::stream::answer;
use crate::authority::{Asked, Authority, NotTaken};
use crate::directory::{CallStanding, Polled};
use crate::id::{ApprovalId, Bearer, RegistrationId};
use crate::refused::Refused;
use crate::remote::Operator;
use crate::ssf::Events;

/// How long a message may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// The longest word on a registration that came back, in bytes.
const MAX_SHOWN_BYTES: usize = 512;
const HANDSHAKE_TYPE: &str = "application/vnd.obol.handshake";
/// The scheme of the header with which a registration is asked about.
const POLL_SCHEME: &str = "Obol-Poll ";
/// Third messages at work: they wait for the disk together, and one sync serves all that wait.
const PROOFS_AT_WORK: usize = 64;
/// Requests of operators elsewhere at work; each may wait some seconds for those who follow.
const OPERATIONS_AT_WORK: usize = 8;
/// How often one registration may be asked about: a second, and at once.
const POLLS: (u32, u32) = (1, 3);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What the routes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) authority: Arc<Authority>,
    pub(super) counters: Arc<Counters>,
    hellos: Turnstile,
    proofs: Turnstile,
    reads: Turnstile,
    words: Turnstile,
    operations: Turnstile,
    operator: Option<Arc<dyn Operator>>,
    /// The word to stop, for streams.
    stop: Stop,
    /// First messages, third messages and questions, each by source.
    sources: [Limiter<IpAddr>; 3],
    polls: Limiter<RegistrationId>,
    approval_polls: Limiter<ApprovalId>,
    start: Start,
    events: events::Desk,
}

impl Shared {
    pub(super) fn new(
        (authority, counters, operator): (Arc<Authority>, Arc<Counters>, Option<Arc<dyn Operator>>),
        rate: Option<Rate>,
        stop: Stop,
        events: Option<Arc<Events>>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
        Self {
            authority,
            counters,
            hellos: Turnstile::new(2 * cores),
            proofs: Turnstile::new(PROOFS_AT_WORK),
            reads: Turnstile::new(2 * cores),
            words: Turnstile::new(2 * cores),
            operations: Turnstile::new(OPERATIONS_AT_WORK),
            operator,
            stop,
            sources: [Limiter::new(rate), Limiter::new(rate), Limiter::new(rate)],
            polls: Limiter::new(Rate::new(POLLS.0).map(|rate| rate.with_burst(POLLS.1))),
            approval_polls: Limiter::new(Rate::new(POLLS.0).map(|rate| rate.with_burst(POLLS.1))),
            start: Start::now(),
            events: events::Desk::new(events),
        }
    }
}

type Served = Result<Response, Problem>;

pub(super) fn router(shared: Arc<Shared>) -> axum::Router {
    let prove = |purpose: Purpose| {
        post(async move |State(shared): State<Arc<Shared>>, request: Request| {
            counted(&shared, prove(&shared, purpose, request).await)
        })
    };
    let stream = |purpose: Purpose| {
        post(async move |State(shared): State<Arc<Shared>>, request: Request| {
            counted(&shared, stream(&shared, purpose, request).await)
        })
    };
    axum::Router::new()
        .route("/.well-known/obol-configuration", get(configuration))
        .route(
            "/v1/handshake",
            post(async |State(shared): State<Arc<Shared>>, request: Request| {
                counted(&shared, accept(&shared, request).await)
            }),
        )
        .route("/v1/sessions", prove(Purpose::Session))
        .route("/v1/agents", prove(Purpose::Register))
        .route("/v1/agents/rotate", prove(Purpose::RotateKey))
        .route("/v1/agents/deregister", prove(Purpose::Deregister))
        .route("/v1/approvals", prove(Purpose::Approval))
        .route(
            "/v1/approvals/{id}",
            get(async |State(shared): State<Arc<Shared>>, Path(id): Path<String>, request: Request| {
                let asked = asked_approval(&shared, &id, &request);
                counted(&shared, poll_approval(&shared, asked).await)
            }),
        )
        .route("/v1/operators/login", prove(Purpose::Login))
        .route("/v1/operators", operations())
        .route("/v1/resource-servers", prove(Purpose::Join))
        .route("/v1/agents/stream", stream(Purpose::AgentStream))
        .route("/v1/resource-servers/stream", stream(Purpose::ResourceStream))
        .route(
            "/v1/stream/words",
            post(async |State(shared): State<Arc<Shared>>, request: Request| {
                counted(&shared, word(&shared, request).await)
            }),
        )
        .route(
            "/v1/agents/registrations/{id}",
            get(async |State(shared): State<Arc<Shared>>, Path(id): Path<String>, request: Request| {
                // A request's body cannot be shared, so what is asked is taken out of it first.
                let asked = asked(&shared, &id, &request);
                counted(&shared, poll(&shared, asked).await)
            }),
        )
        .route(
            "/v1/agents/registrations/{id}/complete",
            post(async |State(shared): State<Arc<Shared>>, Path(id): Path<String>, request: Request| {
                let asked = asked(&shared, &id, &request);
                counted(&shared, complete(&shared, asked, request).await)
            }),
        )
        .route("/v1/events", security_events())
        .fallback(async || Problem::new(ProblemCode::NotFound, "no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new(ProblemCode::Method, "method not allowed on this route")
        })
        .with_state(shared)
}

fn security_events() -> MethodRouter<Arc<Shared>> {
    post(async |State(shared): State<Arc<Shared>>, request: Request| {
        let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
        let (code, response) = shared.events.take(&shared.authority, peer, request).await;
        shared.counters.answered(code);
        response
    })
}

fn operations() -> MethodRouter<Arc<Shared>> {
    post(async |State(shared): State<Arc<Shared>>, request: Request| {
        counted(&shared, operate(&shared, request).await)
    })
}

fn counted(shared: &Shared, served: Served) -> Response {
    shared.counters.answered(served.as_ref().err().map_or("ok", Problem::code));
    match served {
        Ok(mut response) => {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// Where a request comes from, if it may have one more of its kind.
fn admitted(limiter: &Limiter<IpAddr>, start: Start, request: &Request) -> Result<IpAddr, Problem> {
    admitted_from(limiter, start, request.extensions().get::<Peer>().copied())
}

fn admitted_from(limiter: &Limiter<IpAddr>, start: Start, peer: Option<Peer>) -> Result<IpAddr, Problem> {
    let address = peer.map(|Peer(address)| address.ip()).ok_or_else(Problem::overloaded)?;
    let source = source_of(address);
    limiter
        .take(source, start.nanoseconds())
        .map_err(|wait| Problem::too_many(ProblemCode::TooMany, wait))?;
    Ok(source)
}

async fn message(request: Request) -> Result<Vec<u8>, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind != Some(HANDSHAKE_TYPE.as_bytes()) {
        return Err(Problem::new(
            ProblemCode::ContentType,
            format!("a handshake message has the content type {HANDSHAKE_TYPE}"),
        ));
    }
    whole(request, MAX_MESSAGE_BYTES).await
}

/// The body, if it is short enough and comes in time.
async fn whole(request: Request, most_bytes: usize) -> Result<Vec<u8>, Problem> {
    let body = Limited::new(request.into_body(), most_bytes).collect();
    let body = tokio::time::timeout(BODY_PATIENCE, body)
        .await
        .map_err(|_| Problem::new(ProblemCode::TooSlow, "the message took too long"))?;
    let body = body.map_err(|_| {
        let detail = format!("a message of this kind has at most {most_bytes} bytes");
        Problem::new(ProblemCode::TooLarge, detail)
    })?;
    Ok(body.to_bytes().to_vec())
}

fn binary(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(HANDSHAKE_TYPE));
    response
}

fn document(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Message A to message B.
async fn accept(shared: &Shared, request: Request) -> Served {
    let [first, ..] = &shared.sources;
    admitted(first, shared.start, &request)?;
    let hello = message(request).await?;
    let authority = Arc::clone(&shared.authority);
    let reply = shared.hellos.run_short(move || authority.accept(&hello, now())).await?;
    Ok(binary(reply?))
}

/// Message C to message D.
async fn prove(shared: &Shared, purpose: Purpose, request: Request) -> Served {
    let [_, third, _] = &shared.sources;
    let source = admitted(third, shared.start, &request)?.to_string();
    let proof = message(request).await?;
    let authority = Arc::clone(&shared.authority);
    let answer = shared.proofs.run(move || authority.prove(purpose, &proof, &source, now())).await?;
    Ok(binary(answer?))
}

/// Message C of an operator elsewhere. Who asks is found out before it takes one of the few places.
async fn operate(shared: &Shared, request: Request) -> Served {
    let [_, third, _] = &shared.sources;
    admitted(third, shared.start, &request)?;
    let Some(operator) = shared.operator.clone() else {
        return Err(Problem::new(ProblemCode::NotFound, "no such route"));
    };
    let proof = message(request).await?;
    let authority = Arc::clone(&shared.authority);
    let asked = shared.proofs.run(move || authority.ask_to_operate(&proof, now())).await??;
    let asks = match asked {
        Asked::Answer(answer) => return Ok(binary(answer)),
        Asked::Asks(asks) => asks,
    };
    let authority = Arc::clone(&shared.authority);
    let answer = shared.operations.run(move || authority.operate(*asks, &*operator, now())).await?;
    Ok(binary(answer))
}

/// Message C to a stream.
async fn stream(shared: &Shared, purpose: Purpose, request: Request) -> Served {
    let [_, third, _] = &shared.sources;
    admitted(third, shared.start, &request)?;
    let lasting = request.extensions().get::<Lasting>().cloned();
    let proof = message(request).await?;
    let authority = Arc::clone(&shared.authority);
    let begun = shared.proofs.run(move || authority.begin_stream(purpose, &proof, now())).await??;
    let keeps = lasting.map(Lasting::keep);
    Ok(answer(Arc::clone(&shared.authority), begun, keeps, shared.stop.clone()))
}

/// What a follower says on its stream.
async fn word(shared: &Shared, request: Request) -> Served {
    let [_, _, questions] = &shared.sources;
    let peer = request.extensions().get::<Peer>().copied();
    let bytes = message(request).await?;
    let (id, number, _) =
        Word::open_envelope(&bytes).map_err(|error| Problem::malformed(error.to_string()))?;
    let Some(live) = shared.authority.hub().stream(id) else {
        // Who follows may say much, and others little.
        admitted_from(questions, shared.start, peer)?;
        let detail = "no such stream, or it has ended; start another";
        return Err(Problem::new(ProblemCode::NoSuchStream, detail));
    };
    let authority = Arc::clone(&shared.authority);
    let act = move || match Word::open_envelope(&bytes) {
        Ok((_, _, sealed)) => authority.word(&live, number, sealed, now()),
        Err(_) => Err(NotTaken::Malformed),
    };
    match shared.words.run(act).await? {
        Ok(()) => Ok(document(&json!({}))),
        Err(NotTaken::Malformed) => {
            Err(Problem::malformed("not a word of this stream, or one that was said before"))
        }
        Err(NotTaken::Unavailable(why)) => {
            tracing::error!(why, "a word could not be carried out");
            Err(Problem::overloaded())
        }
    }
}

fn unknown() -> Problem {
    let detail =
        "no such registration, or the poll token is another's; it is forgotten an hour after its end";
    Problem::new(ProblemCode::NoSuchRegistration, detail)
}

/// Which registration is asked about, and with what.
fn asked(shared: &Shared, id: &str, request: &Request) -> Result<(RegistrationId, Bearer), Problem> {
    let [_, _, questions] = &shared.sources;
    admitted(questions, shared.start, request)?;
    let id = RegistrationId::parse(id).ok_or_else(unknown)?;
    let token = poll_token(request.headers()).ok_or_else(no_poll_token)?;
    Ok((id, token))
}

/// What became of a registration, for whoever made it.
async fn poll(shared: &Shared, asked: Result<(RegistrationId, Bearer), Problem>) -> Served {
    let (id, token) = asked?;
    let authority = Arc::clone(&shared.authority);
    let asked = id.clone();
    let polled = shared.reads.run(move || authority.poll(asked, &token, now())).await?;
    let polled = polled.map_err(|refused| {
        tracing::error!(%refused, "a registration could not be looked up");
        Problem::overloaded()
    })?;
    let polled = polled.ok_or_else(unknown)?;
    // After the token was checked: a stranger cannot use up what the agent may ask.
    shared
        .polls
        .take(id, shared.start.nanoseconds())
        .map_err(|wait| Problem::too_many(ProblemCode::SlowDown, wait))?;
    Ok(document(&match polled {
        Polled::Pending => json!({ "state": "pending" }),
        Polled::Confirming => json!({ "state": "confirming" }),
        Polled::Denied => json!({ "state": "denied" }),
        Polled::Expired => json!({ "state": "expired" }),
        Polled::Approved { agent, expires_at } => {
            json!({ "state": "approved", "agent_id": agent, "expires_at": expires_at })
        }
    }))
}

/// What comes back with a human's yes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    code: String,
}

/// A human's yes came back: the registration becomes an agent.
async fn complete(
    shared: &Shared,
    asked: Result<(RegistrationId, Bearer), Problem>,
    request: Request,
) -> Served {
    let (id, token) = asked?;
    let body = whole(request, MAX_SHOWN_BYTES).await?;
    let shown: Shown = json::parse(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    let authority = Arc::clone(&shared.authority);
    let act = move || authority.complete(id, &token, &shown.code, now());
    let agent = shared.proofs.run(act).await?.map_err(|refused| match refused {
        Refused::NoSuchCode => unknown(),
        Refused::Unavailable(why) => {
            tracing::error!(why, "a registration could not be completed");
            Problem::overloaded()
        }
        refused => Problem::refused(&refused),
    })?;
    Ok(document(&json!({ "state": "approved", "agent_id": agent.id, "expires_at": agent.expires_at })))
}

fn unknown_approval() -> Problem {
    let detail =
        "no such request, or the poll token is another's; it is forgotten two hours after it was made";
    Problem::new(ProblemCode::NoSuchApproval, detail)
}

/// Which request for a human's yes is asked about, and with what.
fn asked_approval(shared: &Shared, id: &str, request: &Request) -> Result<(ApprovalId, Bearer), Problem> {
    let [_, _, questions] = &shared.sources;
    admitted(questions, shared.start, request)?;
    let id = ApprovalId::parse(id).ok_or_else(unknown_approval)?;
    Ok((id, poll_token(request.headers()).ok_or_else(no_poll_token)?))
}

/// How a request for a human's yes stands, for whoever made it.
async fn poll_approval(shared: &Shared, asked: Result<(ApprovalId, Bearer), Problem>) -> Served {
    let (id, token) = asked?;
    let authority = Arc::clone(&shared.authority);
    let asked = id.clone();
    let polled = shared.reads.run(move || authority.poll_approval(&asked, &token, now())).await?;
    let polled = polled.map_err(|refused| {
        tracing::error!(%refused, "a request for a human's yes could not be looked up");
        Problem::overloaded()
    })?;
    let polled = polled.ok_or_else(unknown_approval)?;
    let start = shared.start.nanoseconds();
    shared.approval_polls.take(id, start).map_err(|wait| Problem::too_many(ProblemCode::SlowDown, wait))?;
    Ok(document(&match polled {
        CallStanding::Waiting => json!({ "state": "waiting" }),
        CallStanding::Denied => json!({ "state": "denied" }),
        CallStanding::Expired => json!({ "state": "expired" }),
        CallStanding::Approved { confirmed_at, expires_at } => {
            json!({ "state": "approved", "confirmed_at": confirmed_at, "expires_at": expires_at })
        }
    }))
}

fn no_poll_token() -> Problem {
    let detail = "the header `Authorization: Obol-Poll <token>` is missing or malformed";
    Problem::new(ProblemCode::PollToken, detail)
}

fn poll_token(headers: &HeaderMap) -> Option<Bearer> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    Bearer::parse(value.to_str().ok()?.strip_prefix(POLL_SCHEME)?)
}

/// What a client needs to know beforehand. It is not authenticated but by TLS: the key is to be pinned from elsewhere, or
/// shown to a human.
async fn configuration(State(shared): State<Arc<Shared>>) -> Response {
    document(&shared.authority.configuration())
}
