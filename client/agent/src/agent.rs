//! The agent: its sockets, its destinations, and everything but sending.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use http::Method;
use obol_client::{AsyncClient, CallError};
use obol_ipc::auth::{
    OpenSession, RegisterParams, RegistrationResult, RegistrationState, Route, TokenStolenParams,
};
use obol_ipc::message::{DequeueTokenResult, SessionInfoResult, TokenStatusResult};
use obol_ipc::names::{Audience, Label, ToolName, WishedName};
use obol_ipc::proof::ArgumentsHash;
use parking_lot::RwLock;
use tokio::time::{Instant, sleep, timeout_at};

use crate::authenticator::{Authenticator, Pause, time_over};
use crate::destination::{Chosen, Destinations, Url, Wanted, unknown};
use crate::error::{Code, Error};
use crate::options::{AgentBuilder, CallOptions, Registration};
use crate::sealed::Sealed;
use crate::token::Token;
use crate::transport::Transport;

/// How old the routes may be before they are asked for again.
const ROUTES_LAST: Duration = Duration::from_secs(60);
/// How old they must be to be asked for again because a URL is not among them.
const ROUTES_YOUNG: Duration = Duration::from_secs(1);
/// How often a draw is repeated whose answer was lost.
const MAX_TOKENS_LOST: u32 = 3;
/// How long a sidecar is waited for that cannot give tokens out.
const UNAVAILABLE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest that one draw waits at the sidecar.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What an answer of the sidecar takes on its way.
const ON_THE_WAY: Duration = Duration::from_millis(50);
/// How long each of two steps may take when it is told that a token was stolen, before the call ends with that error.
const TELL_PATIENCE: Duration = Duration::from_millis(500);
/// How often a human's decision is asked about.
const POLL_PAUSE: Duration = Duration::from_secs(1);

/// An agent on this machine. Cloning it is cheap; clones share everything. No key is ever in it.
///
/// Needs a tokio runtime with I/O and time enabled.
#[derive(Clone)]
pub struct Agent(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    sidecar: AsyncClient,
    /// Not there for a session made by hand.
    authenticator: Option<Authenticator>,
    known: RwLock<Option<Known>>,
    sealed: Sealed,
    pub(crate) transport: Transport,
    pub(crate) timeout: Duration,
}

/// The destinations, as they were told.
#[derive(Clone)]
struct Known {
    destinations: Arc<Destinations>,
    /// `None` where they are said by hand, and last.
    asked: Option<Instant>,
}

/// What a token is drawn for.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) tool: ToolName,
    pub(crate) audience: Option<Audience>,
    pub(crate) arguments: Option<ArgumentsHash>,
    /// Of a call that a human said yes to: what its token is drawn by.
    pub(crate) approval: Option<Label>,
    /// Why the request's body cannot be sealed, where that is so: what tools that take sealed ones are refused with.
    pub(crate) cannot_seal: Option<&'static str>,
}

impl Agent {
    /// Connects to the sidecar of this machine, with the usual settings.
    ///
    /// # Errors
    ///
    /// [`Code::DaemonUnreachable`], [`Code::UntrustedDaemon`].
    pub async fn connect() -> Result<Self, Error> {
        Self::builder().connect().await
    }

    /// Makes an agent with other settings.
    pub fn builder() -> AgentBuilder {
        AgentBuilder::default()
    }

    async fn open(mut builder: AgentBuilder) -> Result<Self, Error> {
        let (agent, auth, options) = builder.endpoints()?;
        let known = match builder.take_routes() {
            Some(routes) => {
                Some(Known { destinations: Arc::new(Destinations::by_hand(routes)?), asked: None })
            }
            None => None,
        };
        let transport = Transport::new(builder.ca_file.as_deref())?;
        let authenticator = auth.map(|endpoint| Authenticator::new(endpoint, options.clone()));
        let sidecar = AsyncClient::connect(agent, options).await?;
        let timeout = builder.timeout;
        let (known, sealed) = (RwLock::new(known), Sealed::default());
        Ok(Self(Arc::new(Inner { sidecar, authenticator, known, sealed, transport, timeout })))
    }

