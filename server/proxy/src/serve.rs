//! The proxy on its sockets, and whom it is for.

use core::fmt;
use core::net::SocketAddr;
use core::pin::Pin;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Weak};

use hyper::service::service_fn;
use obol_probe::accept::{Limits, Listen, Place, accept};
use obol_probe::contract::{Address, BindCause, BindError, Ended};
use obol_probe::http::{Bounds, serve};
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::owner::{Caller, Owners};
use crate::proxy::Proxy;

/// The most connections of one socket at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// The most that is read before a request's head must be complete, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How long a request's head may take to arrive, also after the request before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection of somebody else's lasts: long enough to be told why it is not served.
const STRANGERS_LIFE: Duration = Duration::from_secs(2);
/// How long a program may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take when the service stops, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const BOUNDS: Bounds = Bounds {
    header_timeout: HEADER_TIMEOUT,
    max_header_bytes: MAX_HEADER_BYTES,
    life: None,
    keep_alive: true,
};

const STRANGERS: Bounds = Bounds {
    header_timeout: STRANGERS_LIFE,
    max_header_bytes: MAX_HEADER_BYTES,
    life: Some(STRANGERS_LIFE),
    keep_alive: false,
};

/// Whom a proxy is for, by a user's number.
pub type Admits = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// A loopback address whose connections are looked up.
pub struct Looked {
    listener: TcpListener,
    address: SocketAddr,
    owners: Owners,
    admits: Admits,
}

impl fmt::Debug for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looked").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Looked {
    /// Takes the address. To be called within a runtime, and outside the sandbox.
    ///
    /// # Errors
    ///
    /// It is taken, other machines can reach it, or the kernel does not say whose connections are.
    pub fn bind(address: SocketAddr, owners: Owners, admits: Admits) -> Result<Self, BindError> {
        let at = Address::Tcp(address);
        if !address.ip().is_loopback() {
            let advice = "tokens would be drawn for other machines; name 127.0.0.1 or [::1]";
            return Err(BindError::new(at, BindCause::Remote(advice)));
        }
        let looked = Self::listen(address, owners, admits).and_then(|looked| {
            looked.try_out()?;
            Ok(looked)
        });
        looked.map_err(|error| BindError::new(at, BindCause::Io(error)))
    }

    fn listen(address: SocketAddr, owners: Owners, admits: Admits) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { address: listener.local_addr()?, listener, owners, admits })
    }

    /// Whether the kernel tells the owner of a connection at all: a proxy that could serve nobody does not start.
    fn try_out(&self) -> io::Result<()> {
        let stream = std::net::TcpStream::connect(self.address)?;
        self.owners.of(stream.local_addr()?, self.address).map(drop).map_err(|error| {
            let why = format!("this system does not say whose connections are ({error}); use --unix");
            io::Error::new(io::ErrorKind::Unsupported, why)
        })
    }

    /// The address, with the port that the system chose where none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Listen for Looked {
    type Stream = TcpStream;
    type Peer = Caller;

    async fn accept(&mut self) -> io::Result<(TcpStream, Caller)> {
        let (stream, peer) = Listen::accept(&mut self.listener).await?;
        let owner = stream.local_addr().and_then(|ours| self.owners.of(peer, ours));
        let caller = match owner {
            Ok(uid) if (self.admits)(uid) => Caller::Admitted { by_tcp: true },
            Ok(uid) => Caller::Stranger(uid),
            Err(error) => {
                tracing::debug!(%error, "a connection whose owner is not known");
                Caller::Unknown
            }
        };
        Ok((stream, caller))
    }
}

/// A listener that gives only connections of those whom the proxy is for.
#[derive(Debug)]
struct Admitted<L>(L);

impl<L: Listen> Listen for Admitted<L> {
    type Stream = L::Stream;
    type Peer = Caller;

    async fn accept(&mut self) -> io::Result<(L::Stream, Caller)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Caller::Admitted { by_tcp: false }))
    }
}

/// A way in.
#[derive(Debug)]
pub struct Door(Way);

enum Way {
    /// To be bound.
    At(SocketAddr, Owners, Admits),
    /// Bound already: before a sandbox was entered.
    Taken(Taken),
}

struct Taken {
    address: Address,
    serve: Box<dyn FnOnce(Arc<Proxy>, Limits, Stop) -> Serving + Send>,
}

