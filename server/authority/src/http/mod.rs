//! The service over HTTP: `Options`, then a bound `Service`, which runs until it is told to stop.
//!
//! Connections are bounded in number and in life, requests in size, time and number at work. Strangers leave nothing behind
//! but a counter of their source, and of those there is a bounded number.

mod code;
mod counters;
mod error;
mod events;
mod lasting;
mod load;
mod meant;
#[cfg(feature = "people")]
mod pages;
mod problem;
mod routes;
mod ssf;
mod stream;

use core::future::Future;
use core::net::SocketAddr;
use core::pin::pin;
use core::time::Duration;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::{AnyStream, Connections};
use obol_probe::health::{self, Health, Loopback};
use obol_probe::http::{Bounds, serve_for};
use obol_probe::stop::Stop;
use obol_probe::tls::greet;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tower::ServiceExt as _;

pub use self::code::ProblemCode;
use self::counters::{Counters, Seen};
pub use self::error::BindError;
use self::lasting::Lasting;
use self::routes::{Peer, Shared};
use self::ssf::Streams;
#[cfg(feature = "people")]
use crate::asking::Asking;
use crate::authority::{Authority, Now};
use crate::mail::Mail;
use crate::remote::Operator;
use crate::ssf::Events;
pub use obol_probe::contract::Ended;
pub use obol_probe::rate::Rate;
pub use obol_probe::tls::{Certificate, TLS13};

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How often one source may send a message of each kind: a second, and at once.
const RATE: (u32, u32) = (20, 40);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const BOUNDS: Bounds = Bounds {
    header_timeout: Duration::from_secs(10),
    max_header_bytes: 16 << 10,
    // Bounded here instead, as long as no stream runs.
    life: None,
    keep_alive: true,
};
/// How long a connection may live. Answers are small but for streams, so this is what bounds a peer that reads none of them.
const LIFE: Duration = Duration::from_secs(300);
/// How long requests under way may take when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked for events that nobody was woken for.
const DISPATCH_EVERY: Duration = Duration::from_millis(500);
/// How often what is over is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    listen: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    probes: Option<SocketAddr>,
    max_connections: usize,
    rate: Option<Rate>,
    events: Option<Arc<Events>>,
    mail: Option<Arc<Mail>>,
    operator: Option<Arc<dyn Operator>>,
    #[cfg(feature = "people")]
    providers: Option<Arc<crate::identity::Providers>>,
    #[cfg(feature = "people")]
    policies: Option<Arc<crate::policy::Policies>>,
}

impl Options {
    /// On this address; without TLS it must be loopback.
    pub fn new(listen: SocketAddr) -> Self {
        let rate = Rate::new(RATE.0).map(|rate| rate.with_burst(RATE.1));
        Self {
            listen,
            certificate: None,
            probes: None,
            max_connections: MAX_CONNECTIONS,
            rate,
            events: None,
            mail: None,
            operator: None,
            #[cfg(feature = "people")]
            providers: None,
            #[cfg(feature = "people")]
            policies: None,
        }
    }

    /// Serves the pages where humans decide, who log in with one of these providers.
    #[cfg(feature = "people")]
    #[must_use]
    pub fn providers(mut self, providers: impl Into<crate::identity::Providers>) -> Self {
        self.providers = Some(Arc::new(providers.into()));
        self
    }

    /// Shows the versions of the policy in the console, and puts them in force from there.
    #[cfg(feature = "people")]
    #[must_use]
    pub fn policies(mut self, policies: Arc<crate::policy::Policies>) -> Self {
        self.policies = Some(policies);
        self
    }

    /// With TLS.
    #[must_use]
    pub fn certificate(mut self, certificate: Arc<Certificate>) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Serves `/livez`, `/readyz` and `/metrics` on this address of loopback.
    #[must_use]
    pub fn probes(mut self, address: SocketAddr) -> Self {
        self.probes = Some(address);
        self
    }

    /// The most connections at a time; 4,096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How often one source may send a message of each kind; 20 a second, 40 at once. `None` for no limit. Many agents may
    /// share one address.
    #[must_use]
    pub fn rate(mut self, rate: Option<Rate>) -> Self {
        self.rate = rate;
        self
    }

