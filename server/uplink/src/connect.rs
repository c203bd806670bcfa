//! One connection to the service, for the messages of a handshake, or for a stream. No redirect is followed, no proxy is used, and
//! everything is bounded.

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use obol_secret::json;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{AuthError, Clear};
use crate::pinned::Pinned;

/// How long connecting, or one request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: a session's document and what sealing adds.
const MAX_ANSWER_BYTES: usize = (1 << 20) + (64 << 10);
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
const HANDSHAKE_TYPE: &str = "application/vnd.obol.handshake";

/// Makes connections.
pub struct UplinkConnector {
    tls: TlsConnector,
}

impl UplinkConnector {
    /// To this service. Trusts the system's certificate authorities, or those of one file alone.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or the service is reached over TLS and the system trusts no authority.
    pub fn new(service: &Pinned, ca_file: Option<&Path>) -> Result<Self, AuthError> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let wrong =
                    || AuthError::System(format!("{} is not a PEM file of certificates", path.display()));
                let text = obol_secret::file::read_public(path, MAX_PEM_BYTES)
                    .map_err(|error| AuthError::System(error.to_string()))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
                }
                if roots.is_empty() {
                    return Err(wrong());
                }
            }
            None if service.is_tls() => roots = obol_probe::tls::system_roots().map_err(AuthError::System)?,
            None => {}
        }
        let config = ClientConfig::builder_with_provider(Arc::new(obol_probe::tls::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| AuthError::System(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into() })
    }

    /// Connects to the service.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unreachable`].
    pub async fn open(&self, service: &Pinned) -> Result<Connection, AuthError> {
        let unreachable = |why: String| AuthError::Unreachable(format!("{}: {why}", service.origin()));
        match timeout(PATIENCE, self.connect(service)).await {
            Ok(connected) => connected.map_err(unreachable),
            Err(_) => Err(unreachable("no answer in time".to_owned())),
        }
    }

    async fn connect(&self, service: &Pinned) -> Result<Connection, String> {
        let (host, port) = service.host_and_port().ok_or("the address is malformed")?;
        let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        // Messages are small, and each waits for an answer.
        let _best_effort = stream.set_nodelay(true);
        // Behind the scheme; `Pinned` made sure that nothing else follows.
        let authority = service.origin().rsplit('/').next().unwrap_or(host).to_owned();
        match service.is_tls() {
            false => Connection::over(stream, authority).await,
            true => {
                let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
                let stream = self.tls.connect(name, stream).await.map_err(|error| not_over_tls(&error))?;
                Connection::over(stream, authority).await
            }
        }
    }
}

/// Why there is no connection over TLS, and what to do where that is the certificate.
fn not_over_tls(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => format!(
            "its certificate is not trusted ({why}); where a certificate authority of your own issued it, name that one's \
             certificate as ca_file (--ca-file, of a resource server --rs-ca-file); else somebody may be between"
        ),
        _ => error.to_string(),
    }
}

impl core::fmt::Debug for UplinkConnector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("UplinkConnector")
    }
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// The bytes of an answer.
    Done(Vec<u8>),
    /// A refusal that nothing protects.
    Refused(Clear),
}

/// The answer's body, and what moves it.
pub(crate) struct Body {
    pub(crate) incoming: Incoming,
    pub(crate) driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What came of asking for a stream.
pub(crate) enum Opened {
    Open(Body),
    Refused(Clear),
}

/// A connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    opened: Instant,
    /// `None` once a stream has it.
    driver: Option<JoinHandle<hyper::Result<()>>>,
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection").field("to", &self.authority).finish_non_exhaustive()
    }
}

impl Connection {
    async fn over<S>(stream: S, authority: String) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = Some(tokio::spawn(connection));
        Ok(Self { sender, authority, opened: Instant::now(), driver })
    }

    /// Whether the service has not closed it, as far as is known here.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// How long ago it was opened.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// What closes it, unless a stream has it.
    pub(crate) fn driver(&self) -> Option<AbortHandle> {
        self.driver.as_ref().map(JoinHandle::abort_handle)
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unreachable`] where no whole answer came in time.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Result<Answer, AuthError> {
        let request = self.message(path, body)?;
        self.send(request).await
    }

    fn message(&self, path: &str, body: &[u8]) -> Result<Request<Full<Bytes>>, AuthError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, HANDSHAKE_TYPE)
            .body(Full::new(Bytes::copy_from_slice(body)));
        request.map_err(|error| AuthError::System(error.to_string()))
    }

    /// Sends a message whose answer is a stream.
    pub(crate) async fn into_stream(mut self, path: &str, body: &[u8]) -> Result<Opened, AuthError> {
        let request = self.message(path, body)?;
        let answer = timeout(PATIENCE, async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        });
        let answer = answer.await.map_err(|_| AuthError::Unreachable("no answer in time".to_owned()))?;
        let (parts, incoming) =
            answer.map_err(|error| AuthError::Unreachable(error.to_string()))?.into_parts();
        if parts.status != StatusCode::OK {
            let body = timeout(PATIENCE, Limited::new(incoming, MAX_ANSWER_BYTES).collect()).await;
            let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
            return Ok(Opened::Refused(clear(parts.status, &body.unwrap_or_default())));
        }
        match self.driver.take() {
            Some(driver) => Ok(Opened::Open(Body { incoming, driver })),
            None => Err(AuthError::System("the connection is used up".to_owned())),
        }
    }

    /// Asks with a bearer secret of the scheme `Obol-Poll`.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub async fn get(&mut self, path: &str, token: &str) -> Result<Answer, AuthError> {
        let mut value = HeaderValue::try_from(format!("Obol-Poll {token}"))
            .map_err(|error| AuthError::System(error.to_string()))?;
        value.set_sensitive(true);
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, value)
            .body(Full::default());
        self.send(request.map_err(|error| AuthError::System(error.to_string()))?).await
    }

    /// Says something with a bearer secret of the scheme `Obol-Poll`.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub async fn tell(&mut self, path: &str, token: &str, body: &Value) -> Result<Answer, AuthError> {
        let mut value = HeaderValue::try_from(format!("Obol-Poll {token}"))
            .map_err(|error| AuthError::System(error.to_string()))?;
        value.set_sensitive(true);
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, value)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        self.send(request.map_err(|error| AuthError::System(error.to_string()))?).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, AuthError> {
        let exchange = async {
            // After an answer the connection needs a moment until it takes the next request.
            self.sender.ready().await.map_err(|error| error.to_string())?;
            let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body =
                Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((parts.status, body.to_bytes()))
        };
        let (status, body) = timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(AuthError::Unreachable)?;
        if status == StatusCode::OK {
            return Ok(Answer::Done(body.to_vec()));
        }
        Ok(Answer::Refused(clear(status, &body)))
    }
}

fn clear(status: StatusCode, body: &[u8]) -> Clear {
    let mut clear: Clear = json::parse(body).unwrap_or_default();
    if clear.code.is_empty() {
        clear.code = status.to_string();
    }
    clear
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}
