//! TLS: a server whose certificate holds is called, and one whose certificate does not is sent nothing.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http::Request;
use obol_agent::{Agent, Code, Route};
use obol_world::certificates::{self, Holds};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::World;

/// A server that answers every request, and notes all that it is sent.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Over TLS with the certificate in this file, or without TLS.
    fn start(certificate: Option<PathBuf>) -> Self {
        let config = certificate.map(|file| {
            let key = PrivateKeyDer::from_pem_file(file.with_extension("key")).unwrap();
            let certificate = CertificateDer::from_pem_file(file).unwrap();
            let config =
                ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
            Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heads) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
        let noted = Arc::clone(&heads);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, config, noted) = (connection.unwrap(), config.clone(), Arc::clone(&noted));
                std::thread::spawn(move || match config {
                    Some(config) => {
                        let tls = ServerConnection::new(config).unwrap();
                        answer(StreamOwned::new(tls, connection), &noted);
                    }
                    None => answer_at_once(connection, &noted),
                });
            }
        });
        Self { port, heads }
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Every head that came, and what came of one.
    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Until the client goes away, or its handshake fails.
fn answer(stream: impl Read + Write, heads: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !stream.read_until(b'\n', &mut head).is_ok_and(|count| count > 0) {
                if !head.is_empty() {
                    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                }
                return;
            }
        }
        heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    }
}

/// Whatever came first, in words of HTTP.
fn answer_at_once(mut stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let mut came = [0; 4_096];
    let count = stream.read(&mut came).unwrap();
    heads.lock().unwrap().push(String::from_utf8_lossy(&came[..count]).into_owned());
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

/// What two calls of one agent come to.
async fn called(socket: &str, ca_file: Option<&Path>, origin: &str) -> Vec<Result<String, Code>> {
    let route: Route = serde_json::from_value(json!({"audience": origin, "tools": ["search"]})).unwrap();
    let mut builder = Agent::builder().socket(socket).routes([route]);
    if let Some(file) = ca_file {
        builder = builder.ca_file(file);
    }
    let agent = builder.connect().await.unwrap();
    let mut found = Vec::new();
    for _ in 0..2 {
        found.push(match agent.fetch(Request::get(origin).body(()).unwrap()).await {
            Ok(answer) => {
                let body = answer.into_body().collect_up_to(16).await.unwrap();
                Ok(String::from_utf8(body.to_vec()).unwrap())
            }
            Err(error) => Err(error.code()),
        });
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_certificate_holds_is_called_and_any_other_is_sent_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ours, others) = (certificates::authority(folder, "ours"), certificates::authority(folder, "others"));
    let mut world = World::start();
    let socket = world.open(&json!({"servers": {}}))["agentSocket"].as_str().unwrap().to_owned();

    let serving =
        |file, name, holds| Server::start(Some(certificates::issued(folder, "ours", file, name, holds)));
    let good = serving("good", "localhost", Holds::Now);
    let elsewhere = serving("elsewhere", "elsewhere.example", Holds::Now);
    let over = serving("over", "localhost", Holds::InThePast);
    let plain = Server::start(None);
    let by_address = format!("https://127.0.0.1:{}", good.port);
    for (what, ca_file, origin) in [
        ("another authority alone is trusted", Some(&others), good.origin()),
        ("the system's authorities alone are trusted", None, good.origin()),
        ("the certificate is for another name", Some(&ours), elsewhere.origin()),
        ("the certificate is for the name, and not for the address", Some(&ours), by_address),
        ("the certificate's time is over", Some(&ours), over.origin()),
        ("no TLS is spoken", Some(&ours), plain.origin()),
    ] {
        let found = called(&socket, ca_file.map(PathBuf::as_path), &origin).await;
        let trusts_nobody = ca_file.is_none() && found.iter().all(|one| *one == Err(Code::InvalidArgument));
        assert!(trusts_nobody || found.iter().all(|one| *one == Err(Code::Unreachable)), "{what}: {found:?}");
    }
    for server in [&good, &elsewhere, &over] {
        assert_eq!(server.heads(), [""; 0], "nothing came through a handshake that failed");
    }
    let sent = plain.heads();
    assert!(!sent.is_empty() && sent.iter().all(|sent| !sent.contains("TBAC") && !sent.contains("tok_")));

    // The same server, trusted: what kept the token away was the certificate.
    assert_eq!(
        called(&socket, Some(&ours), &good.origin()).await,
        [Ok("ok".to_owned()), Ok("ok".to_owned())]
    );
    let heads = good.heads();
    let tokens: Vec<_> = heads.iter().filter_map(|head| head.split("TBAC tok_").nth(1)).collect();
    assert!(matches!(tokens.as_slice(), [one, other] if one != other), "a token each: {heads:?}");
}
