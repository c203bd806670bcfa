//! The loop of every server: how many connections at a time, what happens when the system gives none, and how they end.

use core::future::Future;
use core::net::SocketAddr;
use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::contract::Ended;
use crate::stop::Stop;

/// The pause after the system could not give a connection, for want of descriptors for instance.
const PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub trait Listen: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end.
    type Peer: Send;

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    ///
    /// The system gives none now, or does not say whose it is.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Answers are small, and a caller waits for each.
        let _best_effort = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

/// What may be there and may be not. Nobody comes by what is not there.
impl<L: Listen> Listen for Option<L> {
    type Stream = L::Stream;
    type Peer = L::Peer;

    async fn accept(&mut self) -> io::Result<(L::Stream, L::Peer)> {
        match self {
            Some(listener) => listener.accept().await,
            None => core::future::pending().await,
        }
    }
}

/// Bytes that come and go.
pub trait Duplex: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Duplex for S {}

/// A connection of whatever kind, for a listener that has several.
pub type AnyStream = Box<dyn Duplex + Unpin + Send>;

/// What the connections of one listener may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many there may be at a time; further ones wait in the system's queue.
    pub max_connections: usize,
    /// How long what is under way may take when the service stops.
    pub drain_timeout: Duration,
}

/// Hands each connection to `each`, with its place, until `shutdown` resolves or the word to stop is said. Then the word is said,
/// nobody new comes in, what is under way gets its time, and what is left is cut off.
pub async fn accept<L: Listen>(
    mut listener: L,
    limits: Limits,
    stop: &Stop,
    shutdown: impl Future<Output = ()>,
    mut each: impl FnMut(L::Stream, L::Peer, Place<'_>),
) -> Ended {
    let mut connections = Connections::at_most(limits.max_connections);
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = &mut shutdown => break,
            () = stop.said() => break,
            next = connections.next(&mut listener) => next,
        };
        each(stream, peer, Place { connections: &mut connections, permit });
    }
    // Closed before the word is said here: who hears it finds nobody who still accepts.
    drop(listener);
    stop.say();
    Ended { cut_off: connections.drain(limits.drain_timeout).await }
}

/// The place of a connection among those that are open. Dropping it gives it back.
#[derive(Debug)]
pub struct Place<'c> {
    connections: &'c mut Connections,
    permit: Permit,
}

impl Place<'_> {
    /// Serves the connection, which keeps its place until it ends. The answer cuts it off.
    pub fn serve(self, serve: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.connections.spawn(self.permit, serve)
    }
}

/// The connections of one listener.
#[derive(Debug)]
struct Connections {
    places: Arc<Semaphore>,
    open: JoinSet<()>,
    /// Whether the last attempt to accept failed, so that a lasting failure is said once.
    failing: bool,
}

