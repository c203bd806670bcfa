//! The daemon's life: bind, run, drain, stop.

use core::future::Future;
use core::sync::atomic::AtomicU64;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use obol_audit::AuditLog;
use obol_ipc::Endpoint;
use obol_ipc::control::ControlProtocol;
use obol_ipc::message::AgentProtocol;
use obol_ipc::names::PeerName;
use obol_ipc::user::name_of;
use obol_probe::contract::{Address, BindError, Ended};
use obol_probe::health::{self, Health as _};
use obol_probe::notify::Notifier;
use obol_probe::stop::Stop;
use obol_queue::Queue;

use crate::access::Access;
use crate::agent::Agent;
use crate::audit::{Auditor, Watch};
use crate::control::Control;
use crate::denials::Denials;
use crate::http::{Health, HttpAddress, HttpListener};
use crate::limits::{PeerLimits, Peers};
use crate::listener::Listener;
use crate::pop_keys::PopKeys;
use crate::socket_server::{DRAIN_TIMEOUT, MAX_CONTROL_CONNECTIONS, SocketServer};

/// What the daemon calls itself to those who connect.
const NAME: &str = concat!("obol/", env!("CARGO_PKG_VERSION"));

/// One of the daemon's Unix sockets.
#[derive(Debug)]
pub enum Socket {
    /// To be bound here, for these users.
    At(Endpoint, Access),
    /// Bound already: before a sandbox was entered, or by the service manager.
    Taken(Listener),
}

impl From<Endpoint> for Socket {
    /// For our own user.
    fn from(endpoint: Endpoint) -> Self {
        Self::At(endpoint, Access::OwnUser)
    }
}

impl From<Listener> for Socket {
    fn from(listener: Listener) -> Self {
        Self::Taken(listener)
    }
}

impl Socket {
    pub(crate) fn take(self) -> Result<Listener, BindError> {
        match self {
            Self::At(endpoint, access) => Listener::bind(&endpoint, access),
            Self::Taken(listener) => Ok(listener),
        }
    }
}

/// Where `/livez`, `/readyz` and `/metrics` are served.
#[derive(Debug)]
pub enum HttpSocket {
    /// To be bound here; a Unix socket is for our own user.
    At(HttpAddress),
    /// Bound already, before a sandbox was entered.
    Taken(HttpListener),
}

impl From<HttpAddress> for HttpSocket {
    fn from(address: HttpAddress) -> Self {
        Self::At(address)
    }
}

impl From<HttpListener> for HttpSocket {
    fn from(listener: HttpListener) -> Self {
        Self::Taken(listener)
    }
}

impl HttpSocket {
    /// The listener, bound if it was not. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn take(self) -> Result<HttpListener, BindError> {
        match self {
            Self::At(address) => address.bind(Access::OwnUser),
            Self::Taken(listener) => Ok(listener),
        }
    }
}

/// Where and how a daemon serves.
#[derive(Debug)]
pub struct Options {
    agent: Socket,
    control: Socket,
    http: Option<HttpSocket>,
    limits: PeerLimits,
    notifier: Notifier,
    audit: Option<Arc<AuditLog>>,
    log_lines_dropped: Option<&'static AtomicU64>,
    drain_timeout: Duration,
}