    /// Listens to security events, and fetches the keys they are signed with.
    #[must_use]
    pub fn events(mut self, events: Arc<Events>) -> Self {
        self.events = Some(events);
        self
    }

    /// Tells by e-mail of what waits for a human, and of alarms.
    #[must_use]
    pub fn mail(mut self, mail: Arc<Mail>) -> Self {
        self.mail = Some(mail);
        self
    }

    /// Has operators of other machines answered by this, who logged in.
    #[must_use]
    pub fn operator(mut self, operator: Arc<dyn Operator>) -> Self {
        self.operator = Some(operator);
        self
    }

    /// Whether these addresses may be taken at all.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why one may not.
    pub fn check(&self) -> Result<(), BindError> {
        if !self.listen.ip().is_loopback() && self.certificate.is_none() {
            return Err(BindError::Remote(self.listen));
        }
        self.probes.map_or(Ok(()), Loopback::check).map_err(BindError::from)
    }

    /// Takes the addresses. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(mut self, authority: Arc<Authority>) -> Result<Service, BindError> {
        self.check()?;
        let (public, local_addr) = bind(self.listen).await?;
        let probes = self.probes.map(Loopback::bind).transpose()?;
        let probe_addr = match &probes {
            None => None,
            Some(probes) => Some(probes.local_addr().map_err(|error| BindError::Io(self.listen, error))?),
        };
        let counters = Arc::new(Counters::default());
        let stop = Stop::new();
        let events = self.events.clone();
        let operator = self.operator.take();
        let parts = (Arc::clone(&authority), Arc::clone(&counters), operator);
        let shared = Shared::new(parts, self.rate, stop.clone(), events);
        let routes = routes::router(Arc::new(shared));
        #[cfg(feature = "people")]
        let routes = match self.providers.clone() {
            None => routes,
            Some(providers) => {
                let (policies, events) = (self.policies.clone(), self.events.clone());
                let kept = pages::Kept { policies, events };
                let pages = pages::Pages::new(Arc::clone(&authority), providers, kept, self.rate);
                routes.merge(pages::router(Arc::new(pages)))
            }
        };
        let routes = match &self.events {
            None => routes,
            Some(events) => {
                let (events, authority, counters) =
                    (Arc::clone(events), Arc::clone(&authority), Arc::clone(&counters));
                let streams = Streams::new(events, authority, counters, self.rate, stop.clone());
                routes.merge(ssf::router(Arc::new(streams)))
            }
        };
        let routes = match local_addr.ip().is_loopback() {
            true => meant::for_us(routes, authority.settings().origin(), Arc::clone(&counters)),
            false => routes,
        };
        Ok(Service {
            routes,
            public,
            probes,
            counters,
            authority,
            addresses: Addresses { public: local_addr, probes: probe_addr },
            stop,
            options: self,
        })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |error| BindError::Io(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Where a service listens, with the ports that the system chose where none were given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// For agents and resource servers.
    pub public: SocketAddr,
    /// For health and metrics.
    pub probes: Option<SocketAddr>,
}

/// Speaks to a service that runs. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    authority: Arc<Authority>,
    addresses: Addresses,
    stop: Stop,
}

impl Handle {
    /// Ends the service, without waiting for it.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Whether sessions can be opened and ended.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn health(&self) -> Result<(), String> {
        self.authority.health()
    }
}

/// The service, with its addresses.
#[derive(Debug)]
pub struct Service {
    authority: Arc<Authority>,
    routes: axum::Router,
    public: TcpListener,
    probes: Option<Loopback>,
    counters: Arc<Counters>,
    addresses: Addresses,
    stop: Stop,
    options: Options,
}

