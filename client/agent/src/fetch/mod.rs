//! One request, sent with a token: drawn for it, sent once, and drawn anew for each time it is sent again.

mod refusal;
mod tries;

use core::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use obol_ipc::approvals::WantedCall;
use obol_ipc::message::DequeueTokenResult;
use obol_ipc::names::Label;
use tokio::time::{Instant, timeout, timeout_at};

use self::refusal::Looked;
use self::tries::{Facts, Happened, Next, Tries};
use crate::agent::{Agent, Draw, Inner};
use crate::approval::Approval;
use crate::arguments::{self, Channel, SEALED};
use crate::asking::only_call;
use crate::authenticator::sleep_within;
use crate::body::{Body, ResponseBody};
use crate::destination::{Chosen, Url, Wanted};
use crate::error::{Code, Error};
use crate::options::{CallOptions, Redirect};
use crate::token::{Token, sensitive};
use crate::transport::Unanswered;

const PROOF: HeaderName = HeaderName::from_static("tbac-pop");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What a caller does not say: it follows from the token, the options, the URL, the body or the connection. So do those that
/// begin with `proxy-`.
const NOT_THE_CALLERS: [&str; 12] = [
    "authorization",
    "tbac-pop",
    "host",
    "connection",
    "content-length",
    "expect",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Why what is signed here is not sealed.
const UNSEEN: &str = "the body: the tool takes sealed arguments; use `fetch`, which sees the body";
const NOT_SEALED: &str = "a WebSocket is not sealed, and the tool takes sealed arguments";
/// The most redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// A session younger than this may not have reached its resource servers, in seconds.
const YOUNG_SECS: u64 = 2;
/// What is read, and how long, of an answer that is not needed, so that its connection can be used again.
const DRAIN: (usize, Duration) = (64 << 10, Duration::from_millis(200));

impl Agent {
    /// Sends one request with a token for it, by the rules of `docs/agent.md`, and gives the answer. Options may be among the
    /// request's extensions.
    ///
    /// # Errors
    ///
    /// [`Error`], whose code says what happened. [`Code::OutcomeUnknown`] is the one that has to be looked into.
    pub async fn fetch<B: Into<Body>>(&self, request: Request<B>) -> Result<Response<ResponseBody>, Error> {
        let options = request.extensions().get::<CallOptions>().cloned().unwrap_or_default();
        self.fetch_with(request, &options).await
    }

    /// The same, with options.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch).
    pub async fn fetch_with<B: Into<Body>>(
        &self,
        request: Request<B>,
        options: &CallOptions,
    ) -> Result<Response<ResponseBody>, Error> {
        let (parts, body) = request.into_parts();
        let call = Call::new(&self.0, parts.method, parts.headers, body.into(), options)?;
        call.run(&parts.uri.to_string()).await
    }

    /// Asks for a WebSocket, with a token, once. Where the server agrees, the answer is 101, and what both say is in its
    /// extensions, as `hyper::upgrade::on` takes it out.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch). Tools whose tokens ask for sealed bodies are [`Code::InvalidArgument`], before one is drawn.
    pub async fn open_websocket(
        &self,
        request: Request<()>,
        options: &CallOptions,
    ) -> Result<Response<ResponseBody>, Error> {
        let (parts, ()) = request.into_parts();
        let options = options.clone().once().redirect(Redirect::Manual);
        let mut call = Call::new(&self.0, parts.method, parts.headers, Body::default(), &options)?;
        call.opens = true;
        call.run(&parts.uri.to_string()).await
    }

    /// Draws a token for one request and writes it into its headers, for a client of one's own; the URL becomes the one that it
    /// has to be sent to. Such a client must not follow redirects, and must not send the request twice. Options may be among
    /// the request's extensions.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch). Tools whose tokens ask for a proof or for sealed bodies are [`Code::InvalidArgument`], before one is
    /// drawn: the body is not seen here.
    pub async fn sign<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let options = request.extensions().get::<CallOptions>().cloned().unwrap_or_default();
        let deadline = self.0.deadline(options.timeout);
        check_headers(request.headers())?;
        let (key, tool, audience) = (options.key()?, options.tool_name()?, options.audience_name()?);
        let wanted = Wanted { tool: tool.as_ref(), audience: audience.as_ref() };
        let url = Url::read(&request.uri().to_string())?;
        let chosen = self.0.choose(&url, request.method(), wanted, deadline).await?;
        let approval = options.approval_label()?;
        let (tool, audience, cannot_seal) = (chosen.tool, Some(chosen.audience), Some(UNSEEN));
        let draw = Draw { tool, audience, arguments: None, approval, cannot_seal };
        let token = Token(self.0.draw(&draw, deadline).await?);
        *request.uri_mut() = chosen.send.uri()?;
        request.headers_mut().insert(AUTHORIZATION, token.authorization()?);
        if let Some(key) = key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, header(key)?);
        }
        Ok(())
    }
}