    /// Has the agent registered, and waits for the human who approves it. At once where it is registered already.
    ///
    /// # Errors
    ///
    /// [`Code::ApprovalPending`] when nobody decided while this waited; [`Code::ApprovalDenied`],
    /// [`Code::Expired`] when nobody decided in time; and those of the socket.
    pub async fn register(&self, wishes: Registration) -> Result<RegistrationResult, Error> {
        let authenticator = self.0.authenticator()?;
        let params = params(&wishes)?;
        let until = Instant::now() + wishes.wait;
        let mut seen =
            authenticator.ask(self.0.deadline(None), move |client| client.register(params)).await?;
        if seen.state == RegistrationState::Waiting {
            (wishes.on_prompt)(&seen);
        }
        while seen.state == RegistrationState::Waiting && Instant::now() + POLL_PAUSE < until {
            sleep(POLL_PAUSE).await;
            let status = authenticator
                .ask(self.0.deadline(None), obol_client::BlockingClient::registration_status)
                .await;
            match status {
                Ok(status) => seen = status,
                // A human has to look at it all the same.
                Err(error) if may_pass(error.code()) => {}
                Err(error) => return Err(error),
            }
        }
        registered(seen)
    }

    /// A new session, once the sidecar mints from it.
    ///
    /// # Errors
    ///
    /// Those of the socket: [`Code::NotRegistered`], [`Code::Suspended`], [`Code::AuthorityUnreachable`] and others.
    pub async fn authenticate(&self) -> Result<OpenSession, Error> {
        let (asked, deadline) = (Instant::now(), self.0.deadline(None));
        let opened = self
            .0
            .patiently(asked, deadline, |authenticator, since| {
                Authenticator::fresh(authenticator, since, deadline)
            })
            .await?;
        self.0.forget_routes();
        Ok(opened)
    }

    /// The session there is, or a new one where there is none or it is almost over. Registers the agent where it is not
    /// registered. Of a session made by hand: that one.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register) and [`authenticate`](Self::authenticate).
    pub async fn ensure_authenticated(&self) -> Result<OpenSession, Error> {
        if !self.0.has_authenticator() {
            return self.session_info().await.map(by_hand);
        }
        match self.0.session(Instant::now(), self.0.deadline(None)).await {
            Err(error) if error.code() == Code::NotRegistered => {
                self.register(Registration::new()).await?;
                self.0.session(Instant::now(), self.0.deadline(None)).await
            }
            opened => opened,
        }
    }

    /// Draws one token for a tool, for a client of one's own.
    ///
    /// # Errors
    ///
    /// Those of the socket, and [`Code::OutcomeUnknown`] where the answer was lost: a token may have been handed out and is lost, and
    /// asking again draws another.
    pub async fn dequeue_token(&self, tool: &str) -> Result<Token, Error> {
        self.dequeue_token_with(&CallOptions::new().tool(tool), None).await
    }

