//! The connections to one API: kept alive, encrypted or to this machine, and each request sent once.
//!
//! No proxy is used, no redirect followed and nothing repeated: a token was spent for one request.

use core::fmt;
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for its next request. Shorter than most servers keep theirs, so that few requests meet one
/// that is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most connections that wait.
const MAX_IDLE: usize = 256;
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
/// The longest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 128 << 10;

type Connector = HttpsConnector<HttpConnector>;

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Not a byte of the request went out.
    NotSent(String),
    /// Some of it went out, or all.
    Sent(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) | Self::Sent(why) => f.write_str(why),
        }
    }
}

/// Sends requests to one API.
pub(crate) struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// HTTP/2 where the API has it, else HTTP/1.1.
    any: Client<Connector, Body>,
    /// HTTP/1.1, which a WebSocket is opened in.
    http1: Client<Connector, Body>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({}://{})", self.scheme, self.authority)
    }
}

impl Upstream {
    /// Of this origin. Trusts the system's certificate authorities, or those of one file alone.
    pub(crate) fn new(origin: &Uri, ca_file: Option<&Path>) -> Result<Self, String> {
        let (Some(scheme), Some(authority)) = (origin.scheme(), origin.authority()) else {
            return Err("the API's address is not an origin".to_owned());
        };
        let config = ClientConfig::builder_with_provider(Arc::new(obol_probe::tls::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        let http1 = connector().with_tls_config(config.clone()).https_or_http().enable_http1();
        let any = connector().with_tls_config(config).https_or_http().enable_http1().enable_http2();
        Ok(Self {
            scheme: scheme.clone(),
            authority: authority.clone(),
            any: client(any.wrap_connector(tcp())),
            http1: client(http1.wrap_connector(tcp())),
        })
    }

    /// Where a request for this path and query goes.
    pub(crate) fn address(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        parts.path_and_query(path_and_query).build()
    }

    /// Sends a request, once, and gives the head of its answer.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        is_websocket: bool,
    ) -> Result<Response<Incoming>, Unanswered> {
        let client = if is_websocket { &self.http1 } else { &self.any };
        client.request(request).await.map_err(|error| unanswered(&error))
    }

    /// The same, to wherever the request says.
    pub(crate) async fn send_to(&self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        self.any.request(request).await.map_err(|error| unanswered(&error))
    }
}

fn connector() -> HttpsConnectorBuilder<hyper_rustls::builderstates::WantsTlsConfig> {
    HttpsConnectorBuilder::new()
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp
}

fn client(connector: Connector) -> Client<Connector, Body> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .retry_canceled_requests(false)
        .build(connector)
}

/// hyper calls a request cancelled only while none of it was written.
fn unanswered(error: &ClientError) -> Unanswered {
    let cause = core::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    let was_not_sent = error.is_connect() || cause.is_some_and(hyper::Error::is_canceled);
    let why = told(error);
    if was_not_sent { Unanswered::NotSent(why) } else { Unanswered::Sent(why) }
}

/// The innermost reason; what is around it says less. None of them knows the request.
fn told(error: &ClientError) -> String {
    let mut cause: &dyn core::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = || format!("{} is not a PEM file of certificates", path.display());
    let text = obol_secret::file::read_public(path, MAX_PEM_BYTES).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
    }
    if roots.is_empty() { Err(wrong()) } else { Ok(roots) }
}
