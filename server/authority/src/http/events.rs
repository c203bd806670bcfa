//! Security event tokens that are sent here (RFC 8935): one a request, answered once it is durable.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use obol_probe::rate::{Limiter, Rate, Start};
use serde_json::json;
use tokio::sync::Semaphore;

use super::load::source_of;
use super::now;
use crate::authority::Authority;
use crate::jws::MAX_TOKEN_BYTES;
use crate::ssf::{Events, Refusal, Wrong};

/// Security events from one address: a second, and at once. One issuer sends as many from wherever.
const RATE: (u32, u32) = (100, 200);
/// Security events at work: they wait for the disk together.
const AT_WORK: usize = 64;
/// How long a security event waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a token may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
const CONTENT: &str = "application/secevent+jwt";

/// Who is listened to, and how much at a time.
#[derive(Debug)]
pub(super) struct Desk {
    events: Option<Arc<Events>>,
    sources: Limiter<IpAddr>,
    turns: Semaphore,
    start: Start,
}

impl Desk {
    pub(super) fn new(events: Option<Arc<Events>>) -> Self {
        let rate = Rate::new(RATE.0).map(|rate| rate.with_burst(RATE.1));
        Self { events, sources: Limiter::new(rate), turns: Semaphore::new(AT_WORK), start: Start::now() }
    }

    /// Takes a token from there. The code that is counted, and the answer.
    pub(super) async fn take(
        &self,
        authority: &Arc<Authority>,
        peer: Option<IpAddr>,
        request: Request,
    ) -> (&'static str, Response) {
        match self.taken(authority, peer, request).await {
            Ok(()) => ("ok", answer(StatusCode::ACCEPTED, Body::empty())),
            Err(Refusal::Wrong(wrong, why)) => {
                let said = json!({ "err": wrong.code(), "description": why }).to_string();
                let mut response = answer(StatusCode::BAD_REQUEST, Body::from(said));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response.headers_mut().insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
                (wrong.code(), response)
            }
            Err(Refusal::Later(wait, why)) => {
                tracing::debug!(why, "a security event was put off");
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, Body::empty());
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
                ("LATER", response)
            }
        }
    }

    async fn taken(
        &self,
        authority: &Arc<Authority>,
        peer: Option<IpAddr>,
        request: Request,
    ) -> Result<(), Refusal> {
        let peer = peer.ok_or(Refusal::Later(Duration::from_secs(1), "the sender's address is unknown"))?;
        let admitted = self.sources.take(source_of(peer), self.start.nanoseconds());
        admitted.map_err(|wait| Refusal::Later(wait, "too many security events from one address"))?;
        let events = self.events.as_ref().filter(|events| !events.is_deaf());
        let events = events.ok_or_else(|| Wrong::Issuer.because("this service accepts no events"))?;
        let kind =
            request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(CONTENT) {
            return Err(
                Wrong::Request.because(format!("a security event token has the content type {CONTENT}"))
            );
        }
        // One turn for each: what is at work is bounded before anything is read.
        let turn = tokio::time::timeout(TURN_PATIENCE, self.turns.acquire()).await.ok().and_then(Result::ok);
        let _turn = turn.ok_or(Refusal::Later(Duration::from_secs(1), "too many at work"))?;
        let body = Limited::new(request.into_body(), MAX_TOKEN_BYTES).collect();
        let body = tokio::time::timeout(BODY_PATIENCE, body)
            .await
            .map_err(|_| Wrong::Request.because("the token took too long to arrive"))?;
        let body =
            body.map_err(|_| Wrong::Request.because(format!("a token has at most {MAX_TOKEN_BYTES} bytes")))?;
        events.take(body.to_bytes().to_vec(), authority, now()).await.map(drop)
    }
}

fn answer(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
