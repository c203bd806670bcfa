//! The daemon's life: bind, run, drain, stop.

use core::future::Future;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Weak};

use obol_audit::AuditLog;
use obol_ipc::Endpoint;
use obol_ipc::auth::{RegistrationResult, RegistrationState};
use obol_ipc::names::PeerName;
use obol_probe::contract::{Address, Ended};
use obol_probe::health::{self, Health as _};
use obol_probe::notify::Notifier;
use obol_probe::stop::Stop;
use obol_session::clock::{Clock, SystemClock};
use obol_sidecar::{AgentsSocket, BindError, HttpListener, HttpSocket, OperatorSocket, PeerLimits, Socket};
use tokio::sync::mpsc;

use crate::approvals::Approvals;
use crate::audit::Auditor;
use crate::authenticator::{Authenticator, Wishes};
use crate::health::Health;
use crate::keeper::{Hearing, Keeper};
use crate::known::{Known, Shared};
use crate::listener::{Between, Listener};
use crate::socket::{Agents, Operator, Orders};
use crate::tqs::Tqs;

/// What the daemon calls itself to those who connect, and to the sidecar.
const NAME: &str = concat!("obol-authenticator/", env!("CARGO_PKG_VERSION"));
/// Requests that may wait for the keeper at a time, over all connections.
const MAX_ORDERS: usize = 64;
/// After how many days the identity key is replaced.
const ROTATE_DAYS: u64 = 90;
/// How long connections may take over what is under way once the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What agents may take of the daemon unless told otherwise: they ask seldom.
fn usual_limits() -> PeerLimits {
    PeerLimits { connections: 256, connection_rate: 50, user_rate: 200, idle: Duration::from_secs(60) }
}

/// Where and how a daemon serves.
#[derive(Debug)]
pub struct Options {
    auth: Socket,
    control: Endpoint,
    wishes: Wishes,
    http: Option<HttpSocket>,
    limits: PeerLimits,
    notifier: Notifier,
    audit: Option<Arc<AuditLog>>,
    operator: Option<OperatorSocket>,
    rotate_days: u64,
    clock: Arc<dyn Clock>,
    drain_timeout: Duration,
}

