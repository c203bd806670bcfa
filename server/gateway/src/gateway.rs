//! One request: looked up, its token spent, and only then sent on with the real credential.

use core::convert::Infallible;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Limited;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use obol_probe::outward::Unanswered;
use obol_probe::stop::Stop;
use obol_probe::tunnel;
use obol_resource::{Gate, ServiceProblem, TbacLayer, ToolCall, malformed, unavailable};
use obol_verify::Denial;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::{Layer as _, Service};

use crate::api::Api;
use crate::blot::{self, Passing};
use crate::credential::{Again, Credential, NOT_LOOKED_FOR, Origin, Ready};
use crate::framing::{REFUSED, WHY, check_http2};
use crate::headers;
use crate::route::{self, ApiRoute, Body as RouteBody, Found};
use crate::target::Target;
use crate::untrailed::Untrailed;
use crate::upstream::Upstream;

/// The most requests under way at a time, unless told otherwise.
const MAX_IN_FLIGHT: usize = 1_024;

/// All APIs, behind one gate. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Gateway {
    gate: Gate,
    apis: Arc<BTreeMap<String, Arc<Behind>>>,
    /// Reads bodies, or passes them on.
    reading: TbacLayer,
    passing: TbacLayer,
    in_flight: Arc<Semaphore>,
    /// Said once the service takes no more connections.
    over: Stop,
}

/// One API that is served, with its secret and the certificate authorities that are trusted for it.
#[derive(Debug)]
pub struct Behind {
    name: String,
    api: Api,
    upstream: Upstream,
    credential: Arc<Credential>,
    again: Option<Again>,
    passed: Vec<http::HeaderName>,
}

/// What is known of a request once it was looked up.
struct Way {
    behind: Arc<Behind>,
    route: usize,
    found: Map<String, Value>,
    target: Target,
    ready: Arc<Ready>,
    is_websocket: bool,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Way {
    fn route(&self) -> Option<&ApiRoute> {
        self.behind.api.routes().get(self.route)
    }

    fn call(&self, body: Option<&Map<String, Value>>, call: ToolCall) -> Result<ToolCall, Denial> {
        let route = self.route().ok_or_else(|| Denial::malformed_request("there is no such route"))?;
        route.call(self.found.clone(), &self.target, body, call)
    }
}

fn way(parts: &Parts) -> Result<&Arc<Way>, Denial> {
    parts.extensions.get().ok_or_else(|| Denial::malformed_request("there is no such route"))
}

fn call_of(parts: &Parts) -> Result<ToolCall, Denial> {
    let way = way(parts)?;
    let tool = way.route().map(ApiRoute::tool).unwrap_or_default();
    Ok(ToolCall::new(tool))
}

impl Gateway {
    /// Of these APIs.
    #[must_use]
    pub fn new(gate: Gate, apis: Vec<Behind>) -> Self {
        let all = apis.into_iter().map(|behind| (behind.name.clone(), Arc::new(behind))).collect();
        let reading = TbacLayer::from_parts(gate.clone(), call_of)
            .json_arguments()
            .rest_from_arguments(|parts, arguments, call| way(parts)?.call(Some(arguments), call));
        let passing = TbacLayer::from_parts(gate.clone(), |parts| way(parts)?.call(None, call_of(parts)?));
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self { gate, apis: Arc::new(all), reading, passing, in_flight, over: Stop::new() }
    }

    /// What decides.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Said once the service takes no more connections.
    pub(crate) fn over(&self) -> &Stop {
        &self.over
    }

    /// Keeps credentials renewed that APIs are asked with. To be run once, for as long as requests are served.
    pub async fn keep_renewed(self) {
        let mut renewals = tokio::task::JoinSet::new();
        for behind in self.apis.values() {
            let behind = Arc::clone(behind);
            renewals.spawn(async move { behind.keep().await });
        }
        while renewals.join_next().await.is_some() {}
    }

