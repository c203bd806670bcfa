//! The guard in front of a server over HTTP.
//!
//! | request | what becomes of it |
//! |---|---|
//! | `POST` | its message is shown to the [`Front`] of its session, or of itself alone where there is none, and goes on, is answered, or dropped |
//! | `GET`, `DELETE` of a known session | goes on |
//! | another path, method, kind of content; a foreign `Host` or `Origin` | refused |
//!
//! A session is known from the answer to its `initialize` on. Who names another is told what MCP says: 404, begin anew. So a guard that
//! was started again, or has forgotten a session, never passes on what it would have had to seal.

mod serve;
mod sessions;

use core::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use obol_mcp::front::{FromClient, FromServer, Front};
use obol_mcp::routing::Outline;
use obol_mcp::sse::Event;
use obol_probe::outward::Unanswered;
use obol_probe::stop::Stop;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::serve::{Handle, Service};
use self::sessions::{Session, Sessions};
use crate::body::{self, Body, Relayed};
use crate::headers::{self, MAX_SESSION_BYTES, SESSION};
use crate::remote::Remote;
use crate::{MAX_CLIENT_BYTES, MAX_SERVER_BYTES};

/// The most requests and streams under way at a time.
const MAX_UNDER_WAY: usize = 1_024;
/// The most that clients' messages may take together, and what that is counted in, in bytes.
const ROOM_BYTES: usize = 256 << 20;
const ROOM_UNIT_BYTES: usize = 64 << 10;

/// Codes of JSON-RPC that are answered with another status than 200, from MCP 2026-07-28 on.
const BAD_REQUESTS: [i32; 3] = [-32_700, -32_600, -32_602];
const METHOD_NOT_FOUND: i32 = -32_601;
/// Headers that do not say what the message says.
const HEADER_MISMATCH: i32 = -32_020;
/// Whatever is wrong with the way a message came.
const TRANSPORT_ERROR: i32 = -32_000;

/// Stands in front of one server. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    front: Front,
    remote: Remote,
    sessions: Sessions,
    under_way: Arc<Semaphore>,
    room: Semaphore,
}

/// A request that has a place, and whom it is of.
struct Exchange {
    session: Arc<Session>,
    /// The name of the session, where it is known.
    name: Option<String>,
    place: OwnedSemaphorePermit,
    stop: Stop,
}

type Refused = Box<Response<Body>>;

impl Proxy {
    /// Shows what clients say to `front`, and what may go on to `remote`.
    #[must_use]
    pub fn new(front: Front, remote: Remote) -> Self {
        Self(Arc::new(Inner {
            front,
            remote,
            sessions: Sessions::default(),
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            room: Semaphore::new(ROOM_BYTES / ROOM_UNIT_BYTES),
        }))
    }

    pub(crate) async fn answer(
        self,
        request: Request<Incoming>,
        is_here: bool,
        stop: Stop,
    ) -> Result<Response<Body>, Infallible> {
        let answered = match self.0.look_at(&request, is_here) {
            Ok(place) => self.0.pass(request, place, stop).await,
            Err(refused) => Err(refused),
        };
        Ok(answered.unwrap_or_else(|refused| *refused))
    }
}

