//! The daemon's life: bind, run, drain, stop.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use obol_audit::AuditLog;
use obol_ipc::hello::HelloRefusalCode;
use obol_ipc::message::AgentProtocol;
use obol_ipc::names::PeerName;
use obol_ipc::user::name_of;
use obol_ipc::{Endpoint, Protocol};
use obol_queue::Queue;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::access::Access;
use crate::agent::Agent;
use crate::audit::{Auditor, Watch};
use crate::connection::{self, Answerer};
use crate::control::Control;
use crate::denials::Denials;
use crate::http::{Health, HttpListener};
use crate::limits::{Limits, Peers};
use crate::listener::{BindError, Fate, Listener, Peer};
use crate::notify::Notifier;
use crate::owner::Owner;

/// Connections on the operator's socket at a time.
pub(crate) const MAX_CONTROL_CONNECTIONS: usize = 16;
/// Connections that are being told that there are too many, at a time; more are closed without a word.
const MAX_TURNED_AWAY: usize = 64;
/// How long connections may take over what is under way once the daemon stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two lines of the log about users who are not served.
const STRANGERS_PAUSE: Duration = Duration::from_secs(1);
/// How often a socket's path is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Pause after the system could not accept, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a daemon listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's socket.
    pub agent: Endpoint,
    /// The operator's socket.
    pub control: Endpoint,
}

/// A daemon that is bound and not running yet.
#[derive(Debug)]
pub struct Service {
    agent: Listener,
    control: Listener,
    queue: Arc<Queue>,
    peers: Arc<Peers>,
    http: Option<HttpListener>,
    notifier: Arc<Notifier>,
    audit: Option<Auditor>,
    log_lines_dropped: Option<&'static AtomicU64>,
    stop: watch::Sender<bool>,
}

/// Steers a running daemon from elsewhere.
#[derive(Clone, Debug)]
pub struct Handle {
    peers: Arc<Peers>,
    notifier: Arc<Notifier>,
    stop: watch::Sender<bool>,
}

