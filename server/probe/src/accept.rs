//! Connections: how many at a time, what happens when the system gives none, and how they end.

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

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

/// Bytes that come and go.
pub trait Duplex: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Duplex for S {}

/// A connection of whatever kind, for a listener that has several.
pub type AnyStream = Box<dyn Duplex + Unpin + Send>;

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    open: JoinSet<()>,
    /// Whether the last attempt to accept failed, so that a lasting failure is said once.
    failing: bool,
}

/// The permission for one connection. Given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// At most so many at a time; further ones wait in the system's queue.
    pub fn at_most(places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, open: JoinSet::new(), failing: false }
    }

    /// As many as come: whoever accepts sees to it that they do not become too many.
    pub fn unbounded() -> Self {
        Self::at_most(Semaphore::MAX_PERMITS)
    }

    /// The next connection, once there is a place for it. Where the system gives none, tries again after a pause.
    /// Dropping the future loses no connection.
    pub async fn next<L: Listen>(&mut self, listener: &mut L) -> (L::Stream, L::Peer, Permit) {
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

    /// Serves a connection, which keeps its place until it ends. The answer cuts it off.
    pub fn spawn(&mut self, permit: Permit, serve: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.open.spawn(async move {
            serve.await;
            drop(permit);
        })
    }

    /// How many are open.
    pub fn count(&mut self) -> usize {
        while self.open.try_join_next().is_some() {}
        self.open.len()
    }

    /// Waits until all have ended, at most this long. Those that have not are cut off, and the log says how many.
    /// The answer is that number.
    pub async fn drain(mut self, patience: Duration) -> usize {
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
        let (ended, mut connections) = (Arc::new(AtomicUsize::new(0)), Connections::unbounded());
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
}
