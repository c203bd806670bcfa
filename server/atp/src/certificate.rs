//! A certificate and its key, for TLS, from files that can be read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_secret::file::{PrivateFile, read_public};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::serve::BindError;

/// The longest file of certificates or keys, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// A certificate chain and its private key, which can be read again.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads a chain, the server's first, and its key, both PEM. The key's file must be private.
    ///
    /// # Errors
    /// [`BindError`] names the file that cannot be used.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, BindError> {
        let config = RwLock::new(Arc::new(read(chain, key)?));
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), config })
    }

    /// Reads the files again. Where that fails the certificate stays as it was.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reload(&self) -> Result<(), BindError> {
        let config = Arc::new(read(&self.chain, &self.key)?);
        *self.config.write() = config;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read()).into()
    }
}

fn read(chain: &Path, key: &Path) -> Result<ServerConfig, BindError> {
    let wrong = |path: &Path, why: String| BindError::Certificate(path.to_owned(), why);
    let text = read_public(chain, MAX_PEM_BYTES)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(chain, "not a PEM file of certificates".to_owned()))?;
    let text = PrivateFile::read(key, MAX_PEM_BYTES)?;
    let private = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong(key, "not a PEM file with a private key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(key, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, private);
    let mut config =
        config.map_err(|error| wrong(chain, format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
