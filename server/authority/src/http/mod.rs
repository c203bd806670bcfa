//! The service over HTTP: `Options`, then a bound `Service`, which runs until it is told to stop.
//!
//! Connections are bounded in number and in life, requests in size, time and number at work. Strangers leave nothing behind
//! but a counter of their source, and of those there is a bounded number.

mod code;
mod counters;
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
use core::time::Duration;
use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::AnyStream;
use obol_probe::contract::Address;
use obol_probe::front::{self, Front, Grip};
use obol_probe::health::Health;
use obol_probe::http::{Bounds, serve_for};
use obol_probe::stop::Stop;
use obol_probe::tls::CertificateError;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tower::ServiceExt as _;

pub use self::code::ProblemCode;
use self::counters::{Counters, Seen};
use self::lasting::Lasting;
use self::routes::{Peer, Shared};
use self::ssf::Streams;
#[cfg(feature = "people")]
use crate::asking::Asking;
use crate::authority::{Authority, Now};
use crate::mail::Mail;
use crate::remote::Operator;
use crate::ssf::Events;
pub use obol_probe::contract::{BindError, Ended};
pub use obol_probe::rate::Rate;
pub use obol_probe::tls::{Certificate, TLS13};

/// How often one source may send a message of each kind: a second, and at once.
const RATE: (u32, u32) = (20, 40);
const BOUNDS: Bounds = Bounds {
    header_timeout: Duration::from_secs(10),
    max_header_bytes: 16 << 10,
    // Bounded here instead, as long as no stream runs.
    life: None,
    keep_alive: true,
};
/// How long a connection may live. Answers are small but for streams, so this is what bounds a peer that reads none of them.
const LIFE: Duration = Duration::from_secs(300);
/// How often it is looked for events that nobody was woken for.
const DISPATCH_EVERY: Duration = Duration::from_millis(500);
/// How often what is over is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    front: front::Options,
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
            front: front::Options::new(listen),
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
        self.front = self.front.certificate(certificate);
        self
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`, on this loopback address.
    #[must_use]
    pub fn http_at(mut self, address: SocketAddr) -> Self {
        self.front = self.front.http_at(address);
        self
    }

    /// The most connections at a time; 4,096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.front = self.front.max_connections(connections);
        self
    }

    /// How long requests under way may take when the service stops; 10 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.front = self.front.drain_timeout(timeout);
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
        self.front.check()
    }

    /// Takes the addresses. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind(self, authority: Arc<Authority>) -> Result<Service, BindError> {
        let Self { front, rate, events, mail, operator, .. } = self;
        let front = front.take().await?;
        let (counters, stop) = (Arc::new(Counters::default()), front.stop());
        let parts = (Arc::clone(&authority), Arc::clone(&counters), operator);
        let shared = Shared::new(parts, rate, stop.clone(), events.clone());
        let routes = routes::router(Arc::new(shared));
        #[cfg(feature = "people")]
        let routes = match self.providers.clone() {
            None => routes,
            Some(providers) => {
                let kept = pages::Kept { policies: self.policies, events: events.clone() };
                let pages = pages::Pages::new(Arc::clone(&authority), providers, kept, rate);
                routes.merge(pages::router(Arc::new(pages)))
            }
        };
        let routes = match &events {
            None => routes,
            Some(events) => {
                let (events, authority, counters) =
                    (Arc::clone(events), Arc::clone(&authority), Arc::clone(&counters));
                let streams = Streams::new(events, authority, counters, rate, stop);
                routes.merge(ssf::router(Arc::new(streams)))
            }
        };
        let routes = match front.is_loopback() {
            true => meant::for_us(routes, authority.settings().origin(), Arc::clone(&counters)),
            false => routes,
        };
        Ok(Service {
            watched: Arc::new(Watched { authority, counters }),
            routes,
            front,
            events,
            mail,
            #[cfg(feature = "people")]
            providers: self.providers,
        })
    }
}

/// Steers a service from elsewhere, running or not. Dropping it does nothing. What can be reloaded is the certificate; policy and whose
/// word is taken change in what the service was made of.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The directory ends with the service, whoever still has a handle.
    watched: Weak<Watched>,
    grip: Grip,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.grip.stop();
    }

    /// Where it listens: for agents and resource servers, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        self.grip.addresses()
    }

    /// Reads the certificate again, where there is one.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names the file that cannot be used; the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<(), CertificateError> {
        self.grip.reload_certificate()
    }

    /// Whether sessions can be opened and ended.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        self.watched.upgrade().map_or_else(|| Err("stopped".to_owned()), |watched| watched.ready())
    }
}

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    watched: Arc<Watched>,
    routes: axum::Router,
    front: Front,
    events: Option<Arc<Events>>,
    mail: Option<Arc<Mail>>,
    #[cfg(feature = "people")]
    providers: Option<Arc<crate::identity::Providers>>,
}

impl Service {
    /// A handle to steer this service with.
    pub fn handle(&self) -> Handle {
        Handle { watched: Arc::downgrade(&self.watched), grip: self.front.grip() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let mut beside = self.beside();
        let Self { watched, routes, front, mail, .. } = self;
        let authority = &watched.authority;
        // Its tasks end when it is dropped.
        let _mailing = mail.as_ref().map(|mail| mail.run(authority.notices(), authority.settings().origin()));
        let health = Arc::clone(&watched);
        let one = move |stream, peer, stop| connection(stream, peer, routes.clone(), stop);
        let ended = front.serve(shutdown, health, one).await;
        beside.shutdown().await;
        ended
    }

    /// What runs beside the serving. It ends when the answer is dropped.
    fn beside(&self) -> JoinSet<()> {
        let authority = &self.watched.authority;
        let mut tasks = JoinSet::new();
        tasks.spawn(forget(Arc::clone(authority)));
        tasks.spawn(dispatch(Arc::clone(authority)));
        if let Some(events) = &self.events {
            tasks.spawn(Arc::clone(events).run(Arc::clone(authority), now));
        }
        let attesting = Arc::clone(authority);
        tasks.spawn(async move { attesting.attestors().run(|| now().secs()).await });
        #[cfg(feature = "people")]
        if let Some(all) = self.providers.clone().filter(|all| all.ask_for_calls()) {
            tasks.spawn(Asking::new(all, Arc::clone(authority), now).run(authority.notices().listen()));
        }
        tasks
    }
}

async fn connection(stream: AnyStream, peer: SocketAddr, routes: axum::Router, stop: Stop) {
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
    serve_for(stream, TowerToHyperService::new(routes), BOUNDS, over, &stop).await;
}

/// What `/readyz` and `/metrics` say.
#[derive(Debug)]
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
    Now::read()
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
