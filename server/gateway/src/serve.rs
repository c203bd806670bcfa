//! The gateway on a socket.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, Weak};

use hyper::service::service_fn;
use obol_probe::accept::{Limits, Listen, Place, accept};
use obol_probe::contract::{Address, Ended};
use obol_probe::front::{Front, Grip, Run, Serve};
use obol_probe::health::Health;
use obol_probe::http::{Bounds, serve};
use obol_probe::http2;
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use obol_probe::tls::{CertificateError, Greeted};

use crate::framing::{MAX_HEAD_BYTES, MAX_HEADERS, Strict};
use crate::gateway::Gateway;

/// How long a request's head may take to arrive, also after the request before it: as long as most proxies keep a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds {
    header_timeout: HEADER_TIMEOUT,
    // What takes a refused head's place has to fit as well.
    max_header_bytes: MAX_HEAD_BYTES + 1_024,
    life: None,
    keep_alive: true,
};

/// Of a listener beside the port.
const LIMITS_BESIDE: Limits = Limits { max_connections: 1_024, drain_timeout: Duration::from_secs(10) };
/// The most requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 64;
/// What HTTP/2 counts of a head beside its bytes.
const HEADERS_BYTES: usize = MAX_HEADERS * 32;

#[expect(clippy::cast_possible_truncation, reason = "the sum is far from it")]
const BOUNDS_OF_HTTP2: http2::Bounds = http2::Bounds {
    max_streams: MAX_STREAMS,
    max_header_bytes: (MAX_HEAD_BYTES + HEADERS_BYTES) as u32,
    idle_timeout: HEADER_TIMEOUT,
    write_timeout: WRITE_TIMEOUT,
};

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    gateway: Arc<Gateway>,
    front: Front,
}

/// Steers a gateway from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The secrets end with the service, whoever still has a handle.
    gateway: Weak<Gateway>,
    grip: Grip,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.grip.stop();
    }

    /// Where it listens: for agents, and for those who watch it.
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

    /// Whether tokens can be verified and spent now.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn health(&self) -> Result<(), String> {
        self.gateway.upgrade().map_or_else(|| Err("stopped".to_owned()), |gateway| gateway.ready())
    }
}

impl Health for Gateway {
    fn ready(&self) -> Result<(), String> {
        self.gate().health().map_err(|denial| denial.detail.into_owned())
    }

    fn metrics(&self) -> String {
        self.gate().metrics()
    }
}

impl Serve for Gateway {
    type Service = Service;

    fn on(self, front: Front) -> Service {
        Service { gateway: Arc::new(self), front }
    }
}

impl Service {
    /// A handle to steer this service with.
    pub fn handle(&self) -> Handle {
        Handle { gateway: Arc::downgrade(&self.gateway), grip: self.front.grip() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { gateway, front } = self;
        let stop = front.stop();
        // Behind TLS the certificate's name says who is meant.
        let (shared, is_here) = (Gateway::clone(&gateway), front.is_plain_loopback());
        let served = front.serve_greeted(shutdown, Arc::clone(&gateway), move |greeted, peer, stop| {
            connection(greeted, peer, shared.clone(), is_here, stop)
        });
        let renewing = async {
            tokio::select! {
                () = stop.said() => {}
                () = Gateway::clone(&gateway).keep_renewed() => {}
            }
        };
        let over = async {
            stop.said().await;
            gateway.over().say();
        };
        tokio::join!(served, renewing, over).0
    }
}

impl Run for Service {
    fn grip(&self) -> Grip {
        self.front.grip()
    }

    fn run(self, shutdown: impl Future<Output = ()>) -> impl Future<Output = Ended> {
        Self::run(self, shutdown)
    }
}

impl Gateway {
    /// Serves a listener beside the service's own port, a Unix socket for instance, by HTTP/1.1 and with the same requests under way.
    /// Ends with the service: those who listen let in whom the gateway is for.
    pub async fn serve_beside<L: Listen>(self, listener: L) -> Ended {
        let stop = self.over().clone();
        let each = |stream, _, place: Place<'_>| {
            let (gateway, stop) = (self.clone(), stop.clone());
            place.serve(async move {
                let stream = Strict::new(Patience::new(stream, WRITE_TIMEOUT));
                let service = service_fn(move |request| gateway.clone().answer(request, None, false));
                serve(stream, service, BOUNDS, &stop).await;
            });
        };
        accept(listener, LIMITS_BESIDE, &stop, core::future::pending(), each).await
    }
}

async fn connection(greeted: Greeted, peer: SocketAddr, gateway: Gateway, is_here: bool, stop: Stop) {
    let stream = Patience::new(greeted.stream, WRITE_TIMEOUT);
    let service = service_fn(move |request| gateway.clone().answer(request, Some(peer), is_here));
    match greeted.is_http2 {
        true => http2::serve(stream, service, BOUNDS_OF_HTTP2, &stop).await,
        false => serve(Strict::new(stream), service, BOUNDS, &stop).await,
    }
}