    /// The same, with the audience and the time that the options say, and with a proof of possession for a call with the
    /// arguments of this hash.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub async fn dequeue_token_with(
        &self,
        options: &CallOptions,
        arguments: Option<ArgumentsHash>,
    ) -> Result<Token, Error> {
        let tool = options.tool_name()?;
        let tool =
            tool.ok_or_else(|| Error::new(Code::ToolRequired, "name the tool that the token is for"))?;
        let (audience, approval) = (options.audience_name()?, options.approval_label()?);
        let draw = Draw { tool, audience, arguments, approval, cannot_seal: None };
        self.0.draw_for(&draw, self.0.deadline(options.timeout), 0).await.map(Token)
    }

    /// Tells the authenticator that somebody else spent a token of this tool before it was presented, so that the operator hears
    /// of it. Nothing depends on whether that arrives.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidArgument`] for what is no name.
    pub async fn report_stolen(&self, tool: &str, audience: &str) -> Result<(), Error> {
        let options = CallOptions::new().tool(tool).audience(audience);
        if let (Some(tool), Some(audience)) = (options.tool_name()?, options.audience_name()?) {
            self.0.tell_stolen(tool, audience).await;
        }
        Ok(())
    }

    /// How many tokens are ready: for a tool, or for all and each of them.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn token_status(&self, tool: Option<&str>) -> Result<TokenStatusResult, Error> {
        let tool = tool.map(ToolName::new).transpose();
        let tool = tool.map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
        let asked = self.0.sidecar.token_status(tool.as_ref());
        within(asked, self.0.deadline(None)).await
    }

    /// What session the tokens come from.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn session_info(&self) -> Result<SessionInfoResult, Error> {
        within(self.0.session_info(), self.0.deadline(None)).await
    }

    /// Where requests may go.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        Ok(self.0.destinations(ROUTES_LAST, self.0.deadline(None)).await?.named())
    }
}

