//! Requests of the service to others: to those who tell it of security events, and to those whom it tells.
//!
//! Only https, but for this machine itself; the system's certificate authorities, or those of one file. No redirect is
//! followed, no proxy used, nothing repeated here. Each request has a connection of its own and a bounded time, and its
//! answer a bounded size. Where to is said by settings, or checked against them: never by a stranger.

mod target;

use core::fmt;
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub(crate) use self::target::{Target, is_this_machine};

/// How long a request may take, from connecting to the last byte of its answer, unless it is one that waits there.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// Makes requests.
#[derive(Clone)]
pub struct Outbound {
    tls: TlsConnector,
    /// Why nobody is trusted, where that is so.
    trusts_nobody: Option<Arc<str>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Outbound {
    /// Trusts the system's certificate authorities, or those of one file alone. A system that has none is no error here: see
    /// [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, in words.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let (mut roots, mut trusts_nobody) = (RootCertStore::empty(), None);
        match ca_file {
            Some(path) => {
                let wrong = || format!("{} is not a PEM file of certificates", path.display());
                let text =
                    obol_secret::file::read_public(path, MAX_PEM_BYTES).map_err(|error| error.to_string())?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
                }
                if roots.is_empty() {
                    return Err(wrong());
                }
            }
            None => match obol_probe::tls::system_roots() {
                Ok(found) => roots = found,
                Err(why) => trusts_nobody = Some(why.into()),
            },
        }
        let config = ClientConfig::builder_with_provider(Arc::new(obol_probe::tls::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into(), trusts_nobody })
    }

    /// Whether those whom somebody means to reach could be, as far as trust goes: over TLS nobody is, where nobody is trusted.
    ///
    /// # Errors
    ///
    /// Nobody is trusted: why, and what to do.
    pub fn check(&self, is_over_tls: bool) -> Result<(), String> {
        match &self.trusts_nobody {
            Some(why) if is_over_tls => Err(why.to_string()),
            _ => Ok(()),
        }
    }

    /// Fetches a document.
    pub(crate) async fn get(&self, target: &Target) -> Result<Answer, Unreachable> {
        self.send(Method::GET, target, HeaderMap::new(), Vec::new(), PATIENCE).await
    }

    /// Sends a body.
    pub(crate) async fn post(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, Unreachable> {
        self.send(Method::POST, target, headers, body, PATIENCE).await
    }

    /// Sends a body that may be answered later, this long after the usual time at the most.
    pub(crate) async fn post_and_wait(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<Answer, Unreachable> {
        self.send(Method::POST, target, headers, body, PATIENCE.saturating_add(wait)).await
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Answer, Unreachable> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = target.path().parse().map_err(unreachable)?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(target.authority()).map_err(unreachable)?;
        request.headers_mut().insert(HOST, host);
        let agent = concat!("obol-as/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        let answer = timeout(patience, self.exchange(target, request));
        answer.await.unwrap_or_else(|_| Err(Unreachable("no whole answer in time".to_owned())))
    }

    async fn exchange(&self, target: &Target, request: Request<Full<Bytes>>) -> Result<Answer, Unreachable> {
        let connecting = timeout(PATIENCE, TcpStream::connect((target.host(), target.port())));
        let stream = connecting.await.map_err(|_| Unreachable("no connection in time".to_owned()))?;
        let stream = stream.map_err(unreachable)?;
        // Messages are small, and each waits for an answer.
        let _best_effort = stream.set_nodelay(true);
        if !target.is_tls() {
            return over(stream, request).await;
        }
        let name = ServerName::try_from(target.host().to_owned()).map_err(unreachable)?;
        over(self.tls.connect(name, stream).await.map_err(unreachable)?, request).await
    }
}

fn unreachable(error: impl fmt::Display) -> Unreachable {
    Unreachable(error.to_string())
}

/// One request and its answer; the connection ends with it.
async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Unreachable>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let (parts, body) = answer.into_parts();
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: usize| length > MAX_ANSWER_BYTES) {
            return Err(Unreachable("the answer is too long".to_owned()));
        }
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(unreachable)?;
        Ok(Answer { status: parts.status, body: body.to_bytes() })
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            // What came before its end may be whole.
            Ok(()) => asked.await,
            Err(error) => Err(unreachable(error)),
        },
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}
