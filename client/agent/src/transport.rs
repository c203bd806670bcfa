//! The connections to resource servers: kept alive, encrypted or to this machine, and each request sent once.
//!
//! No proxy is used, no redirect followed and nothing repeated here: what is sent again, and with which token, is decided
//! above.

use core::future::{Future, ready};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::body::Body;
use crate::destination::is_loopback;
use crate::error::{Code, Error};

/// How long connecting may take, of the time there is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection waits for its next request. Shorter than most servers keep theirs, so that few requests meet one
/// that is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most connections to one server that wait.
const MAX_IDLE: usize = 64;
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// What is said where the system has no certificate authority, and what to do.
const NOBODY_TRUSTED: &str = "this system trusts no certificate authority, so that no server can be reached over TLS, and no token was \
                              drawn; install the package ca-certificates, or name a file of certificates as ca_file or SSL_CERT_FILE";

/// How a request came to no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Not a byte of it went out.
    NotSent(String),
    /// Some of it went out, or all.
    Sent(String),
    /// The time is over, and some of it went out.
    TimeOver,
    /// The time is over, and none of it went out.
    TimeOverBefore,
}

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Transport {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Body>,
    trusts_nobody: bool,
}

impl Transport {
    /// Trusts the system's certificate authorities, or those of one file alone.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, Error> {
        let roots = roots(ca_file)?;
        let trusts_nobody = roots.is_empty();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self { client, trusts_nobody })
    }

    /// Whether a server could be connected to there, as far as it is known before a token is drawn.
    pub(crate) fn check(&self, address: &Uri) -> Result<(), Error> {
        match self.trusts_nobody && address.scheme() == Some(&Scheme::HTTPS) {
            true => Err(Error::new(Code::InvalidArgument, NOBODY_TRUSTED)),
            false => Ok(()),
        }
    }

    /// Sends a request, once, and gives the head of its answer.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Unanswered> {
        let connection = capture_connection(&mut request);
        match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) if is_http(&response) => Ok(response),
            Ok(Ok(_)) => Err(Unanswered::Sent("the answer is not HTTP".to_owned())),
            Ok(Err(error)) if was_not_sent(&error) => Err(Unanswered::NotSent(told(&error))),
            Ok(Err(error)) => Err(Unanswered::Sent(told(&error))),
            Err(_) if connection.connection_metadata().is_none() => Err(Unanswered::TimeOverBefore),
            Err(_) => Err(Unanswered::TimeOver),
        }
    }
}

impl core::fmt::Debug for Transport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Transport")
    }
}

/// What some read as one thing and others as another: a status that HTTP does not have, several lengths, a length beside a coding, and
/// a coding that is not chunked alone.
fn is_http(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let is_number = |length: &&HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    let is_framed = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => true,
        ([length], []) => is_number(length),
        ([], [coding]) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    is_framed && response.status().as_u16() < 600
}

/// hyper calls a request cancelled only while none of it was written.
fn was_not_sent(error: &ClientError) -> bool {
    let cause = core::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    error.is_connect() || cause.is_some_and(hyper::Error::is_canceled)
}

/// The innermost reason; what is around it says less. None of them knows the request.
fn told(error: &ClientError) -> String {
    let mut cause: &dyn core::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |why: &str| Error::new(Code::InvalidArgument, format!("{}: {why}", path.display()));
    let text =
        obol_secret::file::read_public(path, MAX_PEM_BYTES).map_err(|error| wrong(&error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added =
            certificate.map_err(|_| ()).and_then(|certificate| roots.add(certificate).map_err(|_| ()));
        added.map_err(|()| wrong("it is not a PEM file of certificates"))?;
    }
    match roots.is_empty() {
        true => Err(wrong("it contains no certificate")),
        false => Ok(roots),
    }
}

/// Resolves names as the system does, but for `localhost`, which is this machine whatever anybody says.
#[derive(Clone, Debug)]
struct Resolver(GaiResolver);

type Addresses = Box<dyn Iterator<Item = SocketAddr> + Send>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if is_loopback(name.as_str()) {
            let here: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            return Box::pin(ready(Ok(Box::new(here.into_iter()) as Addresses)));
        }
        let found = self.0.call(name);
        Box::pin(async move { Ok(Box::new(found.await?) as Addresses) })
    }
}
