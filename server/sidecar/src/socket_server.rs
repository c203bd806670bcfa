//! One socket and all connections on it: who gets in, and what becomes of the socket's path.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use obol_ipc::Protocol;
use obol_ipc::hello::HelloRefusalCode;
use obol_ipc::names::PeerName;
use obol_ipc::user::name_of;
use obol_probe::accept::{Limits, Listen, Place, accept};
use obol_probe::stop::Stop;
use tokio::net::UnixStream;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::connection::{self, Answerer};
use crate::limits::Peers;
use crate::listener::{Listener, PathState, Peer};
use crate::owner::Owner;

/// Connections on the operator's socket at a time.
pub(crate) const MAX_CONTROL_CONNECTIONS: usize = 16;
/// Connections that are being told that there are too many, at a time; more are closed without a word.
const MAX_TURNED_AWAY: usize = 64;
/// How long connections may take over what is under way once the daemon stops, unless told otherwise.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two lines of the log about users who are not served.
const STRANGERS_PAUSE: Duration = Duration::from_secs(1);
/// How often a socket's path is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// One socket, who answers on it, and who is connected.
pub(crate) struct SocketServer<P, A> {
    listener: Listener,
    desk: Desk<P, A>,
    any_lost: Arc<AtomicUsize>,
}

impl<P: Protocol, A: Answerer<P>> SocketServer<P, A> {
    pub(crate) fn new(
        listener: Listener,
        answerer: Arc<A>,
        peers: Arc<Peers>,
        server: PeerName,
        any_lost: Arc<AtomicUsize>,
    ) -> Self {
        let (turned_away, strangers) = (Arc::default(), Strangers::default());
        let desk = Desk { answerer, peers, server, turned_away, strangers, protocol: PhantomData };
        Self { listener, desk, any_lost }
    }

    /// The socket.
    pub(crate) const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Accepts connections until the daemon stops, then waits for those that are open. The answer is how many of these
    /// were cut off.
    pub(crate) async fn serve(self, stop: &Stop, drain_timeout: Duration) -> usize {
        let Self { listener, mut desk, any_lost } = self;
        // How many may come is said by the limits of their owners.
        let limits = Limits { max_connections: usize::MAX, drain_timeout };
        let each = |stream, peer, place: Place<'_>| match peer {
            Peer::Served(owner) => desk.admit(stream, owner, place, stop),
            Peer::Stranger(uid) => desk.strangers.turn_away(stream, uid),
        };
        accept(Watched::new(listener, any_lost), limits, stop, core::future::pending(), each).await.cut_off
    }
}

/// Who gets in.
struct Desk<P, A> {
    answerer: Arc<A>,
    peers: Arc<Peers>,
    server: PeerName,
    turned_away: Arc<AtomicUsize>,
    strangers: Strangers,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol, A: Answerer<P>> Desk<P, A> {
    /// Serves a connection if there is room for its owner: who holds most gives way.
    fn admit(&self, stream: UnixStream, owner: Owner, place: Place<'_>, stop: &Stop) {
        match self.peers.admit(owner) {
            Ok(account) => {
                let (answerer, server) = (Arc::clone(&self.answerer), self.server.clone());
                let (stop, seat) = (stop.clone(), account.seat());
                let task = place.serve(async move {
                    if let Err(error) =
                        connection::serve::<P, A>(stream, answerer, server, account, stop).await
                    {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
                seat.is_served_by(task);
            }
            Err(limit) => {
                let message = format!("{limit} connections are open already; close some, or ask again later");
                turn_away(stream, &self.turned_away, HelloRefusalCode::Overloaded, message);
            }
        }
    }
}

/// A socket whose path is looked after while it is listened on.
struct Watched {
    listener: Listener,
    due: Interval,
    /// Whether the path of this socket is lost, so that it is said once; and what `/readyz` looks at.
    lost: bool,
    any_lost: Arc<AtomicUsize>,
}

impl Listen for Watched {
    type Stream = UnixStream;
    type Peer = Peer;

    async fn accept(&mut self) -> io::Result<(UnixStream, Peer)> {
        loop {
            tokio::select! {
                _ = self.due.tick() => self.look_after(),
                accepted = self.listener.accept() => return accepted,
            }
        }
    }
}

impl Watched {
    fn new(listener: Listener, any_lost: Arc<AtomicUsize>) -> Self {
        let mut due = interval(LOOK_AFTER);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { listener, due, lost: false, any_lost }
    }

    fn look_after(&mut self) {
        let lost = match self.listener.look_after() {
            PathState::Intact => false,
            PathState::Restored => {
                tracing::warn!(path = %self.listener.path().display(), "the socket was removed; there is a new one");
                false
            }
            PathState::Lost(error) => {
                if !self.lost {
                    tracing::error!(%error, "the socket was removed or replaced; nobody new can connect");
                }
                true
            }
        };
        match (core::mem::replace(&mut self.lost, lost), lost) {
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
            let connections = core::mem::take(&mut self.unsaid);
            tracing::warn!(uid, connections, "a user who is not served was turned away");
            self.said = Some(Instant::now());
        }
    }
}
