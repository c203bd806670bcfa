//! A server on a port that strangers may reach: with TLS or on loopback alone, bounded, drained before it stops; and beside it
//! a loopback address for those who watch it.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::accept::{AnyStream, Limits, Place, accept};
use crate::contract::{Address, BindError, Ended};
use crate::health::{self, Health, Loopback};
use crate::stop::Stop;
use crate::tls::{Certificate, CertificateError, Greeted, greet};

/// The most connections at a time, unless told otherwise. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests under way may take when the service stops, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What follows from an address that other machines reach.
const IN_THE_CLEAR: &str = "without TLS secrets and tokens cross the network in the clear; give --tls-cert and --tls-key, or listen on 127.0.0.1 \
     behind a proxy that does TLS";

/// What can be served on such a port.
pub trait Serve {
    /// It and its port.
    type Service;

    /// Is given its port.
    fn on(self, front: Front) -> Self::Service;
}

/// What is served on such a port, by whoever knows no more of it.
pub trait Run {
    /// Steers the port from elsewhere.
    fn grip(&self) -> Grip;

    /// Serves until `shutdown` resolves or the grip says stop.
    fn run(self, shutdown: impl Future<Output = ()>) -> impl Future<Output = Ended>;
}

/// Where to listen, and how.
#[derive(Debug)]
pub struct Options {
    listen: Option<SocketAddr>,
    certificate: Option<Arc<Certificate>>,
    allow_remote: bool,
    max_connections: usize,
    http: Option<SocketAddr>,
    drain_timeout: Duration,
}

impl Options {
    /// On this address, without TLS, if it is loopback.
    pub fn new(listen: SocketAddr) -> Self {
        Self::maybe(Some(listen))
    }

    /// On no address, for a service whose callers come by a listener of its own; watched and stopped as others.
    pub fn nowhere() -> Self {
        Self::maybe(None)
    }

    fn maybe(listen: Option<SocketAddr>) -> Self {
        Self {
            listen,
            certificate: None,
            allow_remote: false,
            max_connections: MAX_CONNECTIONS,
            http: None,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// With TLS.
    #[must_use]
    pub fn certificate(mut self, certificate: Arc<Certificate>) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Whether there is an address, beside the one for those who watch.
    pub fn has_port(&self) -> bool {
        self.listen.is_some()
    }

    /// Takes an address that other machines can reach, also without TLS.
    #[must_use]
    pub fn allow_remote(mut self) -> Self {
        self.allow_remote = true;
        self
    }

    /// The most connections at a time; 4,096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Also serves `/livez`, `/readyz` and `/metrics`, on this loopback address.
    #[must_use]
    pub fn http_at(mut self, address: SocketAddr) -> Self {
        self.http = Some(address);
        self
    }

    /// How long requests under way may take when the service stops; 10 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Whether these addresses may be taken at all.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why one may not.
    pub fn check(&self) -> Result<(), BindError> {
        let is_closed = |listen: &SocketAddr| listen.ip().is_loopback() || self.certificate.is_some();
        if let Some(listen) = self.listen.filter(|listen| !is_closed(listen) && !self.allow_remote) {
            return Err(BindError::remote(listen, IN_THE_CLEAR));
        }
        self.http.map_or(Ok(()), Loopback::check)
    }

    /// Takes the addresses. Connections are accepted from here on, and served once the service runs.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn bind<S: Serve>(self, served: S) -> Result<S::Service, BindError> {
        self.take().await.map(|front| served.on(front))
    }

    /// Takes the addresses, for who makes the service of them itself.
    ///
    /// # Errors
    ///
    /// [`BindError`] says why an address is not taken.
    pub async fn take(self) -> Result<Front, BindError> {
        self.check()?;
        let http = self.http.map(Loopback::bind).transpose()?;
        let (mut listener, mut addresses) = (None, Vec::new());
        if let Some(listen) = self.listen {
            let failed = |error| BindError::io(Address::Tcp(listen), error);
            let bound = TcpListener::bind(listen).await.map_err(failed)?;
            addresses.push(bound.local_addr().map_err(failed)?);
            listener = Some(bound);
        }
        addresses.extend(http.as_ref().map(Loopback::local_addr));
        let addresses = addresses.into_iter().map(Address::Tcp).collect();
        Ok(Front { listener, http, addresses, stop: Stop::new(), options: self })
    }
}

/// The addresses, taken and not served yet.
#[derive(Debug)]
pub struct Front {
    listener: Option<TcpListener>,
    http: Option<Loopback>,
    addresses: Arc<[Address]>,
    stop: Stop,
    options: Options,
}

/// What steers a front from elsewhere, served or not. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Grip {
    certificate: Option<Arc<Certificate>>,
    addresses: Arc<[Address]>,
    stop: Stop,
}

impl Grip {
    /// Takes no more connections, finishes what is under way, and ends the serving. Does not wait for that.
    pub fn stop(&self) {
        self.stop.say();
    }

    /// Where it listens: for those it serves, and for those who watch it.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Reads the certificate again, where there is one.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names the file that cannot be used; the certificate stays as it was.
    pub fn reload_certificate(&self) -> Result<(), CertificateError> {
        let Some(certificate) = &self.certificate else { return Ok(()) };
        certificate.reload()?;
        tracing::info!("the certificate was read again");
        Ok(())
    }
}

impl Front {
    /// What steers it from elsewhere.
    pub fn grip(&self) -> Grip {
        let certificate = self.options.certificate.clone();
        Grip { certificate, addresses: Arc::clone(&self.addresses), stop: self.stop.clone() }
    }

    /// Whether none but this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        self.options.listen.is_some_and(|listen| listen.ip().is_loopback())
    }

    /// The word to stop, for what runs beside the serving.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether none but this machine reaches it, and no certificate says who is meant.
    pub fn is_plain_loopback(&self) -> bool {
        self.options.certificate.is_none() && self.is_loopback()
    }

    /// Serves until `shutdown` resolves or somebody says stop, then lets requests under way finish, for a while.
    pub async fn serve<F>(
        self,
        shutdown: impl Future<Output = ()>,
        health: Arc<impl Health>,
        connection: impl Fn(AnyStream, SocketAddr, Stop) -> F + Clone + Send + 'static,
    ) -> Ended
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let one = move |greeted: Greeted, peer, stop| connection(greeted.stream, peer, stop);
        self.serve_greeted(shutdown, health, one).await
    }

    /// The same, for who speaks several protocols.
    pub async fn serve_greeted<F>(
        self,
        shutdown: impl Future<Output = ()>,
        health: Arc<impl Health>,
        connection: impl Fn(Greeted, SocketAddr, Stop) -> F + Clone + Send + 'static,
    ) -> Ended
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, http, stop, options, .. } = self;
        let watched = async {
            if let Some(http) = http {
                health::serve(http, health, &stop).await;
            }
        };
        let limits =
            Limits { max_connections: options.max_connections, drain_timeout: options.drain_timeout };
        // A handshake has its place among the connections.
        let each = |stream, peer, place: Place<'_>| {
            let (certificate, stop, connection) =
                (options.certificate.clone(), stop.clone(), connection.clone());
            place.serve(async move {
                // Boxed, so that there is no room for a handshake in what waits with the connection from then on.
                let greeting = Box::pin(greet(certificate.as_deref(), stream, HANDSHAKE_TIMEOUT));
                if let Some(greeted) = greeting.await {
                    connection(greeted, peer, stop).await;
                }
            });
        };
        tokio::join!(accept(listener, limits, &stop, shutdown, each), watched).0
    }
}