impl Inner {
    /// Whether the session is so young that a resource server may not have heard of it.
    async fn is_young(&self, deadline: Instant) -> bool {
        let Ok(Ok(session)) = timeout_at(deadline, self.session_info()).await else { return false };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        now.abs_diff(session.established_at.unix_seconds()) < YOUNG_SECS
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), Error> {
    let is_not_theirs =
        |name: &&HeaderName| NOT_THE_CALLERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-");
    match headers.keys().find(is_not_theirs) {
        Some(name) => {
            let message = format!("headers: {name} is set by fetch itself; leave it out");
            Err(Error::new(Code::InvalidArgument, message))
        }
        None => Ok(()),
    }
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(text).map_err(|_| Error::new(Code::InvalidArgument, "it cannot be a header"))
}

/// One call: a request, and everything that is sent for it.
struct Call<'a> {
    agent: &'a Inner,
    options: &'a CallOptions,
    method: Method,
    headers: HeaderMap,
    /// Taken where it is a stream and was sent.
    body: Option<Body>,
    facts: Facts,
    tries: Tries,
    /// Something was sent of which it is not known whether it was carried out.
    unresolved: bool,
    /// A token was drawn: no human is asked after that.
    drew: bool,
    /// It asks for a WebSocket.
    opens: bool,
    deadline: Instant,
}

/// What came of sending it once.
enum Sent {
    Answered(Box<Looked>, Option<Channel>),
    Unanswered(Unanswered),
}

