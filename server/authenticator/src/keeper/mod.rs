//! The life of a session: opened when the agent is registered, renewed in time, given to the sidecar, and not opened where an
//! operator or the service said stop. One task does all of it, one thing at a time, so whoever asks at once gets the same.
//!
//! Nothing is lost by a kill at any point: the identity is in its file, the value that the next session presents is there
//! before the message that may need it, and a session that did not reach the sidecar ends by itself.

mod hearing;
mod landing;
mod leaving;
mod registering;
mod sidecar;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use obol_handshake::{Random as _, SystemRandom};
use obol_ipc::auth::{OpenSession, Problem, RegisterParams, RegistrationResult, RegistrationState};
use obol_ipc::auth_control::{DeregisterResult, RotateResult};
use obol_ipc::names::{AgentInstanceId, ToolName};
use obol_ipc::numbers::AlgorithmSuite;
use obol_ipc::refusal::Refusal;
use obol_ipc::time::UtcTime;
use obol_probe::stop::Stop;
use obol_session::SessionId;
use obol_session::clock::{Clock, Reading};
use obol_uplink::AuthError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) use self::hearing::Hearing;
use self::landing::Landing;
use self::registering::{POLL_SECS, POLL_SOONER_SECS};
use crate::audit::Auditor;
use crate::authenticator::{Authenticator, Session, Wishes};
use crate::known::{Place, Shared};
use crate::listener::Heard;
use crate::refusal::{self, Consequence};
use crate::routes;
use crate::schedule::{BackOff, Life, jump};
use crate::tqs::Tqs;

/// How often it is looked whether something is to be done.
const TICK: Duration = Duration::from_millis(500);
/// How long one thing at the service may take in all, its repeats included.
const PATIENCE: Duration = Duration::from_secs(40);
/// A session younger than this is answered instead of another new one, in seconds.
const FRESH_SECS: u64 = 2;
/// A failure younger than this is answered instead of another attempt, in seconds.
const FRESH_FAILURE_SECS: u64 = 1;
/// A difference between the clocks that is worth a line in the log, in seconds.
const JUMP_SECS: u64 = 5;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What somebody on one of the sockets asks for.
#[derive(Debug)]
pub(crate) enum Order {
    Register(RegisterParams, Reply<RegistrationResult>),
    Registration(Reply<RegistrationResult>),
    /// What came back with a human's yes: from their browser, or typed by them.
    Complete(String, Reply<RegistrationResult>),
    /// A session: a new one, or the one there is if enough of it is left.
    Open {
        fresh: bool,
        reply: Reply<OpenSession>,
    },
    /// The operator alone may say this.
    Rotate(Reply<RotateResult>),
    /// The operator alone may say this.
    Deregister(Reply<DeregisterResult>),
}

/// What is done next.
enum Next {
    Heard(Heard),
    Order(Order),
    Tick,
}

/// The session that the sidecar has.
#[derive(Debug)]
struct Current {
    open: OpenSession,
    life: Life,
    /// It was there before this process, so where its tokens can go is not known.
    is_adopted: bool,
    /// Nothing is drawn from it: the service was not heard for its lease.
    is_lapsed: bool,
}

/// See the module's header.
pub(crate) struct Keeper {
    authenticator: Authenticator,
    tqs: Tqs,
    wishes: Wishes,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    orders: mpsc::Receiver<Order>,
    auditor: Auditor,
    current: Option<Current>,
    /// Sessions that were opened or found and whose end was not written down yet.
    unended: BTreeSet<SessionId>,
    /// What the service said no with, until it says yes.
    refused: Option<String>,
    /// How the last registration ended, where it did not end well.
    ended: Option<RegistrationState>,
    approval_expires_at: Option<u64>,
    back_off: BackOff,
    failure: Option<(Reading, Refusal)>,
    hearing: Hearing,
    polled: Option<Reading>,
    registered: Option<Reading>,
    /// Where a browser brings a human's yes, while one is waited for; and how it gets to the keeper.
    landing: Option<Landing>,
    browsers: Option<mpsc::WeakSender<Order>>,
    /// After how many days the key is replaced; 0 for never.
    rotate_days: u64,
    /// When it was last tried, without anybody asking.
    rotated: Option<Reading>,
    looked: Reading,
    /// When the service was heard last and the sidecar knew all that it had said.
    heard: Option<Reading>,
    is_held: bool,
    sees_sidecar: bool,
    knows_sidecar: bool,
}