impl Options {
    /// On the agent's socket and on the operator's, within the standard limits.
    pub fn new(agent: impl Into<Socket>, control: impl Into<Socket>) -> Self {
        Self {
            agent: agent.into(),
            control: control.into(),
            http: None,
            limits: PeerLimits::default(),
            notifier: Notifier::default(),
            audit: None,
            log_lines_dropped: None,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn http(mut self, socket: impl Into<HttpSocket>) -> Self {
        self.http = Some(socket.into());
        self
    }

    /// What one peer may take.
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

    /// Also writes an audit log. Nothing is handed out that is not in it.
    #[must_use]
    pub fn audit(mut self, log: Arc<AuditLog>) -> Self {
        self.audit = Some(log);
        self
    }

    /// Also shows in the metrics how many lines of the process's log were given up, which is counted there.
    #[must_use]
    pub fn log_lines_dropped(mut self, lines: &'static AtomicU64) -> Self {
        self.log_lines_dropped = Some(lines);
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
    pub async fn bind(self, queue: Arc<Queue>) -> Result<Service, BindError> {
        let Self { agent, control, http, limits, notifier, audit, log_lines_dropped, drain_timeout } = self;
        let (control, agent) = (control.take()?, agent.take()?);
        let http = http.map(HttpSocket::take).transpose()?;
        let server = PeerName::new(NAME).map_err(|error| {
            BindError::io(Address::Unix(agent.path().to_owned()), io::Error::other(error))
        })?;
        let audit = audit.map(Auditor::new);
        let wiring = Wiring { queue, server, limits, audit, log_lines_dropped, drain_timeout };
        Ok(wiring.wire(agent, control, http, notifier))
    }
}

/// What the parts of a service share.
struct Wiring {
    queue: Arc<Queue>,
    server: PeerName,
    limits: PeerLimits,
    audit: Option<Auditor>,
    log_lines_dropped: Option<&'static AtomicU64>,
    drain_timeout: Duration,
}

impl Wiring {
    fn wire(
        self,
        agent: Listener,
        control: Listener,
        http: Option<HttpListener>,
        notifier: Notifier,
    ) -> Service {
        let Self { queue, server, limits, audit, log_lines_dropped, drain_timeout } = self;
        let unix = [&agent, &control].map(|listener| Address::Unix(listener.path().to_owned()));
        let addresses = unix.into_iter().chain(http.as_ref().and_then(HttpListener::address)).collect();
        let (stop, lost, denials) = (Stop::new(), Arc::default(), Arc::<Denials>::default());
        let peers = Peers::new(limits);
        let health = Arc::new(Health {
            queue: Arc::clone(&queue),
            peers: Arc::clone(&peers),
            counters: Arc::clone(&peers.counters),
            lost: Arc::clone(&lost),
            stop: stop.clone(),
            audit: audit.clone(),
            log_lines_dropped,
        });
        let answers_agent = Agent {
            queue: Arc::clone(&queue),
            stop: stop.clone(),
            audit: audit.clone(),
            denials: Arc::clone(&denials),
            turns: Arc::default(),
        };
        let answers_control = Control {
            queue: Arc::clone(&queue),
            agent_users: agent.access().agent_users().to_vec(),
            started: Instant::now(),
            stop: stop.clone(),
            counters: Arc::clone(&peers.counters),
            audit: audit.clone(),
            denials,
            health: Arc::clone(&health),
            parts: Arc::default(),
            pop_keys: PopKeys::default(),
        };
        let operators = Peers::new(PeerLimits::unmetered(MAX_CONTROL_CONNECTIONS));
        Service {
            agents: SocketServer::new(
                agent,
                Arc::new(answers_agent),
                Arc::clone(&peers),
                server.clone(),
                Arc::clone(&lost),
            ),
            operators: SocketServer::new(control, Arc::new(answers_control), operators, server, lost),
            http,
            watch: audit.map(|audit| Watch::new(audit, queue)),
            health,
            peers,
            notifier: Arc::new(notifier),
            stop,
            addresses,
            drain_timeout,
        }
    }
}

/// A daemon that is bound and not running yet.
pub struct Service {
    agents: SocketServer<AgentProtocol, Agent>,
    operators: SocketServer<ControlProtocol, Control>,
    http: Option<HttpListener>,
    watch: Option<Watch>,
    health: Arc<Health>,
    peers: Arc<Peers>,
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
    peers: Arc<Peers>,
    notifier: Arc<Notifier>,
    /// The queue ends with the service, whoever still has a handle.
    health: Weak<Health>,
    stop: Stop,
    addresses: Arc<[Address]>,
}

impl Handle {
    /// Takes no more requests, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Puts other limits in force, for connections that are open as well.
    pub fn reload(&self, limits: PeerLimits) {
        self.peers.set_limits(limits);
    }

    /// Tells the service manager that settings are being read again; [`reloaded`](Self::reloaded) must follow.
    pub fn reloading(&self) {
        self.notifier.reloading();
    }

    /// Tells the service manager that the daemon serves with the settings it has now.
    pub fn reloaded(&self) {
        self.notifier.ready();
    }

    /// Where it listens: for agents, for the operator, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether a token could be handed out now.
    ///
    /// # Errors
    ///
    /// Why none could, in words.
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
            peers: Arc::clone(&self.peers),
            notifier: Arc::clone(&self.notifier),
            health: Arc::downgrade(&self.health),
            stop: self.stop.clone(),
            addresses: Arc::clone(&self.addresses),
        }
    }

    /// Serves until it is told to stop: by a handle, by the operator's `drain`, or by `shutdown`.
    ///
    /// Returns once all connections are closed, or were cut off; the queue is dropped with it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { agents, operators, http, mut watch, health, notifier, stop, drain_timeout, .. } = self;
        say_where(agents.listener(), operators.listener());
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
            let watched = notifier.watch_over(|| still_writes(Arc::clone(&health.queue)));
            tokio::join!(http, signalled, watched);
            core::future::pending().await
        };
        let watching = async {
            if let Some(watch) = &mut watch {
                watch.run().await;
            }
            core::future::pending().await
        };
        notifier.ready();
        let served = async {
            let (agents, operators) =
                (agents.serve(&stop, drain_timeout), operators.serve(&stop, drain_timeout));
            let ((), agents, operators) = tokio::join!(say_goodbye(&stop, &notifier), agents, operators);
            Ended { cut_off: agents + operators }
        };
        let ended = tokio::select! {
            never = aside => never,
            never = watching => never,
            ended = served => ended,
        };
        if let Some(mut watch) = watch {
            watch.look();
        }
        tracing::info!("stopped");
        ended
    }
}

/// Where the daemon listens, and for whom.
fn say_where(agent: &Listener, control: &Listener) {
    let own = name_of(rustix::process::geteuid().as_raw());
    let agents = match agent.access().agent_users() {
        [] => {
            format!("{own}, as the daemon itself: an agent that runs code has its keys (set tqs.agent_users)")
        }
        users => format!("{}; the daemon is {own}", users.join(", ")),
    };
    tracing::info!(agent = %agent.path().display(), control = %control.path().display(), agents, "listening");
}

/// Tells the service manager that the daemon stops, when that begins and not when the last connection has gone.
async fn say_goodbye(stop: &Stop, notifier: &Notifier) {
    stop.said().await;
    notifier.stopping();
}

/// Whether the queue's writer carries out what it is told. After a failed write it never will again, so the manager starts
/// the daemon anew.
async fn still_writes(queue: Arc<Queue>) -> Result<(), String> {
    let written = tokio::task::spawn_blocking(move || queue.health().and_then(|()| queue.sync()));
    written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