impl<'a> Call<'a> {
    fn new(
        agent: &'a Inner,
        method: Method,
        mut headers: HeaderMap,
        body: Body,
        options: &'a CallOptions,
    ) -> Result<Self, Error> {
        check_headers(&headers)?;
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(Error::new(Code::InvalidArgument, "method: GET, POST and the like"));
        }
        let key = options.key()?;
        if let Some(key) = key {
            headers.insert(IDEMPOTENCY_KEY, header(key)?);
        }
        let facts = Facts {
            repeatable: body.bytes().is_some(),
            safe: matches!(method, Method::GET | Method::HEAD | Method::OPTIONS),
            keyed: key.is_some(),
            has_authenticator: agent.has_authenticator(),
            once: options.once,
        };
        let deadline = agent.deadline(options.timeout);
        let (body, tries) = (Some(body), Tries::default());
        let (unresolved, drew, opens) = (false, false, false);
        Ok(Self { agent, options, method, headers, body, facts, tries, unresolved, drew, opens, deadline })
    }

    fn bytes(&self) -> Option<&Bytes> {
        self.body.as_ref().and_then(Body::bytes)
    }

    async fn run(mut self, url: &str) -> Result<Response<ResponseBody>, Error> {
        let (tool, audience) = (self.options.tool_name()?, self.options.audience_name()?);
        let wanted = Wanted { tool: tool.as_ref(), audience: audience.as_ref() };
        let mut url = Url::read(url)?;
        let mut chosen = self.agent.choose(&url, &self.method, wanted, self.deadline).await?;
        let mut followed = 0;
        loop {
            let response = self.settled(&chosen).await?;
            let Some(location) = self.leads_on(&response)? else { return Ok(response) };
            if followed == MAX_REDIRECTS {
                return Err(refused());
            }
            followed += 1;
            let location = location.and_then(|location| url.resolved(&location)).ok_or_else(refused)?;
            url = Url::read(&location).map_err(|_| refused())?;
            // The same audience and tool, or nowhere.
            let wanted = Wanted { tool: Some(&chosen.tool), audience: Some(&chosen.audience) };
            chosen = match self.agent.choose(&url, &self.method, wanted, self.deadline).await {
                Err(error) if error.code() == Code::UnknownDestination => return Err(refused()),
                chosen => chosen?,
            };
        }
    }

    /// Sends it until there is an answer to give. What happened to an earlier sending is not forgotten over a later one.
    async fn settled(&mut self, chosen: &Chosen) -> Result<Response<ResponseBody>, Error> {
        let outcome = self.exchange(chosen).await;
        if !self.unresolved || self.facts.safe {
            return outcome;
        }
        let why = match &outcome {
            Err(error) if error.code() != Code::OutcomeUnknown => error.to_string(),
            // It did not get so far this time, which says nothing of the time before.
            Ok(response) if matches!(response.status().as_u16(), 401 | 403 | 429 | 503) => {
                response.status().to_string()
            }
            _ => return outcome,
        };
        Err(self.unknown(&format!("and when it was sent again: {why}")))
    }

    async fn exchange(&mut self, chosen: &Chosen) -> Result<Response<ResponseBody>, Error> {
        loop {
            let sent = self.send(chosen).await?;
            let next = self.decide(&sent, chosen).await?;
            match next {
                Next::Stop => match self.give(sent).await {
                    Ok(given) => return given,
                    // A sealed answer that was cut is none.
                    Err(why) => match self.tries.next(&Happened::Lost, self.facts) {
                        Next::Again(pause) if sleep_within(pause, self.deadline).await => {
                            self.unresolved = true;
                        }
                        _ => return Err(self.unknown(&why)),
                    },
                },
                Next::Again(pause) if Instant::now() + pause >= self.deadline => {
                    return self.give(sent).await.unwrap_or_else(|why| Err(self.unknown(&why)));
                }
                Next::Again(pause) => {
                    drain(sent).await;
                    sleep_within(pause, self.deadline).await;
                }
                Next::AgainInSession => {
                    self.agent.session(Instant::now(), self.deadline).await?;
                    drain(sent).await;
                }
            }
        }
    }

    /// What is next, by the table.
    async fn decide(&mut self, sent: &Sent, chosen: &Chosen) -> Result<Next, Error> {
        let happened = match sent {
            Sent::Answered(looked, _) => match looked.happened() {
                Happened::Refused("TOKEN_REPLAYED") => {
                    self.agent.tell_stolen(chosen.tool.clone(), chosen.audience.clone()).await;
                    return Err(stolen());
                }
                Happened::Refused("SESSION_NOT_FOUND") if self.agent.is_young(self.deadline).await => {
                    Happened::TooEarly
                }
                happened => happened,
            },
            Sent::Unanswered(Unanswered::NotSent(_)) => Happened::NotSent,
            Sent::Unanswered(Unanswered::Sent(_)) => Happened::Lost,
            Sent::Unanswered(Unanswered::TimeOver | Unanswered::TimeOverBefore) => return Ok(Next::Stop),
        };
        let may_have_run = matches!(happened, Happened::Lost | Happened::Failed | Happened::Running(_));
        let next = self.tries.next(&happened, self.facts);
        self.unresolved |= may_have_run && next != Next::Stop;
        Ok(next)
    }

    /// Draws a token; of a call that takes a human's yes, once one was said.
    async fn draw(&mut self, chosen: &Chosen) -> Result<DequeueTokenResult, Error> {
        let mut draw = Draw {
            tool: chosen.tool.clone(),
            audience: Some(chosen.audience.clone()),
            arguments: self.bytes().and_then(arguments::hash),
            approval: self.options.approval_label()?,
            cannot_seal: self.opens.then_some(NOT_SEALED),
        };
        if draw.approval.is_none() {
            let asks = self.options.approval.as_ref().filter(|_| !self.drew);
            if !asks.is_some_and(|approval| approval.always) {
                match self.agent.draw(&draw, self.deadline).await {
                    Err(error) if error.code() == Code::ApprovalRequired => {}
                    outcome => {
                        self.drew = true;
                        return outcome;
                    }
                }
            }
            let asks = asks.filter(|_| self.agent.has_authenticator());
            let approval = asks.ok_or_else(|| required(chosen))?;
            // Nobody is asked for what could not be sent.
            self.agent.refuse_sealed(&draw, self.deadline).await?;
            draw.approval = Some(self.ask(chosen, approval).await?);
        }
        // There is one token, so it is sent once.
        (self.drew, self.facts.repeatable) = (true, false);
        self.agent.draw(&draw, self.deadline).await.map_err(|error| match error.code() {
            Code::OutcomeUnknown => used_up(),
            _ => error,
        })
    }

    /// Asks a human for a yes to this call, and waits. The call's own time begins anew.
    async fn ask(&mut self, chosen: &Chosen, approval: &Approval) -> Result<Label, Error> {
        let arguments = self.bytes().filter(|_| approval.shows_arguments).and_then(arguments::shown);
        let call = WantedCall {
            tool: chosen.tool.clone(),
            audience: Some(chosen.audience.clone()),
            actions: Vec::new(),
            resource: None,
            constraints: None,
            arguments,
            count: None,
        };
        let approved = self.agent.asked(approval.request(call), approval.said(), self.deadline).await?;
        self.deadline = self.agent.deadline(self.options.timeout);
        only_call(&approved)
    }

    /// Draws a token and sends the request, once.
    async fn send(&mut self, chosen: &Chosen) -> Result<Sent, Error> {
        self.agent.transport.check(&chosen.send.uri()?)?;
        let drawn = self.draw(chosen).await?;
        let channel = drawn.channel.as_ref().map(Channel::of).transpose()?;
        let request = self.request(chosen, &drawn, channel.as_ref())?;
        drop(drawn);
        Ok(match self.agent.transport.send(request, self.deadline).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !self.opens => {
                Sent::Unanswered(Unanswered::Sent("the server changed the protocol".to_owned()))
            }
            Ok(response) => {
                let patience = self.options.timeout.unwrap_or(self.agent.timeout);
                Sent::Answered(Box::new(Looked::at(response, patience).await), channel)
            }
            Err(unanswered) => Sent::Unanswered(unanswered),
        })
    }

    fn request(
        &mut self,
        chosen: &Chosen,
        drawn: &DequeueTokenResult,
        channel: Option<&Channel>,
    ) -> Result<Request<Body>, Error> {
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, sensitive(&format!("TBAC {}", drawn.token.expose()))?);
        if let Some(proof) = &drawn.pop {
            headers.insert(PROOF, header(&proof.sig.to_string())?);
        }
        if self.opens {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        let body = match channel {
            Some(channel) => {
                headers.insert(CONTENT_TYPE, SEALED);
                channel.seal(self.bytes(), chosen.tool.as_str())?.into()
            }
            None => {
                let bytes = self.bytes().cloned();
                bytes.map_or_else(|| self.body.take().unwrap_or_default(), Body::from)
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = chosen.send.uri()?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// What is at hand is what comes of it. The outer error: that is no whole answer, and why.
    async fn give(&self, sent: Sent) -> Result<Result<Response<ResponseBody>, Error>, String> {
        let error = match sent {
            Sent::Answered(looked, channel) => return self.answer(*looked, channel).await,
            Sent::Unanswered(Unanswered::NotSent(why)) => {
                let message =
                    format!("could not connect to the server ({why}); nothing was sent. Check that it is up");
                Error::new(Code::Unreachable, message)
            }
            Sent::Unanswered(Unanswered::TimeOverBefore) => Error::new(
                Code::Timeout,
                "the server took no connection in time; nothing was sent. Check that it is up",
            ),
            Sent::Unanswered(Unanswered::TimeOver) if self.facts.safe => {
                Error::new(Code::Timeout, "the server did not answer in time; allow more with `timeout`")
            }
            Sent::Unanswered(Unanswered::TimeOver) => self.unknown("the time is over"),
            Sent::Unanswered(Unanswered::Sent(why)) => self.unknown(&why),
        };
        Ok(Err(error))
    }

    async fn answer(
        &self,
        looked: Looked,
        channel: Option<Channel>,
    ) -> Result<Result<Response<ResponseBody>, Error>, String> {
        let Looked { response, code, .. } = looked;
        if response.status() == StatusCode::CONFLICT
            && code.as_deref() == Some("OUTCOME_UNKNOWN")
            && self.facts.keyed
        {
            return Ok(Err(
                self.unknown("its server started it under this key, and does not know the outcome")
            ));
        }
        let Some(channel) = channel else { return Ok(Ok(response)) };
        match timeout_at(self.deadline, channel.open_answer(response)).await {
            Ok(opened) => opened.map_err(|error| error.message().to_owned()),
            Err(_) => Err("the time is over".to_owned()),
        }
    }

    fn unknown(&self, why: &str) -> Error {
        let advice = match self.facts.keyed {
            true => "check before repeating it with another key",
            false => "check before repeating it, or give an idempotency key if the server supports them",
        };
        let message =
            format!("the request was sent and not answered ({why}); it may have been carried out: {advice}");
        Error::new(Code::OutcomeUnknown, message)
    }

    /// Where an answer leads, if it is not the answer: the one place that it names.
    fn leads_on(&self, response: &Response<ResponseBody>) -> Result<Option<Option<String>>, Error> {
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let mut places = response.headers().get_all(LOCATION).iter();
        let Some(place) = places.next().filter(|_| is_redirect) else { return Ok(None) };
        match self.options.redirect {
            Redirect::Manual => Ok(None),
            Redirect::Follow
                if matches!(self.method, Method::GET | Method::HEAD) && self.facts.repeatable =>
            {
                let only = places.next().is_none();
                Ok(Some(place.to_str().ok().filter(|_| only).map(str::to_owned)))
            }
            Redirect::Follow | Redirect::Refuse => Err(refused()),
        }
    }
}

fn required(chosen: &Chosen) -> Error {
    let message = format!(
        "a human must approve each call of {}, and nobody was asked; nothing was sent. The option `approval` asks and waits",
        chosen.tool
    );
    Error::new(Code::ApprovalRequired, message)
}

fn used_up() -> Error {
    let message = "the sidecar went away while the token of the approved call was drawn; nothing was sent, and the approval may be used up. Ask for another";
    Error::new(Code::DaemonUnreachable, message)
}

fn refused() -> Error {
    let message = "the server redirects, and the token does not go with it: only GET and HEAD follow, five times at most, and only \
                   to where the session names the same audience and tool. Ask for the answer as it is with the redirect `manual`";
    Error::new(Code::RedirectRefused, message)
}

fn stolen() -> Error {
    let message = "the server says that this token was spent, and this agent did not spend it: somebody else has it. Flush the \
                   sidecar (`obol flush --all`), and see the audit logs for what was done";
    Error::new(Code::TokenStolen, message)
}

/// Reads what is left of a small answer, so that its connection can be used again.
async fn drain(sent: Sent) {
    if let Sent::Answered(looked, _) = sent {
        let (most, patience) = DRAIN;
        let _not_needed = timeout(patience, looked.response.into_body().collect_up_to(most)).await;
    }
}