impl Keeper {
    pub(crate) fn new(
        authenticator: Authenticator,
        tqs: Tqs,
        wishes: Wishes,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        orders: mpsc::Receiver<Order>,
        hearing: Hearing,
    ) -> Self {
        let (looked, auditor) = (Reading::of(&*clock), shared.auditor.clone());
        Self {
            authenticator,
            tqs,
            wishes,
            shared,
            clock,
            orders,
            auditor,
            current: None,
            unended: BTreeSet::new(),
            refused: None,
            ended: None,
            approval_expires_at: None,
            back_off: BackOff::default(),
            failure: None,
            hearing,
            polled: None,
            registered: None,
            landing: None,
            browsers: None,
            rotate_days: 0,
            rotated: None,
            looked,
            heard: None,
            is_held: false,
            sees_sidecar: false,
            knows_sidecar: false,
        }
    }

    /// Replaces the key after so many days; 0 for never.
    pub(crate) fn rotating_after(self, rotate_days: u64) -> Self {
        Self { rotate_days, ..self }
    }

    /// Browsers on this machine may bring a human's yes.
    pub(crate) fn hearing_browsers(self, orders: mpsc::WeakSender<Order>) -> Self {
        Self { browsers: Some(orders), ..self }
    }

    /// Goes on until the word to stop is said. What is under way then is given up, as a kill would.
    pub(crate) async fn run(mut self, stop: &Stop) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.tell();
        self.tell_listener();
        loop {
            // What the service says comes first: an end must not wait behind those who ask.
            let next = tokio::select! {
                biased;
                () = stop.said() => return,
                Some(heard) = self.hearing.news.recv() => Next::Heard(heard),
                Some(order) = self.orders.recv() => Next::Order(order),
                _ = ticks.tick() => Next::Tick,
            };
            let work = async {
                match next {
                    Next::Heard(heard) => self.hear(heard).await,
                    Next::Order(order) => self.carry_out(order).await,
                    Next::Tick => self.look_after().await,
                }
            };
            tokio::select! {
                () = stop.said() => return,
                () = work => {}
            }
            self.tell();
        }
    }

    fn now(&self) -> Reading {
        Reading::of(&*self.clock)
    }

    async fn carry_out(&mut self, order: Order) {
        // Whoever went away does not hear it; what was done stays done.
        match order {
            Order::Register(params, reply) => {
                let _gone = reply.send(self.register(params).await);
            }
            Order::Registration(reply) => {
                self.ask_about_registration(POLL_SOONER_SECS).await;
                let _gone = reply.send(Ok(self.registration()));
            }
            Order::Complete(shown, reply) => {
                let _gone = reply.send(self.complete(&shown).await);
            }
            Order::Open { fresh, reply } if !reply.is_closed() => {
                let _gone = reply.send(self.session(fresh).await);
            }
            Order::Open { .. } => {}
            Order::Rotate(reply) => {
                let _gone = reply.send(self.rotate().await);
            }
            Order::Deregister(reply) => {
                let _gone = reply.send(self.deregister().await);
            }
        }
    }

    /// What is done without anybody asking.
    async fn look_after(&mut self) {
        let now = self.now();
        let jumped = jump(self.looked, now);
        if jumped > JUMP_SECS {
            tracing::info!(seconds = jumped, "the machine slept, or its clock was set");
            self.back_off.reset();
        }
        self.looked = now;
        self.ask_about_registration(POLL_SECS).await;
        self.look_at_sidecar().await;
        if self.sees_sidecar {
            self.tell_sidecar().await;
        }
        // Another session is word from the service as well.
        let due = self.current.as_ref().is_none_or(|current| current.life.is_due(now) || current.is_lapsed);
        let may = self.authenticator.identity().agent_id().is_some() && self.sees_sidecar && !self.is_held;
        let for_good = self.refused.as_deref() == Some("REVOKED");
        if due && may && !for_good && self.hearing.owes_nothing() && self.back_off.is_over(now) {
            let _noted = self.open().await;
        }
        if self.authenticator.is_unsettled()
            && self.back_off.is_over(now)
            && let Err(error) = self.settle_key().await
        {
            let _noted = self.failed(&error).await;
        }
        self.look_after_key().await;
    }

    fn put(&mut self, current: Current, routes: Vec<(Place, ToolName)>) {
        let mut known = self.shared.known.lock();
        known.renew_at = Some(UtcTime::from_unix_seconds(current.life.renew_at()));
        known.routes = routes;
        drop(known);
        self.current = Some(current);
    }

    /// A session for somebody who asks. One that was there before is followed by another at once, where that can be had: where
    /// its tokens can go only the service knows.
    async fn session(&mut self, fresh: bool) -> Result<OpenSession, Refusal> {
        // Whoever asks may have been told by the sidecar just now that there is none any more.
        if self.current.is_some() {
            self.look_at_sidecar().await;
        }
        let now = self.now();
        if let Some(current) = self.current.as_ref().filter(|current| fresh || !current.is_adopted) {
            let good =
                if fresh { current.life.is_younger(FRESH_SECS, now) } else { current.life.is_enough(now) };
            if good && self.sees_sidecar && !self.is_held && !current.is_lapsed {
                return Ok(current.open.clone());
            }
        }
        let opened = self.new_session(now).await;
        let adopted = self
            .current
            .as_ref()
            .filter(|current| current.is_adopted && !current.is_lapsed && current.life.is_enough(now));
        match (opened, adopted) {
            (Err(_), Some(current)) if !fresh && self.sees_sidecar && !self.is_held => {
                Ok(current.open.clone())
            }
            (opened, _) => opened,
        }
    }

    async fn new_session(&mut self, now: Reading) -> Result<OpenSession, Refusal> {
        if self.authenticator.identity().agent_id().is_none() {
            self.ask_about_registration_soon().await;
        }
        if self.authenticator.identity().agent_id().is_none() {
            return Err(self.why_unregistered());
        }
        if let Some((at, refusal)) = &self.failure
            && now.since(*at) < FRESH_FAILURE_SECS
        {
            return Err(refusal.clone());
        }
        self.open().await
    }

    /// Opens a session and gives it to the sidecar.
    async fn open(&mut self) -> Result<OpenSession, Refusal> {
        if let Err(error) = self.settle_key().await {
            return Err(self.failed(&error).await);
        }
        // Asked anew: an operator may have flushed it a moment ago.
        self.look_at_sidecar().await;
        if self.is_held {
            let hold = self.shared.known.lock().hold.clone();
            let (scope, reason) = hold.map_or_else(Default::default, |hold| (hold.scope, hold.reason));
            return Err(refusal::held(&scope, &reason));
        }
        let auditor = self.auditor.clone();
        let place = match auditor.reserve() {
            Ok(place) => place,
            Err(suspended) => return Err(self.failed_here(refusal::unaudited(&suspended))),
        };
        let pop_pub = match self.tqs.pop_key().await {
            Ok(public) => public,
            Err(error) => return Err(self.failed_here(refusal::of_sidecar(&error))),
        };
        let now = self.now();
        self.authenticator.replaces(self.current.as_ref().map(|current| current.open.session_id));
        let opening = self.authenticator.authenticate(Some(*pop_pub.as_bytes()), now.wall);
        let opened = timeout(PATIENCE, opening)
            .await
            .unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned())));
        self.shared.known.lock().skew = self.authenticator.skew();
        let Session { half, routes: calls, approval_expires_at } = match opened {
            Ok(session) => session,
            Err(error) => return Err(self.failed(&error).await),
        };
        self.approval_expires_at = Some(approval_expires_at);
        let open = match describe(&half, approval_expires_at) {
            Ok(open) => open,
            Err(error) => return Err(self.failed(&error).await),
        };
        let routes = routes::of_session(&half.grants, &calls);
        self.hearing.opened(half.session_id);
        place.opened(&auditor, &half);
        let life = Life::new(now, half.expires_at, chance());
        let document = half.to_json();
        drop(half);
        self.note_contact(now);
        self.tell_of_contact().await;
        if let Err(error) = self.tqs.provision(document, pop_pub).await {
            // It may have it all the same, and is then found there.
            self.auditor.session_ended(open.session_id, "it was not given to the sidecar");
            return Err(self.failed_here(refusal::of_sidecar(&error)));
        }
        self.unended.insert(open.session_id);
        self.shared.opened.increment();
        tracing::info!(session = %open.session_id, expires_at = %open.expires_at, "a session is open");
        self.put(Current { open: open.clone(), life, is_adopted: false, is_lapsed: false }, routes);
        (self.refused, self.failure) = (None, None);
        self.back_off.reset();
        let mut known = self.shared.known.lock();
        (known.problem, known.is_stopped) = (None, false);
        Ok(open)
    }

    /// Notes a failure at the service, and does what follows from it.
    async fn failed(&mut self, error: &AuthError) -> Refusal {
        let now = self.now();
        let consequence = refusal::consequence(error);
        let pause = match consequence {
            Consequence::TryAgain => {
                self.back_off.failed(now, self.current.as_ref().map(|current| &current.life), chance())
            }
            Consequence::Refused | Consequence::Ended => self.back_off.refused(now, chance()),
        };
        let told = refusal::of_service(error, Duration::from_secs(pause));
        if consequence != Consequence::TryAgain {
            self.refused = Some(error.code().to_owned());
            self.auditor.refused(told.code().name());
        }
        if consequence == Consequence::Ended {
            self.end(error.code(), told.message()).await;
        }
        self.note(now, &told, Some(pause));
        told
    }

    /// Notes a failure on this side of the service.
    fn failed_here(&mut self, told: Refusal) -> Refusal {
        let now = self.now();
        let pause = self.back_off.failed(now, self.current.as_ref().map(|current| &current.life), chance());
        self.note(now, &told, Some(pause));
        told
    }

    fn note(&mut self, now: Reading, told: &Refusal, pause: Option<u64>) {
        self.shared.failed.increment();
        tracing::warn!(
            code = told.code().name(),
            why = told.message(),
            retry_in_secs = pause,
            "no session was opened"
        );
        self.failure = Some((now, told.clone()));
        self.shared.known.lock().problem = Some(Problem {
            code: told.code().name().to_owned(),
            message: told.message().to_owned(),
            at: UtcTime::from_unix_seconds(now.wall),
            retry_at: pause.map(|secs| UtcTime::from_unix_seconds(now.wall.saturating_add(secs))),
        });
    }

    /// Writes down what is known, for those who ask.
    fn tell(&self) {
        let (registration, session) = (self.registration(), self.current.as_ref());
        let session = session.map(|current| current.open.clone());
        if self.shared.known.lock().session != session {
            self.shared.set_session(session);
        }
        let mut known = self.shared.known.lock();
        known.registration = registration;
        known.sees_sidecar = self.sees_sidecar;
    }
}

/// What the socket says of a session.
fn describe(half: &obol_session::AgentHalf, approval_expires_at: u64) -> Result<OpenSession, AuthError> {
    let wrong = |error: obol_ipc::names::ValueError| AuthError::Answer(error.to_string());
    Ok(OpenSession {
        session_id: half.session_id,
        agent_instance_id: AgentInstanceId::new(half.agent.agent_instance_id.as_str()).map_err(wrong)?,
        algorithm_suite: AlgorithmSuite::new(half.suite.number()).map_err(wrong)?,
        expires_at: UtcTime::from_unix_seconds(half.expires_at),
        approval_expires_at: Some(UtcTime::from_unix_seconds(approval_expires_at)),
    })
}

/// Any number.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
