//! One request of a program's: looked up, given a token, and passed on.

#![expect(clippy::result_large_err, reason = "a refusal is an answer, made once for a request")]

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use obol_agent::{Agent, Body, CallOptions, Redirect, ResponseBody};
use obol_probe::hop::strip_answer;
use obol_probe::tunnel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::answer::Answer;
use crate::headers;
use crate::owner::Caller;
use crate::targets::Targets;
use crate::told::{FOREIGN_HOST, failed, refused};

/// The most requests under way at a time, WebSockets among them, unless told otherwise.
const MAX_IN_FLIGHT: usize = 256;
/// The longest body that is read whole, so that a proof can be made over it and it can be sent again, in bytes. A longer one, or one
/// whose length is not said, is passed on as it comes.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// How long such a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an API may be silent, unless told otherwise.
const SILENCE: Duration = Duration::from_secs(300);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Passes requests on, each with a token of its own. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Proxy {
    agent: Agent,
    targets: Arc<Targets>,
    drops_credentials: bool,
    silence: Duration,
    in_flight: Arc<Semaphore>,
}

impl Proxy {
    /// With the tokens of this agent, to these APIs and to whatever else its session names.
    #[must_use]
    pub fn new(agent: Agent, targets: Targets) -> Self {
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self { agent, targets: Arc::new(targets), drops_credentials: false, silence: SILENCE, in_flight }
    }

    /// Takes out what programs log in with, instead of refusing them.
    #[must_use]
    pub fn drop_credentials(mut self) -> Self {
        self.drops_credentials = true;
        self
    }

    /// How long an API may be silent; 300 s.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The most requests under way at a time; 256.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.in_flight = Arc::new(Semaphore::new(requests));
        self
    }

    /// Whether there is room for another request, or why not.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match self.in_flight.available_permits() {
            0 => Err("too many requests are under way".to_owned()),
            _ => Ok(()),
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Response<Answer>, Infallible> {
        Ok(match self.passed(request, caller).await {
            Ok(response) | Err(response) => response,
        })
    }

    async fn passed(
        &self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Response<Answer>, Response<Answer>> {
        check_caller(caller)?;
        let (mut parts, body) = request.into_parts();
        if caller == (Caller::Admitted { by_tcp: true }) {
            check_meant(&parts)?;
        }
        let url = self.url(&parts)?;
        self.check_credentials(&parts)?;
        let place = Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| {
            let why = "too many requests are under way; ask again";
            refused(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", why)
        })?;
        let options = self.options(&parts);
        let is_websocket = tunnel::asks_for_websocket(&parts.headers);
        let inward = parts.extensions.remove::<OnUpgrade>().filter(|_| is_websocket);
        let mut onward = Request::new(());
        *onward.method_mut() = parts.method.clone();
        *onward.uri_mut() = url;
        *onward.headers_mut() = headers::onward(&parts.headers);
        if let Some(inward) = inward {
            let response = self.agent.open_websocket(onward, &options).await;
            return Ok(self.opened(response.map_err(|error| failed(&error))?, inward, place));
        }
        let body = whole_or_passing(body).await?;
        let answered = self.agent.fetch_with(onward.map(|()| body), &options).await;
        Ok(given(answered.map_err(|error| failed(&error))?, place))
    }

    /// Where the request goes.
    fn url(&self, parts: &Parts) -> Result<Uri, Response<Answer>> {
        let wrong = |why: &str| refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why);
        if parts.uri.scheme().is_some() || matches!(parts.method, Method::CONNECT | Method::TRACE) {
            let why = "take this address as the API's base URL, and not as an HTTP proxy (unset HTTP_PROXY)";
            return Err(wrong(why));
        }
        let asked = parts.uri.path_and_query().ok_or_else(|| wrong("the request has no path"))?;
        let url = self
            .targets
            .url(asked)
            .map_err(|why| refused(StatusCode::NOT_FOUND, "UNKNOWN_DESTINATION", why))?;
        obol_agent::read_url(&url).map_err(|error| failed(&error))
    }

    fn check_credentials(&self, parts: &Parts) -> Result<(), Response<Answer>> {
        match headers::credential(&parts.headers).filter(|_| !self.drops_credentials) {
            None => Ok(()),
            Some(name) => {
                let why = format!(
                    "the program logs in by itself ({name}), and the token takes the place of that; take its credential away, or \
                     start the proxy with --drop-credentials"
                );
                Err(refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &why))
            }
        }
    }

    /// Sent again only where nothing was run; the program follows redirects itself, with a token for each.
    fn options(&self, parts: &Parts) -> CallOptions {
        let options = CallOptions::new().once().redirect(Redirect::Manual).timeout(self.silence);
        match parts.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()) {
            Some(key) => options.idempotency_key(key),
            None => options,
        }
    }

    /// The answer to who asked for a WebSocket.
    fn opened(
        &self,
        mut response: Response<ResponseBody>,
        inward: OnUpgrade,
        place: OwnedSemaphorePermit,
    ) -> Response<Answer> {
        let outward = response.extensions_mut().remove::<OnUpgrade>();
        let Some(outward) = outward.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) else {
            return given(response, place);
        };
        let mut answer = Response::new(Answer::text(String::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = core::mem::take(response.headers_mut());
        strip_answer(answer.headers_mut());
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        let silence = self.silence;
        tokio::spawn(async move {
            tunnel::run(inward, outward, silence).await;
            drop(place);
        });
        answer
    }
}

/// Whether the connection is one of those whom the proxy is for.
fn check_caller(caller: Caller) -> Result<(), Response<Answer>> {
    let why = match caller {
        Caller::Admitted { .. } => return Ok(()),
        Caller::Stranger(uid) => format!(
            "this proxy does not serve user {uid}; name the users it serves with --agent-user when you start it"
        ),
        Caller::Unknown => {
            "the user behind this connection could not be determined, so it is not served".to_owned()
        }
    };
    Err(refused(StatusCode::FORBIDDEN, "USER_NOT_SERVED", &why))
}

/// Whether a request on a loopback address was meant for this machine, and by a program: not by a web page that a browser shows.
fn check_meant(parts: &Parts) -> Result<(), Response<Answer>> {
    let values = |name| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let is_meant = obol_probe::host::is_local(values(HOST), values(ORIGIN))
        && !headers::is_of_a_foreign_page(&parts.headers);
    match is_meant {
        true => Ok(()),
        false => {
            let why = "name this machine in Host, and ask from no web page of another origin";
            Err(refused(StatusCode::FORBIDDEN, FOREIGN_HOST, why))
        }
    }
}

async fn whole_or_passing(body: Incoming) -> Result<Body, Response<Answer>> {
    if body.size_hint().exact().is_none_or(|length| length > MAX_WHOLE_BYTES) {
        return Ok(Body::stream(body));
    }
    let wrong = |why| refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why);
    match timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(whole)) => Ok(Body::from(whole.to_bytes())),
        Ok(Err(_)) => Err(wrong("the body broke off; nothing was sent")),
        Err(_) => Err(refused(
            StatusCode::REQUEST_TIMEOUT,
            "TIMEOUT",
            "the body did not come in time; nothing was sent",
        )),
    }
}

fn given(response: Response<ResponseBody>, place: OwnedSemaphorePermit) -> Response<Answer> {
    let (mut parts, body) = response.into_parts();
    strip_answer(&mut parts.headers);
    Response::from_parts(parts, Answer::passing(body, place))
}