impl Service {
    /// What others speak to it with while it runs.
    pub fn handle(&self) -> Handle {
        Handle { authority: Arc::clone(&self.authority), addresses: self.addresses, stop: self.stop.clone() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Ended {
        let forgetting = tokio::spawn(forget(Arc::clone(&self.authority)));
        let dispatching = tokio::spawn(dispatch(Arc::clone(&self.authority)));
        let events = self.options.events.clone();
        let listening = events.map(|events| tokio::spawn(events.run(Arc::clone(&self.authority), now)));
        let attesting = Arc::clone(&self.authority);
        let attesting = tokio::spawn(async move { attesting.attestors().run(|| now().secs()).await });
        // Its tasks end when it is dropped.
        let _mailing = self
            .options
            .mail
            .as_ref()
            .map(|mail| mail.run(self.authority.notices(), self.authority.settings().origin()));
        #[cfg(feature = "people")]
        let _asking = self.options.providers.clone().filter(|all| all.ask_for_calls()).map(|all| {
            let (asking, heard) =
                (Asking::new(all, Arc::clone(&self.authority), now), self.authority.notices().listen());
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(asking.run(heard));
            tasks
        });
        let health = Watched { authority: Arc::clone(&self.authority), counters: Arc::clone(&self.counters) };
        let (probes, stop) = (self.probes.take(), self.stop.clone());
        let watched = async {
            if let Some(probes) = probes {
                health::serve(probes, Arc::new(health), &stop).await;
            }
        };
        let (ended, ()) = tokio::join!(self.serve(shutdown), watched);
        forgetting.abort();
        dispatching.abort();
        attesting.abort();
        if let Some(listening) = listening {
            listening.abort();
        }
        ended
    }

    async fn serve(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { routes, mut public, stop, options, .. } = self;
        let mut connections = Connections::at_most(options.max_connections);
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, peer, permit) = tokio::select! {
                () = &mut shutdown => break,
                () = stop.said() => break,
                next = connections.next(&mut public) => next,
            };
            let (routes, stop) = (routes.clone(), stop.clone());
            let certificate = options.certificate.clone();
            connections.spawn(permit, async move {
                if let Some(stream) = greet(certificate.as_deref(), stream, HANDSHAKE_TIMEOUT).await {
                    connection(stream, peer, routes, &stop).await;
                }
            });
        }
        drop(public);
        stop.say();
        Ended { cut_off: connections.drain(DRAIN_TIMEOUT).await }
    }
}

async fn connection(stream: AnyStream, peer: SocketAddr, routes: axum::Router, stop: &Stop) {
    let lasting = Lasting::default();
    let of_requests = lasting.clone();
    let routes = routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(of_requests.clone());
        request.map(Body::new)
    });
    let over = async {
        tokio::time::sleep(LIFE).await;
        while lasting.is_kept() {
            tokio::time::sleep(LIFE).await;
        }
    };
    serve_for(stream, TowerToHyperService::new(routes), BOUNDS, over, stop).await;
}

/// What `/readyz` and `/metrics` say.
struct Watched {
    authority: Arc<Authority>,
    counters: Arc<Counters>,
}

impl Health for Watched {
    fn ready(&self) -> Result<(), String> {
        self.authority.health()
    }

    fn metrics(&self) -> String {
        self.counters.text(&Seen {
            not_ready: self.authority.not_ready(),
            streams: self.authority.hub().count(),
            stolen_tokens: self.authority.stolen_tokens(),
            notices_left_out: self.authority.notices().left_out(),
            audit: self.authority.audit_seen(),
        })
    }
}

/// The time, read once for each request.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

/// Forgets what is over, now and then.
async fn forget(authority: Arc<Authority>) {
    let mut due = tokio::time::interval(FORGET_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let began = Instant::now();
        loop {
            let authority = Arc::clone(&authority);
            let now = now().secs();
            let done = tokio::task::spawn_blocking(move || authority.directory().forget(now)).await;
            match done {
                Ok(Ok(true)) if began.elapsed() < FORGET_EVERY => {}
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    tracing::error!(%error, "what is over could not be forgotten");
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// Hands out events as they are committed.
async fn dispatch(authority: Arc<Authority>) {
    let mut head = authority.directory().head();
    loop {
        head.mark_unchanged();
        let handing = Arc::clone(&authority);
        let done = tokio::task::spawn_blocking(move || handing.dispatch()).await;
        if let Ok(Err(error)) = done {
            tracing::error!(%error, "events could not be read, so nobody hears of them");
        }
        // Also without being woken, should a commit have been another's.
        let _woken = tokio::time::timeout(DISPATCH_EVERY, head.changed()).await;
    }
}