impl Inner {
    /// What is wrong with a request whatever its message is.
    fn look_at(&self, request: &Request<Incoming>, is_here: bool) -> Result<OwnedSemaphorePermit, Refused> {
        let headers = request.headers();
        if !is_meant(headers, is_here) {
            return Err(told(
                StatusCode::FORBIDDEN,
                "Host and Origin have to name this machine, so that no web page speaks to it; a proxy in front must set Host",
            ));
        }
        if request.uri().path() != self.remote.path() || request.uri().query().is_some() {
            let why = format!("The endpoint is {}, without a query", self.remote.path());
            return Err(told(StatusCode::NOT_FOUND, &why));
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
            let mut refused = told(StatusCode::METHOD_NOT_ALLOWED, "The methods are POST, GET and DELETE");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            return Err(refused);
        }
        let place = Arc::clone(&self.under_way).try_acquire_owned();
        place.map_err(|_| {
            told(StatusCode::SERVICE_UNAVAILABLE, "Too many requests are under way; try again later")
        })
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        place: OwnedSemaphorePermit,
        stop: Stop,
    ) -> Result<Response<Body>, Refused> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::POST {
            return self.message(parts.headers, body, place, stop).await;
        }
        let known = self.known(&parts.headers)?;
        let is_end = parts.method == Method::DELETE;
        let (name, session) = match known {
            Some((name, session)) => (name, session),
            None if is_end => return Err(told(StatusCode::BAD_REQUEST, "No session is named")),
            // What such a stream would bring nobody here knows to be of whom.
            None => return Err(told(StatusCode::METHOD_NOT_ALLOWED, "There are streams of sessions alone")),
        };
        if !body.is_end_stream() {
            return Err(told(StatusCode::BAD_REQUEST, "A request of this method has no body"));
        }
        let stream = if is_end { None } else { Some(session.stream()) };
        if matches!(stream, Some(None)) {
            return Err(told(StatusCode::CONFLICT, "The session listens to too many streams already"));
        }
        let sent = self.send(parts.method, &parts.headers, Bytes::new()).await?;
        if is_end && (sent.status().is_success() || sent.status() == StatusCode::NOT_FOUND) {
            self.sessions.remove(&name);
        }
        let exchange = Exchange { session, name: Some(name), place, stop };
        self.relay(sent, exchange, stream.flatten(), None).await
    }

    /// One message of a client.
    async fn message(
        &self,
        mut headers: HeaderMap,
        body: Incoming,
        place: OwnedSemaphorePermit,
        stop: Stop,
    ) -> Result<Response<Body>, Refused> {
        if headers::content_type(&headers) != "application/json" || !headers::is_unpacked(&headers) {
            let why = "A message is application/json, and not packed";
            return Err(told(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let _room = self.room_for(&body).await?;
        let message = body::read(body, MAX_CLIENT_BYTES).await.map_err(|why| {
            told(StatusCode::PAYLOAD_TOO_LARGE, &format!("The message cannot be read: {why}"))
        })?;
        let outline = str::from_utf8(&message).ok().and_then(Outline::of).unwrap_or_default();
        headers::check(&headers, &outline).map_err(|why| {
            let id = outline.request.as_deref();
            answered(
                StatusCode::BAD_REQUEST,
                error(id, HEADER_MISMATCH, &format!("The request is refused: {why}")),
            )
        })?;
        let begins = outline.method.as_deref() == Some("initialize");
        let known = if outline.is_stateless() {
            headers.remove(SESSION);
            None
        } else {
            self.known(&headers)?
        };
        let (name, session) = match known {
            Some((name, session)) => (Some(name), session),
            None => (None, Session::new(self.front.for_another())),
        };
        let line = match session.front.from_client(&message).await {
            FromClient::Send(line) => line,
            FromClient::Answer(line) => return Ok(answer(line, outline.is_stateless())),
            FromClient::Drop => return Ok(plain(StatusCode::ACCEPTED, Bytes::new())),
        };
        drop(message);
        let sent = match self.send(Method::POST, &headers, Bytes::from(line.clone())).await {
            Ok(sent) => sent,
            Err(refused) => {
                session.front.give_up(&line);
                return Err(refused);
            }
        };
        let exchange = Exchange { session, name, place, stop };
        let exchange = if begins { self.begin(&sent, exchange)? } else { exchange };
        self.relay(sent, exchange, None, Some(line)).await
    }

    /// Room for a message in the memory. One whose length is not told may be as long as one can be.
    async fn room_for(&self, body: &Incoming) -> Result<tokio::sync::SemaphorePermit<'_>, Refused> {
        let most = u64::try_from(MAX_CLIENT_BYTES).unwrap_or(u64::MAX);
        if body.size_hint().lower() > most {
            let why = format!("A message has at most {MAX_CLIENT_BYTES} bytes");
            return Err(told(StatusCode::PAYLOAD_TOO_LARGE, &why));
        }
        let bytes = body.size_hint().upper().unwrap_or(most).min(most);
        let units =
            u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(ROOM_UNIT_BYTES.try_into().unwrap_or(1));
        let room = self.room.acquire_many(units).await;
        room.map_err(|_| told(StatusCode::SERVICE_UNAVAILABLE, "The guard is ending"))
    }

    /// The session that a request names.
    fn known(&self, headers: &HeaderMap) -> Result<Option<(String, Arc<Session>)>, Refused> {
        let name =
            headers::once(headers, SESSION.as_str()).map_err(|why| told(StatusCode::BAD_REQUEST, why))?;
        let Some(name) = name else { return Ok(None) };
        match self.sessions.find(name, Instant::now()) {
            Some(session) => Ok(Some((name.to_owned(), session))),
            None => Err(told(StatusCode::NOT_FOUND, "No such session, or it has ended; start a new one")),
        }
    }

    /// Notes the session that an answer begins, if it does.
    fn begin(&self, sent: &Response<Incoming>, exchange: Exchange) -> Result<Exchange, Refused> {
        let failed = |why| told(StatusCode::BAD_GATEWAY, why);
        let name = headers::once(sent.headers(), SESSION.as_str()).map_err(failed)?;
        let Some(name) = name.filter(|_| sent.status().is_success()) else { return Ok(exchange) };
        if name.len() > MAX_SESSION_BYTES {
            return Err(failed("The name of the server's session is too long"));
        }
        if exchange.name.is_none()
            && !self.sessions.insert(name, Arc::clone(&exchange.session), Instant::now())
        {
            return Err(told(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many sessions are in use; try again later",
            ));
        }
        Ok(Exchange { name: Some(name.to_owned()), ..exchange })
    }

    async fn send(
        &self,
        method: Method,
        given: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Refused> {
        let mut headers = headers::passed(given);
        headers::ask_unpacked(&mut headers);
        self.remote.send(method, headers, body).await.map_err(|error| {
            tracing::warn!(%error, "a request has no answer");
            told(
                match error {
                    Unanswered::NotSent(_) => StatusCode::BAD_GATEWAY,
                    Unanswered::Sent(_) => StatusCode::GATEWAY_TIMEOUT,
                },
                "The server behind the guard did not answer; the request is not sent again",
            )
        })
    }

    /// An answer of the server, on its way to the client.
    async fn relay(
        &self,
        sent: Response<Incoming>,
        exchange: Exchange,
        stream: Option<OwnedSemaphorePermit>,
        line: Option<String>,
    ) -> Result<Response<Body>, Refused> {
        let (parts, from) = sent.into_parts();
        let failed = |why: &str| told(StatusCode::BAD_GATEWAY, why);
        if !headers::is_unpacked(&parts.headers) {
            return Err(failed("The server packed its answer without being asked to"));
        }
        let mut response = Response::new(body::whole(Bytes::new()));
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers::passed(&parts.headers);
        if headers::content_type(&parts.headers) == "text/event-stream" {
            *response.body_mut() = events(from, exchange, stream);
            return Ok(response);
        }
        let read = body::read(from, MAX_SERVER_BYTES).await;
        let read = read.map_err(|why| failed(&format!("The server's answer cannot be read: {why}")))?;
        let front = &exchange.session.front;
        let seen = front.from_server(&read);
        if let Some(line) = line {
            front.give_up(&line);
        }
        *response.body_mut() = match seen {
            FromServer::Pass => body::whole(read),
            FromServer::Tell(told) => body::whole(told),
            FromServer::Drop => {
                tracing::error!(
                    "an answer of the server is dropped that cannot be read: a result waits to be sealed"
                );
                return Err(failed("The server's answer cannot be read, and a result waits to be sealed"));
            }
        };
        Ok(response)
    }
}

/// A stream of the server, event by event. A stream that only listens ends when the guard does; an answer may be finished.
fn events(from: Incoming, exchange: Exchange, stream: Option<OwnedSemaphorePermit>) -> Body {
    let Exchange { session, place, stop, .. } = exchange;
    let only_listens = stream.is_some();
    let over = async move {
        if only_listens {
            stop.said().await;
        } else {
            core::future::pending::<()>().await;
        }
    };
    let places = (place, stream);
    let seen = move |event: Event| {
        let _held_as_long_as_this = &places;
        match event.data().map(|data| session.front.from_server(&data)) {
            None | Some(FromServer::Pass) => Some(Bytes::copy_from_slice(event.raw())),
            Some(FromServer::Tell(told)) => Some(Bytes::from(event.with_data(&told))),
            Some(FromServer::Drop) => {
                tracing::error!(
                    "an event of the server is dropped that cannot be read: a result waits to be sealed"
                );
                None
            }
        }
    };
    Relayed::body(from, seen, over)
}

/// Whether a request was meant for this address: on this machine its `Host` and `Origin` are this machine's; elsewhere an `Origin` is
/// that of the `Host`, since no web page of another has any business here.
fn is_meant(headers: &HeaderMap, is_here: bool) -> bool {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    if is_here {
        return obol_probe::host::is_local(values(HOST), values(ORIGIN));
    }
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    values(ORIGIN).all(|origin| {
        let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
        authority.is_some() && authority == host
    })
}

/// An answer that the server did not give. From MCP 2026-07-28 on its status says what is wrong as well.
fn answer(line: String, stateless: bool) -> Response<Body> {
    // One without a number can only be an error.
    let answer = Outline::of(&line);
    let status = match &answer {
        None => StatusCode::BAD_REQUEST,
        Some(Outline { error: Some(METHOD_NOT_FOUND), .. }) if stateless => StatusCode::NOT_FOUND,
        Some(Outline { error: Some(code), .. }) if stateless && BAD_REQUESTS.contains(code) => {
            StatusCode::BAD_REQUEST
        }
        Some(_) => StatusCode::OK,
    };
    json(status, line)
}

fn told(status: StatusCode, why: &str) -> Refused {
    answered(status, error(None, TRANSPORT_ERROR, why))
}

fn answered(status: StatusCode, line: String) -> Refused {
    Box::new(json(status, line))
}

fn error(id: Option<&str>, code: i32, message: &str) -> String {
    let (id, message) = (id.unwrap_or("null"), serde_json::Value::from(message));
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}")
}

fn json(status: StatusCode, line: String) -> Response<Body> {
    let mut response = plain(status, line.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(body::whole(bytes));
    *response.status_mut() = status;
    response
}