    /// Answers one request.
    pub(crate) async fn answer(
        self,
        mut request: Request<Incoming>,
        peer: Option<SocketAddr>,
        is_here: bool,
    ) -> Result<Response<Body>, Infallible> {
        let is_http2 = request.version() == Version::HTTP_2;
        let ends_connection = !is_http2
            && (request.headers().contains_key(TRANSFER_ENCODING)
                || request.headers().contains_key(UPGRADE)
                || request.method().as_str() == REFUSED);
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let mut response = match self.find(&request, is_here) {
            Ok(way) => self.pass(request, way).await,
            Err(response) => *response,
        };
        if ends_connection && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// Looks a request up. Nobody's token is looked at yet, and nothing is spent for what is refused here.
    fn find(&self, request: &Request<Incoming>, is_here: bool) -> Result<Way, Box<Response<Body>>> {
        let headers = request.headers();
        let wrong = |why: &str| Box::new(malformed(StatusCode::BAD_REQUEST, why));
        let told = |problem: ServiceProblem, why: &str| Box::new(problem.answer(why));
        if request.method().as_str() == REFUSED {
            let why =
                headers.get(WHY).and_then(|why| why.to_str().ok()).unwrap_or("it can be read in two ways");
            return Err(wrong(why));
        }
        if request.version() == Version::HTTP_2 {
            check_http2(request).map_err(wrong)?;
        }
        let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        if is_here && !obol_probe::host::is_local(values(HOST), values(ORIGIN)) {
            return Err(told(
                ServiceProblem::ForeignHost,
                "name this machine in Host; a proxy in front must set it",
            ));
        }
        let target = Target::read(request.uri()).map_err(wrong)?;
        let known = target.behind_first().and_then(|(name, rest)| Some((self.apis.get(&name)?, rest)));
        let (behind, target) = known.ok_or_else(|| {
            told(ServiceProblem::NotFound, "paths begin with the name of an API that is served")
        })?;
        let (route, found) = match route::find(behind.api.routes(), request.method(), &target) {
            Found::Route(route, found) => (route, found),
            Found::OtherMethod => {
                return Err(told(
                    ServiceProblem::MethodNotAllowed,
                    "there are routes for this path, but none for this method",
                ));
            }
            Found::Nothing => return Err(told(ServiceProblem::NotFound, "no route of this API matches")),
        };
        let rule = behind.api.routes().get(route).ok_or_else(|| wrong("no route of this API matches"))?;
        if !rule.allows_query(&target) {
            return Err(wrong("the query has a parameter that the route does not name"));
        }
        check_length(rule, &behind.api, request).map_err(|(status, why)| Box::new(malformed(status, why)))?;
        let is_websocket = rule.opens_websocket() && tunnel::asks_for_websocket(headers);
        let place = Arc::clone(&self.in_flight).try_acquire_owned();
        let place = place.map_err(|_| told(ServiceProblem::Overloaded, "too many requests are under way"))?;
        let Some(ready) = behind.credential.ready() else {
            let title = "The API's credential is not there";
            return Err(Box::new(unavailable(title, "the gateway does not have it yet; no token was spent")));
        };
        let (behind, place) = (Arc::clone(behind), Mutex::new(Some(place)));
        Ok(Way { behind, route, found, target, ready, is_websocket, place })
    }

    async fn pass(&self, request: Request<Incoming>, way: Way) -> Response<Body> {
        let layer = match way.route().map(ApiRoute::body) {
            // A body that is not there has no arguments, and so they are known.
            Some(RouteBody::Json | RouteBody::None) => &self.reading,
            Some(RouteBody::Stream) | None => &self.passing,
        };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::new(way));
        let Ok(response) = layer.layer(Forward).call(request).await;
        response
    }
}

/// Whether the body can be what the route says, as far as its head tells.
fn check_length(
    rule: &ApiRoute,
    api: &Api,
    request: &Request<Incoming>,
) -> Result<(), (StatusCode, &'static str)> {
    match rule.body() {
        RouteBody::None if !request.body().is_end_stream() => {
            Err((StatusCode::BAD_REQUEST, "the route takes no body"))
        }
        RouteBody::Stream if request.body().size_hint().lower() > api.max_body_bytes() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than this API allows"))
        }
        _ => Ok(()),
    }
}

impl Behind {
    /// Of this name. Reads the files of certificate authorities, the system's too if something is reached over TLS.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that do not repeat the secret; also that the system trusts nobody whom it could be reached by.
    pub fn new(name: &str, api: Api, secret: &[u8]) -> Result<Self, String> {
        api.check()?;
        let ca_file = api.ca_file().map(std::path::PathBuf::as_path);
        let upstream = Upstream::new(&api.upstream()?, ca_file, api.is_over_tls()?)?;
        let credential = Credential::new(api.placement()?, secret).map_err(|error| error.to_string())?;
        let credential = Arc::new(credential);
        if !credential.is_looked_for() {
            tracing::warn!(api = name, "{NOT_LOOKED_FOR}");
        }
        let passed = api.passed_headers()?;
        Ok(Self { name: name.to_owned(), api, upstream, credential, again: None, passed })
    }

