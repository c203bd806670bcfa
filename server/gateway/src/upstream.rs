//! The connections to one API: kept alive, encrypted or to this machine, and each request sent once.
//!
//! No proxy is used, no redirect followed and nothing repeated: a token was spent for one request.

use core::fmt;
use core::time::Duration;
use std::path::Path;

use axum::body::Body;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use obol_probe::outward::{Bounds, Connector, Unanswered, client, tcp, tls};
use obol_probe::tls::system_roots;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
const BOUNDS: Bounds =
    Bounds { idle_timeout: Duration::from_secs(15), max_idle: 256, max_head_bytes: 128 << 10 };

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
    /// Of this origin. Trusts the system's certificate authorities, or those of one file alone; where nothing is reached `over_tls`, the
    /// system need not have any.
    pub(crate) fn new(origin: &Uri, ca_file: Option<&Path>, over_tls: bool) -> Result<Self, String> {
        let (Some(scheme), Some(authority)) = (origin.scheme(), origin.authority()) else {
            return Err("the API's address is not an origin".to_owned());
        };
        let config = tls(roots(ca_file, over_tls)?)?;
        let http1 = connector().with_tls_config(config.clone()).https_or_http().enable_http1();
        let any = connector().with_tls_config(config).https_or_http().enable_http1().enable_http2();
        Ok(Self {
            scheme: scheme.clone(),
            authority: authority.clone(),
            any: client(any.wrap_connector(tcp()), BOUNDS),
            http1: client(http1.wrap_connector(tcp()), BOUNDS),
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
        client.request(request).await.map_err(Unanswered::from)
    }

    /// The same, to wherever the request says.
    pub(crate) async fn send_to(&self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        self.any.request(request).await.map_err(Unanswered::from)
    }
}

fn connector() -> HttpsConnectorBuilder<hyper_rustls::builderstates::WantsTlsConfig> {
    HttpsConnectorBuilder::new()
}

fn roots(ca_file: Option<&Path>, over_tls: bool) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else { return if over_tls { system_roots() } else { Ok(roots) } };
    let wrong = || format!("{} is not a PEM file of certificates", path.display());
    let text = obol_secret::file::read_public(path, MAX_PEM_BYTES).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
    }
    if roots.is_empty() { Err(wrong()) } else { Ok(roots) }
}