/// The permission for one connection. Given back when it is dropped.
#[derive(Debug)]
struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connections {
    fn at_most(places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, open: JoinSet::new(), failing: false }
    }

    /// The next connection, once there is a place for it. Where the system gives none, tries again after a pause.
    /// Dropping the future loses no connection.
    async fn next<L: Listen>(&mut self, listener: &mut L) -> (L::Stream, L::Peer, Permit) {
        // Nobody closes the semaphore.
        let permit = self.permit().await;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if core::mem::take(&mut self.failing) {
                        tracing::info!("connections are accepted again");
                    }
                    return (stream, peer, Permit { _permit: permit });
                }
                Err(error) => {
                    if !core::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "cannot accept connections for now; those that are open go on");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes ended connections off the list on the way: it holds no more than are open.
    async fn permit(&mut self) -> Option<OwnedSemaphorePermit> {
        while self.open.try_join_next().is_some() {}
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn spawn(&mut self, permit: Permit, serve: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.open.spawn(async move {
            serve.await;
            drop(permit);
        })
    }

    /// How many are open.
    fn count(&mut self) -> usize {
        while self.open.try_join_next().is_some() {}
        self.open.len()
    }

    /// Waits until all have ended, at most this long. Those that have not are cut off, and the log says how many.
    /// The answer is that number.
    async fn drain(mut self, patience: Duration) -> usize {
        let all = async { while self.open.join_next().await.is_some() {} };
        if timeout(patience, all).await.is_ok() {
            return 0;
        }
        let left = self.count();
        if left > 0 {
            tracing::warn!(connections = left, "connections did not end in time and were cut off");
        }
        self.open.shutdown().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fails so many times before each connection.
    struct Stubborn {
        failures: usize,
        tried: usize,
    }

    impl Listen for Stubborn {
        type Stream = DuplexStream;
        type Peer = ();

        async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
            self.tried += 1;
            if self.tried <= self.failures {
                return Err(io::Error::other("no descriptors"));
            }
            Ok((tokio::io::duplex(1).0, ()))
        }
    }

    fn willing() -> Stubborn {
        Stubborn { failures: 0, tried: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_costs_a_pause_and_no_connection() {
        let (mut connections, mut listener) = (Connections::at_most(1), Stubborn { failures: 3, tried: 0 });
        let start = Instant::now();
        connections.next(&mut listener).await;
        assert_eq!((listener.tried, start.elapsed()), (4, 3 * PAUSE));
        assert!(!connections.failing);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_waits_until_one_has_ended() {
        let mut connections = Connections::at_most(1);
        let (_, (), permit) = connections.next(&mut willing()).await;
        connections.spawn(permit, sleep(SECOND));
        let start = Instant::now();
        let mut listener = willing();
        assert!(timeout(SECOND / 2, connections.next(&mut listener)).await.is_err());
        assert_eq!(listener.tried, 0, "it stays in the system's queue");
        connections.next(&mut listener).await;
        assert_eq!(start.elapsed(), SECOND);
        assert_eq!(connections.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off_and_counted() {
        let (ended, mut connections) = (Arc::new(AtomicUsize::new(0)), Connections::at_most(usize::MAX));
        for seconds in [1, 2, 600, 700] {
            let (_, (), permit) = connections.next(&mut willing()).await;
            let ended = Arc::clone(&ended);
            connections.spawn(permit, async move {
                sleep(SECOND * seconds).await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        let start = Instant::now();
        assert_eq!(connections.drain(5 * SECOND).await, 2);
        assert_eq!((start.elapsed(), ended.load(Ordering::Relaxed)), (5 * SECOND, 2));
        sleep(1_000 * SECOND).await;
        assert_eq!(ended.load(Ordering::Relaxed), 2, "cut off is cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_where_nothing_is_open() {
        let start = Instant::now();
        assert_eq!(Connections::at_most(4).drain(5 * SECOND).await, 0);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// Gives the same connections as [`Stubborn`] and says when it is dropped.
    struct Counted(Stubborn, Arc<AtomicUsize>);

    impl Listen for Counted {
        type Stream = DuplexStream;
        type Peer = ();

        async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
            if self.0.tried == 3 {
                return core::future::pending().await;
            }
            self.0.accept().await
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_ends_by_either_word_with_its_listener_gone_and_says_what_it_cut_off() {
        for by_shutdown in [true, false] {
            let (stop, closed) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
            let limits = Limits { max_connections: 8, drain_timeout: 5 * SECOND };
            let shutdown = async {
                sleep(SECOND).await;
                if !by_shutdown {
                    stop.say();
                    core::future::pending::<()>().await;
                }
            };
            let (mut seen, start) = (0, Instant::now());
            let ended =
                accept(Counted(willing(), Arc::clone(&closed)), limits, &stop, shutdown, |_, (), place| {
                    seen += 1;
                    let (stop, closed, hangs) = (stop.clone(), Arc::clone(&closed), seen == 1);
                    // The second is turned away: its place is given back.
                    if seen != 2 {
                        place.serve(async move {
                            stop.said().await;
                            // Where the word comes from elsewhere, loop and connection hear it at one moment.
                            if by_shutdown {
                                assert_eq!(
                                    closed.load(Ordering::Relaxed),
                                    1,
                                    "it is said once nobody comes in"
                                );
                            }
                            if hangs {
                                core::future::pending::<()>().await;
                            }
                        });
                    }
                });
            assert_eq!(ended.await, Ended { cut_off: 1 });
            assert_eq!(closed.load(Ordering::Relaxed), 1);
            assert_eq!((seen, start.elapsed()), (3, 6 * SECOND));
            assert!(stop.is_said());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_comes_by_a_listener_that_is_not_there() {
        let (stop, limits) = (Stop::new(), Limits { max_connections: 1, drain_timeout: SECOND });
        let ended =
            accept(None::<Stubborn>, limits, &stop, sleep(SECOND), |_, (), _| panic!("somebody came"));
        assert_eq!(ended.await, Ended { cut_off: 0 });
    }
}