    /// With a secret that is got again where it comes from, if the API's file says when.
    #[must_use]
    pub fn renewed_from(mut self, origin: Arc<dyn Origin>) -> Self {
        self.again = self.api.renew().map(|every| Again::new(origin, every));
        self
    }

    /// Keeps the credential as it is to be, for ever.
    async fn keep(&self) {
        let token = async {
            if let Some(renewal) = self.credential.renewal() {
                renewal.keep(&self.name, &self.credential, &self.upstream).await;
            }
        };
        let secret = async {
            if let Some(again) = &self.again {
                again.keep(&self.name, &self.credential).await;
            }
        };
        tokio::join!(token, secret);
    }
}

/// What comes behind the gate: the token is spent, and whatever happens the request is sent once.
#[derive(Clone, Copy, Debug)]
struct Forward;

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let Some(way) = parts.extensions.remove::<Arc<Way>>() else {
                return Ok(ServiceProblem::NotFound.answer("there is no such route"));
            };
            let started = Instant::now();
            let response = way.forward(parts, body).await;
            let (api, tool) = (way.behind.name.as_str(), way.route().map(ApiRoute::tool).unwrap_or_default());
            let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(api, tool, status = response.status().as_u16(), millis, "forwarded");
            Ok(response)
        })
    }
}

impl Way {
    async fn forward(&self, mut parts: Parts, body: Body) -> Response<Body> {
        let inward = parts.extensions.remove::<OnUpgrade>().filter(|_| self.is_websocket);
        let api = &self.behind.api;
        let request = self.request(&parts, body);
        let Ok(request) = request else {
            return ServiceProblem::UpstreamFailed.answer("the request cannot be passed on, so it was not");
        };
        let sent = timeout(api.timeout(), self.behind.upstream.send(request, self.is_websocket)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(Unanswered::NotSent(why))) => {
                tracing::warn!(api = self.behind.name, why, "the API cannot be reached");
                let title = "The API behind the gateway cannot be reached";
                return unavailable(title, "nothing was sent to it; the token is spent");
            }
            Ok(Err(Unanswered::Sent(why))) => {
                tracing::warn!(api = self.behind.name, why, "the API did not answer");
                return ServiceProblem::UpstreamFailed.answer("it may have carried out the call");
            }
            Err(_) => {
                return ServiceProblem::UpstreamTimeout.answer("it may have carried out the call");
            }
        };
        self.answer(response, inward)
    }

    fn request(&self, parts: &Parts, body: Body) -> Result<Request<Body>, http::Error> {
        let api = &self.behind.api;
        let body = match self.route().map(ApiRoute::body) {
            Some(RouteBody::Json) => body,
            Some(RouteBody::Stream) => {
                let most = usize::try_from(api.max_body_bytes()).unwrap_or(usize::MAX);
                Body::new(Untrailed(Limited::new(body, most)))
            }
            Some(RouteBody::None) | None => Body::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = self.behind.upstream.address(&self.target.sent(self.ready.parameter()))?;
        *request.headers_mut() = headers::inward(&parts.headers, &self.behind.passed, self.is_websocket);
        self.ready.put_on(request.headers_mut());
        Ok(request)
    }

    fn answer(&self, response: Response<Incoming>, inward: Option<OnUpgrade>) -> Response<Body> {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            tracing::error!(api = self.behind.name, "the API refuses the gateway's credential");
            self.behind.credential.was_refused(&self.ready);
            return ServiceProblem::CredentialRefused.answer("tell the gateway's operator");
        }
        if status.as_u16() >= 600 || !headers::is_framed(response.headers()) {
            return ServiceProblem::UpstreamFailed.answer("its answer is not one of HTTP");
        }
        let patience = self.behind.api.timeout();
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = status;
        *answer.headers_mut() = response.headers().clone();
        if response.headers().contains_key(TRANSFER_ENCODING) {
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        headers::outward(status, answer.headers_mut());
        blot::headers(answer.headers_mut(), &self.behind.credential.looked_for());
        let place = self.place.lock().take();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let credential = Arc::clone(&self.behind.credential);
            let body = Passing::new(response.into_body(), credential, patience, place);
            *answer.body_mut() = Body::new(body);
            return answer;
        }
        let Some(inward) = inward else {
            return ServiceProblem::UpstreamFailed.answer("it changed the protocol without being asked");
        };
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        tokio::spawn(async move {
            tunnel::run(inward, hyper::upgrade::on(response), patience).await;
            drop(place);
        });
        answer
    }
}
