//! What the agent in Rust does when a provider refuses what it signed: once more with the provider's time, or with a secret that was
//! changed meanwhile, and never a third time. The provider is a real one behind a TLS socket; its clock is wrong, or the agent's is.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use obol_atp::Host;
use obol_atp_client::{AtpError, Client, KeychainChoice, Options, Token};
use obol_atp_server::{Router, SecretBook, Store};
use obol_verify::{Clock, MemorySpentSet, SystemClock};
use obol_world::certificates;
use obol_world::home::write_private;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tower::ServiceExt as _;

use crate::atp::agent::{SECRET, now_ms, read};

const NEWER: &str = "the secret after a rotation, long enough";
const MINUTE: i64 = 60;

/// A clock that is wrong by so many seconds.
#[derive(Debug)]
struct Wrong(SystemClock, i64);

impl Clock for Wrong {
    fn now(&self) -> u64 {
        self.0.now().saturating_add_signed(self.1)
    }

    fn monotonic(&self) -> u64 {
        self.0.monotonic()
    }
}

/// How a provider differs from one whose clock is right and that says so.
#[derive(Clone, Default)]
struct Provider {
    /// How far its clock is ahead of the agent's, in seconds.
    ahead: i64,
    /// How far what it says of its clock is ahead of that, in seconds.
    says_ahead: i64,
    says_no_date: bool,
    /// Written into the agent's file of the secret while its first request is under way.
    rotated_meanwhile: bool,
    /// The secret that it takes.
    secret: Option<&'static str>,
}

/// A running provider, and an agent of it.
struct World {
    folder: tempfile::TempDir,
    client: Client,
    host: Host,
    signed_requests: Arc<AtomicUsize>,
}

impl World {
    fn new(provider: Provider) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates::self_signed(folder.path(), "cert.pem", "key.pem");
        write_private(&folder.path().join("secret"), SECRET);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host: Host = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let clock = Arc::new(Wrong(SystemClock::new(), provider.ahead));
        let secret = provider.secret.unwrap_or(SECRET);
        let router = Router::builder(format!("https://{host}/v1/agent-tokens").parse().unwrap())
            .secrets(SecretBook::shared(secret.as_bytes()).unwrap())
            .scopes(["read"])
            .store(Store::memory())
            .spent(Arc::new(MemorySpentSet::unfenced(Arc::<Wrong>::clone(&clock), 60)))
            .clock(clock)
            .build()
            .unwrap();
        let signed_requests = Arc::default();
        let front = Front {
            routes: axum::Router::new().merge(router.well_known()).nest("/v1/agent-tokens", router.into()),
            provider,
            secret_file: folder.path().join("secret"),
            signed_requests: Arc::clone(&signed_requests),
            runtime: Handle::current(),
        };
        front.listen(listener, &folder.path().join("cert.pem"), &folder.path().join("key.pem"));
        let options = Options::new(folder.path().join("agent")).secret_file(folder.path().join("secret"));
        let options = options.ca_file(folder.path().join("cert.pem")).allow_private([host.clone()]);
        let client = Client::open(options.keychain(KeychainChoice::File)).unwrap();
        Self { folder, client, host, signed_requests }
    }

    /// What comes of one request for a token, and how many signed requests that took.
    async fn ask(&self) -> (Result<Token, AtpError>, usize) {
        let before = self.signed_requests.load(Ordering::SeqCst);
        let outcome = self.client.request_token(&self.host, &read()).await;
        (outcome, self.signed_requests.load(Ordering::SeqCst) - before)
    }

    async fn is_refused(&self, expected: &str) -> usize {
        let (outcome, requests) = self.ask().await;
        let refused = outcome.map(|_| ()).unwrap_err();
        assert!(matches!(refused.cause(), AtpError::Refused { code, .. } if code == expected), "{refused}");
        requests
    }
}

/// Stands at the socket for the provider's routes, and says what time it is there.
#[derive(Clone)]
struct Front {
    routes: axum::Router,
    provider: Provider,
    secret_file: PathBuf,
    signed_requests: Arc<AtomicUsize>,
    runtime: Handle,
}

