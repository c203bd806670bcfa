//! One HTTPS request, to an address that was looked at. No redirect is followed, no proxy is used, and everything is bounded.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use obol_atp::Host;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::is_public;
use crate::error::AtpError;

/// How long a whole exchange may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;
/// What is said where the system has no certificate authority, and what to do.
const NOBODY_TRUSTED: &str = "this system trusts no certificate authority, so that no provider can be reached; install the package \
                              ca-certificates, or name a file of certificates with SSL_CERT_FILE";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// Makes connections.
pub(crate) struct Connector {
    tls: TlsConnector,
}

impl Connector {
    /// Trusts the system's certificate authorities, or those of one file alone. Where there is none it says so.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, AtpError> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let text = obol_secret::file::read_public(path, MAX_PEM_BYTES)?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let added = certificate
                        .map_err(|_| ())
                        .and_then(|certificate| roots.add(certificate).map_err(|_| ()));
                    added.map_err(|()| {
                        AtpError::System(format!("{} is not a PEM file of certificates", path.display()))
                    })?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            let why = match ca_file {
                Some(path) => format!("{} is not a PEM file of certificates", path.display()),
                None => NOBODY_TRUSTED.to_owned(),
            };
            return Err(AtpError::System(why));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| AtpError::System(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into() })
    }

    /// Sends one request to a host. `may_be_private`: its owner said that it may be at an address that is not public.
    pub(crate) async fn send(
        &self,
        host: &Host,
        may_be_private: bool,
        outgoing: Outgoing<'_>,
    ) -> Result<Answer, AtpError> {
        let exchange = self.exchange(host, may_be_private, outgoing);
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome.map_err(|why| AtpError::Unavailable(format!("{host}: {why}"))),
            Err(_) => Err(AtpError::Unavailable(format!("{host}: no answer in time"))),
        }
    }

    async fn exchange(
        &self,
        host: &Host,
        may_be_private: bool,
        outgoing: Outgoing<'_>,
    ) -> Result<Answer, String> {
        let stream = connect(host, may_be_private).await?;
        let name = ServerName::try_from(host.name().to_owned()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request =
            Request::builder().method(outgoing.method).uri(outgoing.path).header("host", host.to_string());
        for (name, value) in outgoing.headers {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(Bytes::from(outgoing.body))).map_err(|error| error.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body =
                Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        }
        .await;
        connection.abort();
        answer
    }
}

impl core::fmt::Debug for Connector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Connector")
    }
}

/// Connects to one of the host's addresses, if all of them may be connected to: to one that was looked at, so that a name
/// cannot resolve to another one meanwhile.
async fn connect(host: &Host, may_be_private: bool) -> Result<TcpStream, String> {
    let resolve = async |name: &str, port| {
        let found = tokio::net::lookup_host((name, port)).await.map_err(|error| error.to_string())?;
        Ok(found.collect())
    };
    connect_by(host, may_be_private, resolve, TcpStream::connect::<SocketAddr>).await
}

async fn connect_by<S>(
    host: &Host,
    may_be_private: bool,
    mut resolve: impl AsyncFnMut(&str, u16) -> Result<Vec<SocketAddr>, String>,
    mut dial: impl AsyncFnMut(SocketAddr) -> std::io::Result<S>,
) -> Result<S, String> {
    let addresses = resolve(host.name(), host.port()).await?;
    if addresses.is_empty() || !(may_be_private || addresses.iter().all(|address| is_public(address.ip()))) {
        return Err(
            "its name resolves to an address that is not public; if that is right, list it in allow_private"
                .to_owned(),
        );
    }
    let mut last = String::new();
    for address in addresses {
        match dial(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "8.8.8.8:443";
    const INSIDE: &str = "127.0.0.1:443";

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A name whose owner answers with something public at first, and with an address inside whenever it is asked again.
    fn rebinding() -> impl FnMut() -> Vec<SocketAddr> {
        let mut answers = [PUBLIC].into_iter().chain(core::iter::repeat(INSIDE));
        move || addresses(&[answers.next().unwrap()])
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_and_only_what_was_looked_at_is_connected_to() {
        let host: Host = "rebinding.example".parse().unwrap();
        // Control: who looks at one answer and connects by another gets inside.
        let mut answer = rebinding();
        assert!(answer().iter().all(|address| is_public(address.ip())));
        assert_eq!(answer(), addresses(&[INSIDE]));

        let (mut answer, mut dialled) = (rebinding(), Vec::new());
        let dial = async |address| -> std::io::Result<()> {
            dialled.push(address);
            Err(std::io::ErrorKind::ConnectionRefused.into())
        };
        let outcome = connect_by(&host, false, async |_: &str, _| Ok(answer()), dial).await;
        assert!(outcome.is_err(), "nobody was there, and the name is not asked again");
        assert_eq!(dialled, addresses(&[PUBLIC]));

        for answer in [&[INSIDE][..], &[PUBLIC, INSIDE], &[]] {
            let mut dialled = 0;
            let dial = async |_| -> std::io::Result<()> {
                dialled += 1;
                Ok(())
            };
            let resolve = async |_: &str, _| Ok(addresses(answer));
            assert!(connect_by(&host, false, resolve, dial).await.is_err(), "{answer:?}");
            assert_eq!(dialled, 0);
        }
        let resolve = async |_: &str, _| Ok(addresses(&[INSIDE]));
        assert!(connect_by(&host, true, resolve, async |_| Ok(())).await.is_ok(), "where it is allowed");
    }
}