impl Handle {
    /// Takes no more requests, finishes what is under way, and ends [`Service::run`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Puts other limits in force, for connections that are open as well.
    pub fn set_limits(&self, limits: Limits) {
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
}

impl Options {
    /// Binds both sockets, for our own user. Must be called inside a tokio runtime.
    pub fn bind(&self, queue: Arc<Queue>) -> Result<Service, BindError> {
        let control = Listener::bind(&self.control, Access::OwnUser)?;
        let agent = Listener::bind(&self.agent, Access::OwnUser)?;
        Ok(Service::new(agent, control, queue))
    }
}

impl Service {
    /// A daemon on sockets that are bound already.
    pub fn new(agent: Listener, control: Listener, queue: Arc<Queue>) -> Self {
        Self {
            agent,
            control,
            queue,
            peers: Peers::new(Limits::default()),
            http: None,
            notifier: Arc::default(),
            audit: None,
            log_lines_dropped: None,
            stop: watch::Sender::new(false),
        }
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`, here.
    #[must_use]
    pub fn http(mut self, listener: HttpListener) -> Self {
        self.http = Some(listener);
        self
    }

    /// Also tells a service manager how the daemon is.
    #[must_use]
    pub fn notify(mut self, notifier: Notifier) -> Self {
        self.notifier = Arc::new(notifier);
        self
    }

    /// Also writes an audit log. Nothing is handed out that is not in it.
    #[must_use]
    pub fn audit(mut self, log: Arc<AuditLog>) -> Self {
        self.audit = Some(Auditor::new(log));
        self
    }

    /// Also shows in the metrics how many lines of the process's log were given up, which is counted there.
    #[must_use]
    pub fn log_lines_dropped(mut self, lines: &'static AtomicU64) -> Self {
        self.log_lines_dropped = Some(lines);
        self
    }

    /// A handle to steer this daemon with.
    pub fn handle(&self) -> Handle {
        Handle {
            peers: Arc::clone(&self.peers),
            notifier: Arc::clone(&self.notifier),
            stop: self.stop.clone(),
        }
    }

    /// Serves until it is told to stop: by its handle, by the operator's `drain`, or by `shutdown`.
    ///
    /// Returns once all connections are closed; the queue is dropped with it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { agent, control, queue, peers, http, notifier, audit, log_lines_dropped, stop } = self;
        let server = PeerName::new(concat!("obol/", env!("CARGO_PKG_VERSION"))).map_err(io::Error::other)?;
        let stopping = stop.subscribe();
        let agent_users = agent.access().agent_users().to_vec();
        say_where(&agent, &control);

        let counters = Arc::clone(&peers.counters);
        let lost = Arc::new(AtomicUsize::new(0));
        let denials = Arc::<Denials>::default();
        let health = Arc::new(Health {
            queue: Arc::clone(&queue),
            peers: Arc::clone(&peers),
            counters: Arc::clone(&counters),
            lost: Arc::clone(&lost),
            stopping: stopping.clone(),
            audit: audit.clone(),
            log_lines_dropped,
        });
        let answers_agent = Arc::new(Agent {
            queue: Arc::clone(&queue),
            stopping: stopping.clone(),
            audit: audit.clone(),
            denials: Arc::clone(&denials),
            turns: Arc::default(),
        });
        let answers_control = Arc::new(Control {
            queue: Arc::clone(&queue),
            agent_users,
            started: Instant::now(),
            stop: stop.clone(),
            counters,
            audit: audit.clone(),
            denials,
            health: Arc::clone(&health),
        });
        let mut watch = audit.map(|audit| Watch::new(audit, queue));
        let operators = Peers::new(Limits::unmetered(MAX_CONTROL_CONNECTIONS));
        let agents =
            Door::<AgentProtocol, _>::new(agent, answers_agent, peers, server.clone(), Arc::clone(&lost));
        let operators = Door::new(control, answers_control, operators, server, lost);
        let (agents, operators) = (agents.serve(stopping.clone()), operators.serve(stopping.clone()));
        let aside = async {
            let http = async {
                if let Some(http) = http {
                    tracing::info!(address = %http, "serving /livez, /readyz and /metrics");
                    http.serve(Arc::clone(&health)).await;
                }
            };
            let signalled = async {
                shutdown.await;
                stop.send_replace(true);
            };
            tokio::join!(http, signalled, watch_over(&health, &notifier));
            std::future::pending::<()>().await;
        };
        let watching = async {
            match &mut watch {
                Some(watch) => watch.run().await,
                None => std::future::pending().await,
            }
        };
        notifier.ready();
        tokio::select! {
            () = aside => {}
            () = watching => {}
            ((), (), ()) = async { tokio::join!(say_goodbye(stopping, &notifier), agents, operators) } => {}
        }
        if let Some(mut watch) = watch {
            watch.look();
        }
        tracing::info!("stopped");
        Ok(())
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
async fn say_goodbye(mut stopping: watch::Receiver<bool>, notifier: &Notifier) {
    connection::stopped(&mut stopping).await;
    notifier.stopping();
}

/// Tells the service manager that all is well for as long as it is: this loop turns, and the queue's writer carries out
/// what it is told. After a failed write it never will again, so the manager starts the daemon anew.
async fn watch_over(health: &Health, notifier: &Notifier) {
    let Some(period) = notifier.watchdog() else { return };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;
    loop {
        ticks.tick().await;
        let queue = Arc::clone(&health.queue);
        let answer =
            timeout(period, tokio::task::spawn_blocking(move || queue.health().and_then(|()| queue.sync())))
                .await;
        let ailment = match answer {
            Ok(Ok(Ok(()))) => {
                if !std::mem::replace(&mut well, true) {
                    notifier.ready();
                }
                notifier.alive();
                continue;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store does not answer".to_owned(),
        };
        if std::mem::take(&mut well) {
            tracing::error!(ailment, "the service manager is no longer told that all is well");
            notifier.ailing(&ailment);
        }
    }
}

/// One socket, who answers on it, and who is connected.
pub(crate) struct Door<P, A> {
    listener: Listener,
    answerer: Arc<A>,
    peers: Arc<Peers>,
    server: PeerName,
    turned_away: Arc<AtomicUsize>,
    strangers: Strangers,
    /// Whether the last attempt to accept failed, so that a lasting failure is said once.
    failing: bool,
    /// Whether the path of this socket is lost, likewise; and what `/readyz` looks at.
    lost: bool,
    any_lost: Arc<AtomicUsize>,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol, A: Answerer<P>> Door<P, A> {
    pub(crate) fn new(
        listener: Listener,
        answerer: Arc<A>,
        peers: Arc<Peers>,
        server: PeerName,
        any_lost: Arc<AtomicUsize>,
    ) -> Self {
        let (turned_away, protocol) = (Arc::default(), PhantomData);
        Self {
            listener,
            answerer,
            peers,
            server,
            turned_away,
            strangers: Strangers::default(),
            failing: false,
            lost: false,
            any_lost,
            protocol,
        }
    }

    /// Accepts connections until the daemon stops, then waits for those that are open.
    pub(crate) async fn serve(mut self, stopping: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut stop = stopping.clone();
        let mut look_after = interval(LOOK_AFTER);
        look_after.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                () = connection::stopped(&mut stop) => break,
                Some(_ended) = connections.join_next() => continue,
                _ = look_after.tick() => {
                    self.look_after();
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, Peer::Served(owner))) => self.admit(stream, owner, &mut connections, &stopping),
                Ok((stream, Peer::Stranger(uid))) => self.strangers.turn_away(stream, uid),
                Err(error) => self.wait_after(&error).await,
            }
        }
        // Nobody new comes in from here on: the path is gone before the last connection is.
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN_PATIENCE, all).await.is_err() {
            tracing::warn!("connections did not end in time and were cut off");
        }
    }

    fn admit(
        &mut self,
        stream: UnixStream,
        owner: Owner,
        connections: &mut JoinSet<()>,
        stopping: &watch::Receiver<bool>,
    ) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("connections are accepted again");
        }
        match self.peers.admit(owner) {
            Ok(account) => {
                let (answerer, server) = (Arc::clone(&self.answerer), self.server.clone());
                let (stopping, overdue) = (stopping.clone(), account.overdue());
                connections.spawn(async move {
                    tokio::select! {
                        served = connection::serve::<P, A>(stream, answerer, server, account, stopping) => {
                            if let Err(error) = served {
                                tracing::debug!(%error, "a connection ended early");
                            }
                        }
                        () = overdue => tracing::debug!("a connection that was to make room was cut off"),
                    }
                });
            }
            Err(limit) => {
                let message = format!("{limit} connections are open already; close some, or ask again later");
                turn_away(stream, &self.turned_away, HelloRefusalCode::Overloaded, message);
            }
        }
    }

    /// The system could not accept, for want of descriptors for instance. Those that are connected go on; the next
    /// wait in the system's queue until there is room.
    async fn wait_after(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "cannot accept connections for now; those that are open go on");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn look_after(&mut self) {
        let lost = match self.listener.look_after() {
            Fate::Intact => false,
            Fate::Restored => {
                tracing::warn!(path = %self.listener.path().display(), "the socket was removed; there is a new one");
                false
            }
            Fate::Lost(error) => {
                if !self.lost {
                    tracing::error!(%error, "the socket was removed or replaced; nobody new can connect");
                }
                true
            }
        };
        match (std::mem::replace(&mut self.lost, lost), lost) {
            (false, true) => self.any_lost.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.any_lost.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Says why there is no place for a connection, unless even that is too much.
fn turn_away(stream: UnixStream, turned_away: &Arc<AtomicUsize>, code: HelloRefusalCode, message: String) {
    if turned_away.fetch_add(1, Ordering::Relaxed) >= MAX_TURNED_AWAY {
        turned_away.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let turned_away = Arc::clone(turned_away);
    tokio::spawn(async move {
        connection::turn_away(stream, code, &message).await;
        turned_away.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Users whom the daemon does not serve. They can connect as often as they like, so neither what they are told nor what
/// the log says of them grows with that.
#[derive(Debug, Default)]
struct Strangers {
    turned_away: Arc<AtomicUsize>,
    said: Option<Instant>,
    unsaid: u64,
}

impl Strangers {
    fn turn_away(&mut self, stream: UnixStream, uid: u32) {
        let message = format!(
            "{} is not a user whom this sidecar serves; the operator can add it: `sudo obol install --agent-user …`, or \
             tqs.agent_users",
            name_of(uid)
        );
        turn_away(stream, &self.turned_away, HelloRefusalCode::UserNotServed, message);
        self.unsaid += 1;
        if self.said.is_none_or(|said| said.elapsed() >= STRANGERS_PAUSE) {
            let connections = std::mem::take(&mut self.unsaid);
            tracing::warn!(uid, connections, "a user who is not served was turned away");
            self.said = Some(Instant::now());
        }
    }
}