impl Options {
    /// On the agents' socket for authentication, for the sidecar whose operator's socket is there.
    pub fn new(auth: impl Into<Socket>, control: Endpoint) -> Self {
        Self {
            auth: auth.into(),
            control,
            wishes: Wishes::default(),
            http: None,
            limits: usual_limits(),
            notifier: Notifier::default(),
            audit: None,
            operator: None,
            rotate_days: ROTATE_DAYS,
            clock: Arc::new(SystemClock::new()),
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// What the agent is registered as. What is empty the agent may say.
    #[must_use]
    pub fn wishes(mut self, wishes: Wishes) -> Self {
        self.wishes = wishes;
        self
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn http(mut self, socket: impl Into<HttpSocket>) -> Self {
        self.http = Some(socket.into());
        self
    }

    /// What one peer may take; 256 connections, 50 requests a second of one and 200 of a user.
    #[must_use]
    pub fn limits(mut self, limits: PeerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Also tells a service manager how the daemon is.
    #[must_use]
    pub fn notify(mut self, notifier: Notifier) -> Self {
        self.notifier = notifier;
        self
    }

    /// Also writes an audit log. Nobody is registered and no session is opened that is not in it.
    #[must_use]
    pub fn audit(mut self, log: Arc<AuditLog>) -> Self {
        self.audit = Some(log);
        self
    }

    /// Also answers the operator, who may have the key replaced and the agent ended.
    #[must_use]
    pub fn operator(mut self, socket: OperatorSocket) -> Self {
        self.operator = Some(socket);
        self
    }

    /// After how many days the identity key is replaced without anybody asking; 90. Never where it is 0.
    #[must_use]
    pub fn rotate_days(mut self, days: u64) -> Self {
        self.rotate_days = days;
        self
    }

    /// Where the time comes from; the machine's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long connections may take over what is under way once the daemon stops; 5 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Takes the sockets. Connections wait from here on, and are served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing that was there before was touched.
    pub async fn bind(self, authenticator: Authenticator) -> Result<Service, BindError> {
        let Self {
            auth,
            control,
            wishes,
            http,
            limits,
            notifier,
            audit,
            operator,
            rotate_days,
            clock,
            drain_timeout,
        } = self;
        let auth = AgentsSocket::bind(auth, limits)?;
        let http = http.map(HttpSocket::take).transpose()?;
        let name = PeerName::new(NAME)
            .map_err(|error| BindError::io(Address::Unix(auth.path().to_owned()), io::Error::other(error)))?;
        let addresses = core::iter::once(Address::Unix(auth.path().to_owned()))
            .chain(http.as_ref().and_then(HttpListener::address))
            .collect();
        let stop = Stop::new();
        let between = Between::new();
        let known = nothing_known(&authenticator);
        let service = authenticator.service().to_string();
        let shared = Shared::new(known, service, Auditor::new(audit), Arc::clone(&between.outbox));
        let shared = Arc::new(shared);
        let health =
            Arc::new(Health { shared: Arc::clone(&shared), socket: auth.health(), stop: stop.clone() });
        let (orders, queue) = mpsc::channel(MAX_ORDERS);
        let tqs = Tqs::new(control, name.clone());
        let (heard, news) = mpsc::channel(1);
        let listener =
            Listener::new(authenticator.listening(), Arc::clone(&clock), Arc::clone(&between), heard);
        let approvals = Approvals::new(
            authenticator.another_uplink(),
            Tqs::new(tqs.endpoint(), name.clone()),
            Arc::clone(&between),
            Arc::clone(&clock),
        );
        let hearing = Hearing::new(news, between);
        let keeper = Keeper::new(authenticator, tqs, wishes, Arc::clone(&shared), clock, queue, hearing)
            .rotating_after(rotate_days)
            .hearing_browsers(orders.downgrade());
        let orders = Orders { orders, stop: stop.clone() };
        let operator = operator.map(|socket| (socket, Arc::new(Operator { orders: orders.clone() })));
        let agents = Agents { shared, approvals, orders };
        Ok(Service {
            auth,
            agents: Arc::new(agents),
            operator,
            keeper,
            listener,
            http,
            health,
            name,
            notifier: Arc::new(notifier),
            stop,
            addresses,
            drain_timeout,
        })
    }
}

/// Before the keeper has looked.
fn nothing_known(authenticator: &Authenticator) -> Known {
    let registration = RegistrationResult {
        state: RegistrationState::None,
        code: None,
        words: authenticator.identity().public().words(),
        expires_at: None,
        agent_id: None,
        approval_expires_at: None,
        page: None,
        return_code: false,
    };
    Known {
        registration,
        session: None,
        routes: Vec::new(),
        renew_at: None,
        skew: None,
        problem: None,
        hold: None,
        is_stopped: false,
        sees_sidecar: false,
    }
}

/// A daemon that is bound and not running yet.
pub struct Service {
    auth: AgentsSocket,
    agents: Arc<Agents>,
    operator: Option<(OperatorSocket, Arc<Operator>)>,
    keeper: Keeper,
    listener: Listener,
    http: Option<HttpListener>,
    health: Arc<Health>,
    name: PeerName,
    notifier: Arc<Notifier>,
    stop: Stop,
    addresses: Arc<[Address]>,
    drain_timeout: Duration,
}

impl core::fmt::Debug for Service {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Service").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Steers a daemon from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    health: Weak<Health>,
    stop: Stop,
    addresses: Arc<[Address]>,
}

impl Handle {
    /// Takes no more requests, gives up what is under way with the service, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens: for agents, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether the sidecar has a session from here.
    ///
    /// # Errors
    ///
    /// Why it has none, in words.
    pub fn health(&self) -> Result<(), String> {
        match self.health.upgrade() {
            Some(health) => health.ready(),
            None => Err("stopped".to_owned()),
        }
    }
}

impl Service {
    /// A handle to steer this daemon with.
    pub fn handle(&self) -> Handle {
        Handle {
            health: Arc::downgrade(&self.health),
            stop: self.stop.clone(),
            addresses: Arc::clone(&self.addresses),
        }
    }

    /// Serves until it is told to stop: by a handle, or by `shutdown`. Returns once all connections are closed, or were cut
    /// off.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self {
            auth,
            agents,
            operator,
            keeper,
            listener,
            http,
            health,
            name,
            notifier,
            stop,
            drain_timeout,
            ..
        } = self;
        tracing::info!(auth = %auth.path().display(), "listening");
        let aside = async {
            let http = async {
                if let Some(http) = http {
                    let address = http.address().map(tracing::field::display);
                    tracing::info!(address, "serving /livez, /readyz and /metrics");
                    health::serve(http, Arc::clone(&health), &stop).await;
                }
            };
            let signalled = async {
                shutdown.await;
                stop.say();
            };
            // It is well for as long as this loop turns: a service that is away is not its fault.
            tokio::join!(http, signalled, notifier.watch_over(|| core::future::ready(Ok(()))));
            core::future::pending().await
        };
        notifier.ready();
        let served = async {
            let goodbye = async {
                stop.said().await;
                notifier.stopping();
            };
            let operated = async {
                if let Some((socket, answerer)) = operator {
                    tracing::info!(control = %socket.path().display(), "the operator is answered");
                    socket.serve(answerer, name.clone(), &stop).await;
                }
            };
            let served = auth.serve(agents, name.clone(), &stop, drain_timeout);
            let (cut_off, (), (), (), ()) =
                tokio::join!(served, operated, keeper.run(&stop), listener.run(&stop), goodbye);
            Ended { cut_off }
        };
        let ended = tokio::select! {
            never = aside => never,
            ended = served => ended,
        };
        tracing::info!("stopped");
        ended
    }
}
