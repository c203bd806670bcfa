//! Streams of security events for others (Shared Signals Framework 1.0): what the service says of itself, and what a receiver
//! with a bearer token may do with its streams. Whoever fetches may wait for something to fetch; who waits is bounded in number
//! and time, and holds the turn of nobody else.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use obol_probe::rate::{Limiter, Rate, Start};
use obol_probe::stop::Stop;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::code::ProblemCode;
use super::counters::Counters;
use super::load::{Turnstile, source_of};
use super::now;
use super::problem::Problem;
use super::routes::Peer;
use crate::authority::Authority;
use crate::ssf::{Events, StreamError, Verb, asked_while_waiting};

/// The longest request, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;
/// How long a request may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// Requests at work.
const AT_WORK: usize = 8;
/// How long one waits for something to fetch: less than what is between here and there cuts off.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The most that wait, of one stream and altogether. One more is answered at once.
const MOST_WAITING: (usize, usize) = (2, 64);
/// How often it is looked for something while one waits: also without being woken, and at the most.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(200));

/// What the routes share.
#[derive(Debug)]
pub(super) struct Streams {
    events: Arc<Events>,
    authority: Arc<Authority>,
    counters: Arc<Counters>,
    sources: Limiter<IpAddr>,
    turns: Turnstile,
    start: Start,
    /// How many wait, by the stream.
    waiting: Mutex<BTreeMap<String, usize>>,
    stop: Stop,
}

impl Streams {
    pub(super) fn new(
        events: Arc<Events>,
        authority: Arc<Authority>,
        counters: Arc<Counters>,
        rate: Option<Rate>,
        stop: Stop,
    ) -> Self {
        let (sources, turns) = (Limiter::new(rate), Turnstile::new(AT_WORK));
        let waiting = Mutex::default();
        Self { events, authority, counters, sources, turns, start: Start::now(), waiting, stop }
    }
}

/// What a receiver asks.
struct Asked {
    verb: Verb,
    token: Option<String>,
    stream: Option<String>,
    body: Bytes,
}

/// One that waits.
struct Waits<'a> {
    streams: &'a Streams,
    stream: &'a str,
}

impl<'a> Waits<'a> {
    /// `None` where too many do.
    fn begin(streams: &'a Streams, stream: &'a str) -> Option<Self> {
        let mut waiting = streams.waiting.lock();
        let all: usize = waiting.values().sum();
        let of_stream = waiting.get(stream).copied().unwrap_or_default();
        if of_stream >= MOST_WAITING.0 || all >= MOST_WAITING.1 {
            return None;
        }
        waiting.insert(stream.to_owned(), of_stream + 1);
        Some(Self { streams, stream })
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.streams.waiting.lock();
        match waiting.get_mut(self.stream) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(waiting.remove(self.stream)),
        }
    }
}

pub(super) fn router(streams: Arc<Streams>) -> axum::Router {
    let on = |verb: Verb| {
        async move |State(streams): State<Arc<Streams>>, request: Request| {
            let id = stream_named(&request);
            streams.counted(streams.act(verb, id, request).await)
        }
    };
    let fetch = async |State(streams): State<Arc<Streams>>, Path(id): Path<String>, request: Request| {
        streams.counted(streams.act(Verb::Fetch, Some(id), request).await)
    };
    let change: MethodRouter<Arc<Streams>> = post(on(Verb::Create))
        .get(on(Verb::Read))
        .patch(on(Verb::Update))
        .put(on(Verb::Update))
        .delete(on(Verb::Remove));
    axum::Router::new()
        .route("/.well-known/ssf-configuration", get(on(Verb::Configuration)))
        .route("/.well-known/jwks.json", get(on(Verb::Keys)))
        .route("/ssf/streams", change)
        .route("/ssf/status", get(on(Verb::Status)).post(on(Verb::SetStatus)))
        .route("/ssf/verify", post(on(Verb::Verify)))
        .route("/ssf/poll/{id}", post(fetch))
        .with_state(streams)
}

/// The stream that a request is about, if its query names one. Names are of letters that need no escape.
fn stream_named(request: &Request) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').find_map(|pair| pair.strip_prefix("stream_id=")).map(str::to_owned)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

enum Failed {
    Problem(Problem),
    Stream(StreamError),
}