type Serving = Pin<Box<dyn Future<Output = Ended> + Send>>;

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address, ..) => address.fmt(f),
            Self::Taken(taken) => taken.fmt(f),
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Door {
    /// A loopback address, whose connections are looked up.
    pub fn looked(address: SocketAddr, owners: Owners, admits: Admits) -> Self {
        Self(Way::At(address, owners, admits))
    }

    /// A listener that is bound to this address and gives only connections of those whom the proxy is for, such as a Unix socket's.
    pub fn admitted(address: Address, listener: impl Listen + 'static) -> Self {
        Self(Way::Taken(Taken::new(address, Admitted(listener))))
    }

    fn take(self) -> Result<Taken, BindError> {
        match self.0 {
            Way::At(address, owners, admits) => Looked::bind(address, owners, admits).map(Taken::from),
            Way::Taken(taken) => Ok(taken),
        }
    }
}

impl From<Looked> for Door {
    fn from(looked: Looked) -> Self {
        Self(Way::Taken(looked.into()))
    }
}

impl From<Looked> for Taken {
    fn from(looked: Looked) -> Self {
        Self::new(Address::Tcp(looked.address), looked)
    }
}

impl Taken {
    fn new(address: Address, listener: impl Listen<Peer = Caller> + 'static) -> Self {
        let serve = |proxy: Arc<Proxy>, limits, stop: Stop| -> Serving {
            Box::pin(async move {
                let each = |stream, caller, place: Place<'_>| {
                    place.serve(connection(stream, caller, Proxy::clone(&proxy), stop.clone()));
                };
                accept(listener, limits, &stop, core::future::pending(), each).await
            })
        };
        Self { address, serve: Box::new(serve) }
    }
}

async fn connection<S>(stream: S, caller: Caller, proxy: Proxy, stop: Stop)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    // Who is not served hears why, once.
    let bounds = if matches!(caller, Caller::Admitted { .. }) { BOUNDS } else { STRANGERS };
    let service = service_fn(move |request| proxy.clone().answer(request, caller));
    serve(Patience::new(stream, WRITE_TIMEOUT), service, bounds, &stop).await;
}

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    doors: Vec<Door>,
    limits: Limits,
}

impl Options {
    /// Lets in by these doors.
    pub fn new(doors: impl IntoIterator<Item = Door>) -> Self {
        let limits = Limits { max_connections: MAX_CONNECTIONS, drain_timeout: DRAIN_TIMEOUT };
        Self { doors: doors.into_iter().collect(), limits }
    }

    /// The most connections of each door at a time; 1,024.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// How long requests under way may take when the service stops; 10 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.limits.drain_timeout = timeout;
        self
    }

    /// Takes the addresses that are not taken yet. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(self, proxy: Proxy) -> Result<Service, BindError> {
        let doors = self.doors.into_iter().map(Door::take).collect::<Result<Vec<_>, _>>()?;
        let addresses = doors.iter().map(|door| door.address.clone()).collect();
        Ok(Service { proxy: Arc::new(proxy), doors, addresses, stop: Stop::new(), limits: self.limits })
    }
}

/// The proxy, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    proxy: Arc<Proxy>,
    doors: Vec<Taken>,
    addresses: Arc<[Address]>,
    stop: Stop,
    limits: Limits,
}

/// Steers a proxy from elsewhere, running or not. Dropping it does nothing. There is nothing to reload: where tokens may go is the
/// session's to say.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The way to the sidecar ends with the service, whoever still has a handle.
    proxy: Weak<Proxy>,
    addresses: Arc<[Address]>,
    stop: Stop,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether a request would be passed on now. Whether there is a token for it is the sidecar's to say.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        self.proxy.upgrade().map_or_else(|| Err("stopped".to_owned()), |proxy| proxy.ready())
    }
}

impl Service {
    /// A handle to steer this proxy with.
    pub fn handle(&self) -> Handle {
        Handle {
            proxy: Arc::downgrade(&self.proxy),
            addresses: Arc::clone(&self.addresses),
            stop: self.stop.clone(),
        }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { proxy, doors, stop, limits, .. } = self;
        // Those that serve end when it is dropped.
        let mut serving = JoinSet::new();
        for door in doors {
            serving.spawn((door.serve)(Arc::clone(&proxy), limits, stop.clone()));
        }
        tokio::select! {
            () = shutdown => stop.say(),
            () = stop.said() => {}
        }
        let mut cut_off = 0;
        while let Some(ended) = serving.join_next().await {
            cut_off += ended.map_or(0, |ended| ended.cut_off);
        }
        Ended { cut_off }
    }
}