impl AgentBuilder {
    /// Connects to the sidecar.
    ///
    /// # Errors
    ///
    /// [`Code::DaemonUnreachable`], [`Code::UntrustedDaemon`]; [`Code::InvalidArgument`] for what was said here.
    pub async fn connect(self) -> Result<Agent, Error> {
        Agent::open(self).await
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("sidecar", &self.0.sidecar).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Instant {
        // A day is for ever, and within the clock's reach.
        Instant::now() + timeout.unwrap_or(self.timeout).min(Duration::from_secs(86_400))
    }

    pub(crate) fn authenticator(&self) -> Result<&Authenticator, Error> {
        self.authenticator.as_ref().ok_or_else(|| {
            let message = "routes were given by hand, so there is no authenticator to ask; leave them out so that sessions are opened";
            Error::new(Code::InvalidArgument, message)
        })
    }

    /// What session the tokens come from.
    pub(crate) async fn session_info(&self) -> Result<SessionInfoResult, CallError> {
        self.sidecar.session_info().await
    }

    /// Whether sessions are opened by the authenticator.
    pub(crate) fn has_authenticator(&self) -> bool {
        self.authenticator.is_some()
    }

    /// Where a request goes. The routes are asked for again before it is said that it goes nowhere.
    pub(crate) async fn choose(
        &self,
        url: &Url,
        method: &Method,
        wanted: Wanted<'_>,
        deadline: Instant,
    ) -> Result<Chosen, Error> {
        if let Some(chosen) = self.destinations(ROUTES_LAST, deadline).await?.choose(url, method, wanted)? {
            return Ok(chosen);
        }
        let again = self.destinations(ROUTES_YOUNG, deadline).await?;
        again.choose(url, method, wanted)?.ok_or_else(|| unknown(url))
    }

    /// The destinations of the session there is, not older than this.
    async fn destinations(&self, oldest: Duration, deadline: Instant) -> Result<Arc<Destinations>, Error> {
        if let Some(known) = self.known.read().as_ref()
            && known.asked.is_none_or(|asked| asked.elapsed() < oldest)
        {
            return Ok(Arc::clone(&known.destinations));
        }
        // Whoever asks first asks for all who wait.
        let now = Instant::now();
        let noticed = now.checked_sub(ROUTES_YOUNG).unwrap_or(now);
        let ask = |authenticator, since| Authenticator::status(authenticator, since, deadline);
        let mut status = self.patiently(noticed, deadline, ask).await?;
        if status.routes.is_empty() {
            // No session yet, or one of which the authenticator knows no more.
            self.session(now, deadline).await?;
            status = self.patiently(Instant::now(), deadline, ask).await?;
        }
        let destinations = Arc::new(Destinations::of_session(status.routes));
        let known = Known { destinations: Arc::clone(&destinations), asked: Some(Instant::now()) };
        *self.known.write() = Some(known);
        Ok(destinations)
    }

    /// A session, for somebody who noticed at that moment that there is none.
    pub(crate) async fn session(&self, noticed: Instant, deadline: Instant) -> Result<OpenSession, Error> {
        let ask = |authenticator, since| Authenticator::session(authenticator, since, deadline);
        let opened = self.patiently(noticed, deadline, ask).await?;
        self.forget_routes();
        Ok(opened)
    }

    /// Asks the authenticator until it answers, or refuses for good, or the time is over. What somebody was answered since that
    /// moment will do.
    async fn patiently<'a, T, F>(
        &'a self,
        mut since: Instant,
        deadline: Instant,
        ask: impl Fn(&'a Authenticator, Instant) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let authenticator = self.authenticator()?;
        let mut pause = Pause::new();
        loop {
            match ask(authenticator, since).await {
                Err(error) if may_pass(error.code()) => {
                    pause.after(error, deadline).await?;
                    since = Instant::now();
                }
                outcome => return outcome.map_err(|error| pause.ended_by(error)),
            }
        }
    }

    /// Tells the authenticator that somebody else spent a token. Nothing depends on whether that arrives.
    pub(crate) async fn tell_stolen(&self, tool: ToolName, audience: Audience) {
        let Some(authenticator) = &self.authenticator else { return };
        let session = timeout_at(Instant::now() + TELL_PATIENCE, self.session_info()).await;
        let session_id = session.ok().and_then(Result::ok).map(|session| session.session_id);
        let stolen = TokenStolenParams { tool, audience, session_id };
        let told =
            authenticator.ask(Instant::now() + TELL_PATIENCE, move |client| client.token_stolen(stolen));
        let _whether_or_not = told.await;
    }

    fn forget_routes(&self) {
        self.sealed.forget();
        let mut known = self.known.write();
        if known.as_ref().is_some_and(|known| known.asked.is_some()) {
            *known = None;
        }
    }

    /// Draws a token for a request. Waits for what may be over in a moment, has a session opened once where there is none, and draws
    /// another token where the answer was lost.
    pub(crate) async fn draw(&self, draw: &Draw, deadline: Instant) -> Result<DequeueTokenResult, Error> {
        // Of a call that was approved there is no other.
        let most = if draw.approval.is_some() { 0 } else { MAX_TOKENS_LOST };
        self.draw_for(draw, deadline, most).await
    }

    /// The same, losing this many tokens at most.
    async fn draw_for(&self, draw: &Draw, deadline: Instant, most: u32) -> Result<DequeueTokenResult, Error> {
        let (began, mut pause, mut lost) = (Instant::now(), Pause::new(), 0);
        let mut may_authenticate = self.has_authenticator();
        loop {
            self.refuse_sealed(draw, deadline).await?;
            let error = match self.draw_once(draw, deadline).await {
                Ok(drawn) => return self.fitting(draw, drawn),
                Err(error) => error,
            };
            match error.code() {
                Code::NoSession | Code::SessionFlushed if may_authenticate => {
                    may_authenticate = false;
                    self.session(Instant::now(), deadline).await?;
                }
                Code::OutcomeUnknown if lost < most => lost += 1,
                Code::Unavailable if began.elapsed() >= UNAVAILABLE_PATIENCE => return Err(error),
                Code::QueueEmpty | Code::Overloaded | Code::Unavailable | Code::DaemonUnreachable => {
                    pause.after(error, deadline).await?;
                }
                _ => return Err(pause.ended_by(error)),
            }
        }
    }

    /// Refuses a draw for a body that cannot be sealed where its tool takes sealed ones.
    pub(crate) async fn refuse_sealed(&self, draw: &Draw, deadline: Instant) -> Result<(), Error> {
        let (Some(why), Some(audience)) = (draw.cannot_seal, &draw.audience) else { return Ok(()) };
        match self.sealed.takes(&self.sidecar, &draw.tool, audience, deadline).await {
            true => Err(Error::new(Code::InvalidArgument, why)),
            false => Ok(()),
        }
    }

    /// What was drawn, where its body can be what it asks for: a sidecar of another version may not have said it before.
    fn fitting(&self, draw: &Draw, drawn: DequeueTokenResult) -> Result<DequeueTokenResult, Error> {
        let Some(why) = draw.cannot_seal.filter(|_| drawn.channel.is_some()) else { return Ok(drawn) };
        if let Some(audience) = &draw.audience {
            self.sealed.note(&draw.tool, audience, true);
        }
        Err(Error::new(Code::InvalidArgument, why))
    }

    async fn draw_once(&self, draw: &Draw, deadline: Instant) -> Result<DequeueTokenResult, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = left.saturating_sub(ON_THE_WAY).min(LONGEST_WAIT);
        let Draw { tool, audience, arguments, approval, .. } = draw;
        if let Some(approval) = approval {
            let asked = self.sidecar.dequeue_approved(tool, audience.as_ref(), approval.clone(), *arguments);
            return within(asked, deadline).await;
        }
        match (audience, arguments) {
            (audience, Some(arguments)) => {
                let asked = self.sidecar.dequeue_token_with_proof(tool, audience.as_ref(), *arguments, wait);
                within(asked, deadline).await
            }
            (Some(audience), None) => {
                within(self.sidecar.dequeue_token_for(tool, audience, wait), deadline).await
            }
            (None, None) => within(self.sidecar.dequeue_token(tool, wait), deadline).await,
        }
    }
}

