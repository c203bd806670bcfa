//! TLS between agent and service: 1.3 with the hybrid key exchange, and no other certificate than the one that is trusted.

use obol_authority::http::{Certificate, TLS13};
use obol_world::certificates;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

/// A certificate for localhost that vouches for itself, and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (chain, key) = (format!("{name}.crt"), format!("{name}.tls"));
    certificates::self_signed(folder, &chain, &key);
    (folder.join(chain), folder.join(key))
}

async fn tls_service(folder: &Path) -> (Arc<Authority>, SocketAddr, PathBuf) {
    let (chain, key) = certificate(folder, "service");
    let known = free_port();
    let origin = format!("https://localhost:{}", known.port());
    let authority = authority_called(folder, &origin, &Suite::ALL);
    let certificate = Arc::new(Certificate::load(&chain, &key, TLS13).unwrap());
    let options = ServiceOptions::new(known).certificate(certificate);
    let service = options.bind(Arc::clone(&authority)).await.unwrap();
    tokio::spawn(service.run(core::future::pending()));
    (authority, known, chain)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_over_tls_and_trusts_one_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _, chain) = tls_service(folder.path()).await;
    let (other, _) = certificate(folder.path(), "other");
    let agent = |ca: &Path| {
        let place = |end: &str| folder.path().join(format!("builder.{end}"));
        let identity = Identity::open_or_create(&place("identity"), &place("key")).unwrap();
        Authenticator::new(pinned(&authority), identity, &UplinkOptions::new().ca_file(ca)).unwrap()
    };
    let error = agent(&other).register(&wishes("builder"), None, now()).await.unwrap_err();
    assert_eq!(code(&error), "AUTHORITY_UNREACHABLE", "{error}");
    assert!(error.to_string().contains("--ca-file"), "it says what to do: {error}");
    let registered = agent(&chain).register(&wishes("builder"), None, now()).await.unwrap();
    assert!(matches!(registered, Registered::Waits { .. }));
}

async fn greet(config: ClientConfig, address: SocketAddr) -> Result<Option<NamedGroup>, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = connected.map_err(|error| error.to_string())?;
    let (_, connection) = stream.get_ref();
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    Ok(connection.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_is_hybrid_where_the_client_can_and_nothing_older_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let (_authority, address, chain) = tls_service(folder.path()).await;
    let roots = || {
        let mut roots = RootCertStore::empty();
        let text = std::fs::read(&chain).unwrap();
        roots.add(CertificateDer::from_pem_slice(&text).unwrap()).unwrap();
        roots
    };
    let client = |provider: rustls::crypto::CryptoProvider, version| {
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots())
            .with_no_client_auth()
    };
    let ring = rustls::crypto::ring::default_provider;
    let hybrid = client(obol_probe::tls::provider(), &rustls::version::TLS13);
    assert_eq!(greet(hybrid, address).await.unwrap(), Some(NamedGroup::X25519MLKEM768));
    let plain = client(ring(), &rustls::version::TLS13);
    assert_eq!(greet(plain, address).await.unwrap(), Some(NamedGroup::X25519));
    let old = client(ring(), &rustls::version::TLS12);
    assert!(greet(old, address).await.is_err(), "TLS 1.2 is not spoken");
}
