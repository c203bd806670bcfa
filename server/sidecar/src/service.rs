//! The daemon's life: bind, run, drain, stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use obol_ipc::hello::{HelloRefusalCode, PeerName};
use obol_ipc::message::AgentProtocol;
use obol_ipc::{Endpoint, Protocol};
use obol_queue::Queue;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::connection::{self, Answerer};
use crate::control::Control;
use crate::listener::{BindError, Listener};

/// Connections on the agent's socket at a time.
const MAX_AGENT_CONNECTIONS: usize = 1024;
/// Connections on the operator's socket at a time.
const MAX_CONTROL_CONNECTIONS: usize = 16;
/// Connections that are being told that there are too many, at a time; more are closed without a word.
const MAX_TURNED_AWAY: usize = 64;
/// How long connections may take over what is under way once the daemon stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
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
    stop: watch::Sender<bool>,
}

/// Stops a running daemon from elsewhere.
#[derive(Clone, Debug)]
pub struct Handle(watch::Sender<bool>);

impl Handle {
    /// Takes no more requests, finishes what is under way, and ends [`Service::run`].
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Options {
    /// Binds both sockets. Must be called inside a tokio runtime.
    pub fn bind(&self, queue: Arc<Queue>) -> Result<Service, BindError> {
        let control = Listener::bind(&self.control)?;
        let agent = Listener::bind(&self.agent)?;
        Ok(Service { agent, control, queue, stop: watch::Sender::new(false) })
    }
}

impl Service {
    /// A handle to stop this daemon with.
    pub fn handle(&self) -> Handle {
        Handle(self.stop.clone())
    }

    /// Serves until it is told to stop: by its handle, by the operator's `drain`, or by `shutdown`.
    ///
    /// Returns once all connections are closed; the queue is dropped with it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { agent, control, queue, stop } = self;
        let server = PeerName::new(concat!("obol/", env!("CARGO_PKG_VERSION"))).map_err(io::Error::other)?;
        let stopping = stop.subscribe();
        tracing::info!(agent = %agent.path().display(), control = %control.path().display(), "listening");

        let answers_agent = Arc::new(Agent { queue: Arc::clone(&queue), stopping: stopping.clone() });
        let answers_control = Arc::new(Control { queue, started: Instant::now(), stop: stop.clone() });
        let agents = accept::<AgentProtocol, _>(
            &agent,
            answers_agent,
            &server,
            stopping.clone(),
            MAX_AGENT_CONNECTIONS,
        );
        let operators = accept(&control, answers_control, &server, stopping, MAX_CONTROL_CONNECTIONS);
        let signalled = async {
            shutdown.await;
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(agents, operators) } => {}
            () = signalled => {}
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Accepts connections until the daemon stops, then waits for those that are open.
async fn accept<P: Protocol, A: Answerer<P>>(
    listener: &Listener,
    answerer: Arc<A>,
    server: &PeerName,
    stopping: watch::Receiver<bool>,
    limit: usize,
) {
    let mut connections = JoinSet::new();
    let turned_away = Arc::new(AtomicUsize::new(0));
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            () = connection::stopped(&mut stop) => break,
            Some(_ended) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) if connections.len() < limit => {
                let (answerer, server, stopping) = (Arc::clone(&answerer), server.clone(), stopping.clone());
                connections.spawn(async move {
                    if let Err(error) = connection::serve(stream, answerer, server, stopping).await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Ok(stream) => turn_away(stream, &turned_away, limit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_PATIENCE, all).await.is_err() {
        tracing::warn!("connections did not end in time and were cut off");
    }
}

/// Says that there are too many connections, unless even that is too much.
fn turn_away(stream: UnixStream, turned_away: &Arc<AtomicUsize>, limit: usize) {
    if turned_away.fetch_add(1, Ordering::Relaxed) >= MAX_TURNED_AWAY {
        turned_away.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let turned_away = Arc::clone(turned_away);
    tokio::spawn(async move {
        let message = format!("{limit} connections are open already; close some, or ask again later");
        connection::turn_away(stream, HelloRefusalCode::Overloaded, &message).await;
        turned_away.fetch_sub(1, Ordering::Relaxed);
    });
}
