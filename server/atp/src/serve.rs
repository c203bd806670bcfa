//! The provider as a process: bounded connections, with TLS or on loopback alone, drained before it stops.

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, Weak};

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use obol_probe::accept::AnyStream;
use obol_probe::contract::{Address, Ended};
use obol_probe::front::{Front, Grip, Serve};
use obol_probe::health::Health;
use obol_probe::http::{Bounds, serve};
use obol_probe::stop::Stop;
use tokio::time::MissedTickBehavior;
use tower::ServiceExt as _;

use crate::builder::BuildError;
use crate::router::{Peer, Router};
use crate::secrets::SecretBook;

pub use obol_probe::contract::BindError;
pub use obol_probe::front::Options;
pub use obol_probe::tls::{Certificate, CertificateError, TLS12_AND_13};

/// How often what has ended is forgotten.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds {
    header_timeout: Duration::from_secs(10),
    // A token has 7 KiB at most.
    max_header_bytes: 32 << 10,
    // Answers are small, so this is what bounds a peer that reads none of them.
    life: Some(Duration::from_secs(300)),
    keep_alive: true,
};

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    router: Arc<Router>,
    routes: axum::Router,
    front: Front,
}

/// Steers a provider from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The store ends with the service, whoever still has a handle.
    router: Weak<Router>,
    grip: Grip,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.grip.stop();
    }

    /// Takes another list of who may ask; tokens of agents and masters that are gone end with it.
    ///
    /// # Errors
    /// [`BuildError`] if a secret is also a JWT key; the list stays as it was.
    pub fn reload(&self, secrets: SecretBook) -> Result<(), BuildError> {
        self.router.upgrade().map_or(Ok(()), |router| router.reload(secrets))
    }

    /// Reads the certificate again, where there is one.
    ///
    /// # Errors
    /// [`CertificateError`] names the file that cannot be used; the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<(), CertificateError> {
        self.grip.reload_certificate()
    }

    /// Where it listens: for agents, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        self.grip.addresses()
    }

    /// Whether tokens can be issued now.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        self.router.upgrade().map_or_else(|| Err("stopped".to_owned()), |router| router.ready())
    }
}

impl Health for Router {
    fn ready(&self) -> Result<(), String> {
        match self.not_ready() {
            None => Ok(()),
            Some(reason) => Err(reason.to_owned()),
        }
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}

impl Serve for Router {
    type Service = Service;

    fn on(self, front: Front) -> Service {
        let routes = axum::Router::new().merge(self.well_known()).nest(self.path(), self.clone().into());
        Service { router: Arc::new(self), routes, front }
    }
}

impl Service {
    /// A handle to steer this provider with.
    pub fn handle(&self) -> Handle {
        Handle { router: Arc::downgrade(&self.router), grip: self.front.grip() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { router, routes, front } = self;
        let stop = front.stop();
        let served = front.serve(shutdown, Arc::clone(&router), move |stream, peer, stop| {
            connection(stream, peer, routes.clone(), stop)
        });
        tokio::join!(served, maintain(&router, &stop)).0
    }
}

/// Forgets what has ended, until the service does.
async fn maintain(router: &Router, stop: &Stop) {
    let mut turns = tokio::time::interval(MAINTAIN_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.said() => return,
            _ = turns.tick() => router.maintain().await,
        }
    }
}

async fn connection(stream: AnyStream, peer: SocketAddr, routes: axum::Router, stop: Stop) {
    let routes = routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.map(Body::new)
    });
    serve(stream, TowerToHyperService::new(routes), BOUNDS, &stop).await;
}
