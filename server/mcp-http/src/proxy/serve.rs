//! The guard on a socket.

use core::time::Duration;
use std::sync::{Arc, Weak};

use hyper::service::service_fn;
use obol_probe::accept::AnyStream;
use obol_probe::contract::{Address, Ended};
use obol_probe::front::{Front, Grip, Run, Serve};
use obol_probe::health::Health;
use obol_probe::http::{Bounds, serve};
use obol_probe::patience::Patience;
use obol_probe::stop::Stop;
use obol_probe::tls::CertificateError;

use super::{Inner, Proxy};

/// How long a peer may leave an answer unread.
const WRITE_WAIT: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds {
    // Also the next head of a connection that is kept.
    header_timeout: Duration::from_secs(60),
    max_header_bytes: 64 << 10,
    life: None,
    keep_alive: true,
};

/// The service, with its addresses; bound and not running yet.
#[derive(Debug)]
pub struct Service {
    proxy: Proxy,
    front: Front,
}

/// Steers a guard from elsewhere, running or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    proxy: Weak<Inner>,
    grip: Grip,
}

impl Handle {
    /// Takes no more connections, finishes what is under way, and ends [`Service::run`]. Does not wait for that.
    pub fn stop(&self) {
        self.grip.stop();
    }

    /// Where it listens: for clients, and for those who watch it.
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
        self.proxy.upgrade().map_or_else(|| Err("stopped".to_owned()), |proxy| proxy.ready())
    }
}

impl Health for Inner {
    fn ready(&self) -> Result<(), String> {
        self.front.gate().health().map_err(|denial| denial.detail.into_owned())
    }

    fn metrics(&self) -> String {
        self.front.gate().metrics()
    }
}

impl Serve for Proxy {
    type Service = Service;

    fn on(self, front: Front) -> Service {
        Service { proxy: self, front }
    }
}

impl Service {
    /// A handle to steer this service with.
    pub fn handle(&self) -> Handle {
        Handle { proxy: Arc::downgrade(&self.proxy.0), grip: self.front.grip() }
    }

    /// Serves until `shutdown` resolves or a handle says stop, then lets requests under way finish, for a while.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { proxy, front } = self;
        // Behind TLS the certificate's name says who is meant.
        let is_here = front.is_plain_loopback();
        let health = Arc::clone(&proxy.0);
        front
            .serve(shutdown, health, move |stream, _, stop| connection(stream, proxy.clone(), is_here, stop))
            .await
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

async fn connection(stream: AnyStream, proxy: Proxy, is_here: bool, stop: Stop) {
    let stopped = stop.clone();
    let service = service_fn(move |request| proxy.clone().answer(request, is_here, stopped.clone()));
    serve(Patience::new(stream, WRITE_WAIT), service, BOUNDS, &stop).await;
}
