//! A certificate and its key, from files that can be read again.

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_secret::file::{PrivateFile, PrivateFileError, read_public};
use parking_lot::RwLock;
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::accept::AnyStream;

/// The longest file of certificates or keys, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// The versions of TLS that a server speaks.
pub type Versions = &'static [&'static SupportedProtocolVersion];

/// The protocols that a server offers inside TLS (ALPN), the one that it likes most first.
pub type Protocols = &'static [&'static [u8]];

/// HTTP/1.1 alone.
pub const HTTP1: Protocols = &[b"http/1.1"];
/// HTTP/2, and HTTP/1.1.
pub const HTTP2_AND_1: Protocols = &[HTTP2, b"http/1.1"];
/// HTTP/2.
const HTTP2: &[u8] = b"h2";

/// TLS 1.2 and 1.3, for callers that are not ours.
pub const TLS12_AND_13: Versions = rustls::DEFAULT_VERSIONS;
/// TLS 1.3, and nothing older.
pub const TLS13: Versions = &[&rustls::version::TLS13];

/// A certificate chain and its private key, which can be read again.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    versions: Versions,
    protocols: Protocols,
    config: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads a chain, the server's first, and its key, both PEM, for HTTP/1.1 under these versions of TLS. The key's file
    /// must be private.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names the file that cannot be used.
    pub fn load(chain: &Path, key: &Path, versions: Versions) -> Result<Self, CertificateError> {
        Self::load_for(chain, key, versions, HTTP1)
    }

    /// The same, for these protocols.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn load_for(
        chain: &Path,
        key: &Path,
        versions: Versions,
        protocols: Protocols,
    ) -> Result<Self, CertificateError> {
        let config = RwLock::new(Arc::new(read(chain, key, versions, protocols)?));
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), versions, protocols, config })
    }

    /// Reads the files again. Where that fails the certificate stays as it was.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn reload(&self) -> Result<(), CertificateError> {
        let config = Arc::new(read(&self.chain, &self.key, self.versions, self.protocols)?);
        *self.config.write() = config;
        Ok(())
    }

    async fn accept(&self, stream: TcpStream, patience: Duration) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.read()));
        match timeout(patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
        None
    }
}

/// A connection that was taken.
pub struct Greeted {
    /// Its bytes, decrypted.
    pub stream: AnyStream,
    /// Whether the two agreed on HTTP/2.
    pub is_http2: bool,
}

impl fmt::Debug for Greeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").field("is_http2", &self.is_http2).finish_non_exhaustive()
    }
}

/// Takes a connection: under the certificate as it is now, or as it comes where there is none. `None` where the handshake
/// fails, or is not over in time; the log says which.
pub(crate) async fn greet(
    certificate: Option<&Certificate>,
    stream: TcpStream,
    patience: Duration,
) -> Option<Greeted> {
    let Some(certificate) = certificate else {
        return Some(Greeted { stream: Box::new(stream), is_http2: false });
    };
    let stream = certificate.accept(stream, patience).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    Some(Greeted { stream: Box::new(stream), is_http2 })
}

/// Why a certificate cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    File(PrivateFileError),
    /// A file holds no certificate or no key, or they do not belong together.
    Unfit(PathBuf, String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Unfit(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl core::error::Error for CertificateError {}

fn read(
    chain: &Path,
    key: &Path,
    versions: Versions,
    protocols: Protocols,
) -> Result<ServerConfig, CertificateError> {
    let wrong = |path: &Path, why: String| CertificateError::Unfit(path.to_owned(), why);
    let text = read_public(chain, MAX_PEM_BYTES).map_err(CertificateError::File)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(chain, "not a PEM file of certificates".to_owned()))?;
    let text = PrivateFile::read(key, MAX_PEM_BYTES).map_err(CertificateError::File)?;
    let private = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong(key, "not a PEM file with a private key".to_owned()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(super::provider()))
        .with_protocol_versions(versions)
        .map_err(|error| wrong(key, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, private);
    let mut config =
        config.map_err(|error| wrong(chain, format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