impl Streams {
    async fn act(
        self: &Arc<Self>,
        verb: Verb,
        stream: Option<String>,
        request: Request,
    ) -> Result<Response, Failed> {
        let peer = request.extensions().get::<Peer>().map(|Peer(address)| source_of(address.ip()));
        let peer = peer.ok_or_else(|| Failed::Problem(Problem::overloaded()))?;
        let admitted = self.sources.take(peer, self.start.nanoseconds());
        admitted.map_err(|wait| Failed::Problem(Problem::too_many(ProblemCode::TooMany, wait)))?;
        let token = bearer(request.headers());
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let body = timeout(BODY_PATIENCE, body).await.ok().and_then(Result::ok);
        let body = body
            .ok_or_else(|| Failed::Problem(Problem::malformed("the body is too long, or took too long")))?;
        let mut asked = Asked { verb, token, stream, body: body.to_bytes() };
        let mut said = self.say(&asked).await?;
        if verb == Verb::Fetch
            && let Some(again) = asked_while_waiting(&asked.body, &said)
        {
            asked.body = again.into();
            self.wait(&asked, &mut said).await?;
        }
        Ok(answer(verb, &said))
    }

    /// Does what is asked, when it is its turn.
    async fn say(self: &Arc<Self>, asked: &Asked) -> Result<Value, Failed> {
        let streams = Arc::clone(self);
        let (verb, token, stream) = (asked.verb, asked.token.clone(), asked.stream.clone());
        let body = asked.body.clone();
        let act = move || {
            let of = (token.as_deref(), stream.as_deref());
            streams.events.act(verb, of, &body, &streams.authority, now())
        };
        self.turns.run(act).await.map_err(Failed::Problem)?.map_err(Failed::Stream)
    }

    /// Waits until something is there for one who fetches, not for ever. Whoever may not wait has its answer already.
    async fn wait(self: &Arc<Self>, asked: &Asked, said: &mut Value) -> Result<(), Failed> {
        let Some(_waits) = Waits::begin(self, asked.stream.as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        let until = Instant::now() + LONGEST_WAIT;
        let mut head = self.authority.directory().head();
        loop {
            let looked = Instant::now();
            head.mark_unchanged();
            *said = self.say(asked).await?;
            if asked_while_waiting(&asked.body, said).is_none() || looked >= until {
                return Ok(());
            }
            tokio::select! {
                () = self.stop.said() => return Ok(()),
                // A commit wakes it, or it looks by itself: not everything that it may find is one.
                _ = timeout(LOOKS.0, head.changed()) => sleep_until(looked + LOOKS.1).await,
            }
        }
    }

    fn counted(&self, served: Result<Response, Failed>) -> Response {
        let (code, mut response) = match served {
            Ok(response) => ("ok", response),
            Err(Failed::Problem(problem)) => {
                (problem.code(), axum::response::IntoResponse::into_response(problem))
            }
            Err(Failed::Stream(error)) => refused(&error),
        };
        self.counters.answered(code);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn answer(verb: Verb, said: &Value) -> Response {
    let status = match verb {
        Verb::Create => StatusCode::CREATED,
        Verb::Remove | Verb::Verify => StatusCode::NO_CONTENT,
        _ => StatusCode::OK,
    };
    let body = if status == StatusCode::NO_CONTENT { Body::empty() } else { Body::from(said.to_string()) };
    document(status, body)
}

fn document(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

fn refused(error: &StreamError) -> (&'static str, Response) {
    let code = match error {
        StreamError::Unauthorized => ProblemCode::Unauthorized,
        StreamError::NotFound => ProblemCode::NoSuchStream,
        StreamError::Conflict => ProblemCode::TooManyStreams,
        StreamError::Malformed(_) => ProblemCode::Malformed,
        StreamError::Unavailable(why) => {
            tracing::error!(why, "a receiver's request could not be carried out");
            ProblemCode::Unavailable
        }
    };
    let (code, status) = (code.as_str(), code.status());
    let said = match error {
        StreamError::Unavailable(_) => "it cannot be done now; ask again".to_owned(),
        error => error.to_string(),
    };
    let mut response = document(status, Body::from(json!({ "err": code, "description": said }).to_string()));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    (code, response)
}