/// Whether an authenticator may answer otherwise in a moment, with nothing done about it.
pub(crate) const fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::AuthorityUnreachable | Code::DaemonUnreachable | Code::Overloaded | Code::Unavailable
    )
}

/// A session made by hand, as the authenticator would describe it.
fn by_hand(session: SessionInfoResult) -> OpenSession {
    OpenSession {
        session_id: session.session_id,
        agent_instance_id: session.agent_instance_id,
        algorithm_suite: session.algorithm_suite,
        expires_at: session.expires_at,
        approval_expires_at: None,
    }
}

/// What the sidecar answers, if it does in time.
async fn within<T>(asked: impl Future<Output = Result<T, CallError>>, deadline: Instant) -> Result<T, Error> {
    match timeout_at(deadline, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(time_over("the sidecar")),
    }
}

fn params(wishes: &Registration) -> Result<RegisterParams, Error> {
    let wrong = |error: obol_ipc::names::ValueError| Error::new(Code::InvalidArgument, error.to_string());
    let one = |name: &Option<String>| name.as_deref().map(WishedName::new).transpose().map_err(wrong);
    Ok(RegisterParams {
        name: one(&wishes.name)?,
        class: one(&wishes.class)?,
        roles: wishes.roles.iter().map(WishedName::new).collect::<Result<_, _>>().map_err(wrong)?,
        tools: wishes.tools.iter().map(ToolName::new).collect::<Result<_, _>>().map_err(wrong)?,
        ticket: None,
        flow: None,
        assertion: None,
    })
}

fn registered(seen: RegistrationResult) -> Result<RegistrationResult, Error> {
    let (code, message) = match seen.state {
        RegistrationState::Active => return Ok(seen),
        RegistrationState::Waiting => {
            let code = seen.code.as_deref().unwrap_or("-");
            (Code::ApprovalPending, format!("a human has not yet approved the agent: `obol approve {code}`"))
        }
        RegistrationState::Denied => (Code::ApprovalDenied, "a human denied the agent".to_owned()),
        RegistrationState::Expired => {
            (Code::Expired, "nobody decided about the agent in time; register it again".to_owned())
        }
        _ => (Code::NotRegistered, "the agent is not registered; register it".to_owned()),
    };
    Err(Error::new(code, message))
}