impl Front {
    fn listen(self, listener: TcpListener, certificate: &Path, key: &Path) {
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (front, connection) = (self.clone(), connection.unwrap());
                std::thread::spawn(move || front.answer(StreamOwned::new(tls, connection)));
            }
        });
    }

    /// Answers one request of a connection.
    fn answer(&self, stream: StreamOwned<ServerConnection, TcpStream>) {
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "the agent went away: {lines:?}");
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut request = axum::http::Request::builder().method(method).uri(path);
        let mut length = 0;
        for (name, value) in lines.iter().skip(1).filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        if method == "POST" {
            self.signed_requests.fetch_add(1, Ordering::SeqCst);
            if self.provider.rotated_meanwhile {
                write_private(&self.secret_file, NEWER);
            }
        }
        let answer = self.runtime.block_on(async {
            let (head, body) = self
                .routes
                .clone()
                .oneshot(request.body(Body::from(body)).unwrap())
                .await
                .unwrap()
                .into_parts();
            (head, to_bytes(body, 1 << 20).await.unwrap())
        });
        let mut text = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.0.status);
        if !self.provider.says_no_date {
            text += &format!("Date: {}\r\n", http_date(self.provider.ahead + self.provider.says_ahead));
        }
        for (name, value) in &answer.0.headers {
            if name != "content-length" {
                text += &format!("{name}: {}\r\n", value.to_str().unwrap());
            }
        }
        text += &format!("Content-Length: {}\r\n\r\n", answer.1.len());
        let stream = stream.get_mut();
        stream.write_all(text.as_bytes()).unwrap();
        stream.write_all(&answer.1).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }
}

/// The time so many seconds from now, as headers have it.
fn http_date(ahead: i64) -> String {
    let at = (now_ms() / 1_000).saturating_add_signed(ahead);
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-d", &format!("@{at}"), "+%a, %d %b %Y %H:%M:%S GMT"]);
    String::from_utf8(date.output().unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_by_minutes_is_corrected_once_by_the_providers() {
    for (ahead, requests) in [(0, 1), (10 * MINUTE, 2), (-10 * MINUTE, 2)] {
        let world = World::new(Provider { ahead, ..Provider::default() });
        let (token, taken) = world.ask().await;
        let token = token.unwrap_or_else(|error| panic!("{ahead}: {error}"));
        assert_eq!(taken, requests, "{ahead}");
        let life = token.expires_at.abs_diff(now_ms());
        assert!((3_500_000..=3_600_000).contains(&life), "{life} ms by the agent's own clock");
        let (again, taken) = world.ask().await;
        assert!(again.is_ok());
        assert_eq!(taken, 1, "{ahead}: what it learned it keeps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_correction_leads_to_a_third_request_nor_one_that_is_too_large_to_a_second() {
    let far = World::new(Provider { ahead: 60 * MINUTE, ..Provider::default() });
    assert_eq!(far.is_refused("stale_timestamp").await, 1, "an hour is not a clock that is a bit wrong");
    let silent = World::new(Provider { ahead: 10 * MINUTE, says_no_date: true, ..Provider::default() });
    assert_eq!(silent.is_refused("stale_timestamp").await, 1, "it does not say what time it is");
    let lying = World::new(Provider { ahead: 10 * MINUTE, says_ahead: -20 * MINUTE, ..Provider::default() });
    assert_eq!(lying.is_refused("stale_timestamp").await, 2, "once more, and then no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_changed_while_a_request_was_under_way_is_read_again_once() {
    let meanwhile = Provider { secret: Some(NEWER), rotated_meanwhile: true, ..Provider::default() };
    let world = World::new(meanwhile);
    let (token, taken) = world.ask().await;
    assert!(token.is_ok(), "{:?}", token.err());
    assert_eq!(taken, 2);
    let (again, taken) = world.ask().await;
    assert!(again.is_ok());
    assert_eq!(taken, 1, "control: what the file holds now is right at once");

    let world = World::new(Provider { secret: Some(NEWER), ..Provider::default() });
    assert_eq!(
        world.is_refused("invalid_signature").await,
        1,
        "the same secret again would be refused again"
    );
    write_private(&world.folder.path().join("secret"), NEWER);
    let (token, taken) = world.ask().await;
    assert!(token.is_ok());
    assert_eq!(taken, 1, "it is read for each request");

    let neither = Provider { secret: Some("a third secret that is long enough"), ..Provider::default() };
    let world = World::new(Provider { rotated_meanwhile: true, ..neither });
    assert_eq!(world.is_refused("invalid_signature").await, 2, "once more, and then no more");
}
