//! The contract that every server keeps: bound before it serves, steered by handles, drained before it ends.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_probe::contract::{Address, Ended};
use obol_queue::{MasterKey, Queue};
use obol_resource::Gate;
use obol_verify::MemorySpentSet;
use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::scope::scope_json;
use obol_world::server::Server as ResourceFixture;
use redb::backends::InMemoryBackend;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is under way gets so long where it is to be cut off.
const SHORT: Duration = Duration::from_millis(300);

/// What a handle can do.
trait Steer: Clone {
    fn stop(&self);
    fn addresses(&self) -> &[Address];
    fn health(&self) -> Result<(), String>;
}

macro_rules! steer {
    ($($handle:ty),+) => {
        $(impl Steer for $handle {
            fn stop(&self) {
                Self::stop(self);
            }

            fn addresses(&self) -> &[Address] {
                Self::addresses(self)
            }

            fn health(&self) -> Result<(), String> {
                Self::health(self)
            }
        })+
    };
}

steer!(
    obol_sidecar::Handle,
    obol_authenticator::service::Handle,
    obol_resource::service::Handle,
    obol_atp_server::serve::Handle,
    obol_gateway::Handle
);

/// One kind of server.
trait Kind {
    type Service;
    type Handle: Steer;

    /// Binds one that gives what is under way so long.
    async fn bind(&self, drain: Duration) -> Self::Service;
    fn handle(service: &Self::Service) -> Self::Handle;
    /// Runs it until `shutdown` resolves.
    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended>;
    /// Begins something that ends in good order once the server stops.
    fn begin(address: &Address) -> Box<dyn FnOnce()>;
    /// Begins something that never ends by itself.
    fn hang(address: &Address) -> Box<dyn core::any::Any>;
}

fn tcp(address: &Address) -> SocketAddr {
    address.tcp().unwrap()
}

/// Sends all of a request but the end of its body, once the server has asked for the body.
fn half_a_request(address: &Address, path: &str) -> TcpStream {
    half_a_request_with(address, path, "")
}

fn half_a_request_with(address: &Address, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(tcp(address)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).unwrap();
    stream.write_all(b"{").unwrap();
    stream
}

fn finished(stream: TcpStream) {
    finished_with(stream, "HTTP/1.1 4");
}

fn finished_with(mut stream: TcpStream, begin: &str) {
    stream.write_all(b"}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(begin), "{answer}");
}

struct Resource;

impl Kind for Resource {
    type Service = obol_resource::service::Service;
    type Handle = obol_resource::service::Handle;

    async fn bind(&self, drain: Duration) -> Self::Service {
        let options =
            obol_resource::service::Options::new("127.0.7.2:0".parse().unwrap()).drain_timeout(drain);
        options.bind(Gate::new(ResourceFixture::new().verifier)).await.unwrap()
    }

    fn handle(service: &Self::Service) -> Self::Handle {
        service.handle()
    }

    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
        tokio::spawn(service.run(shutdown))
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request(address, "/v1/verify");
        Box::new(|| finished(stream))
    }

    fn hang(address: &Address) -> Box<dyn core::any::Any> {
        Box::new(half_a_request(address, "/v1/verify"))
    }
}

struct Provider;

impl Kind for Provider {
    type Service = obol_atp_server::serve::Service;
    type Handle = obol_atp_server::serve::Handle;

    async fn bind(&self, drain: Duration) -> Self::Service {
        let clock = Arc::new(obol_verify::SystemClock::new());
        let book = br#"{"obol_atp":1,"shared":[{"secret":"a secret of more than thirty-two bytes"}]}"#;
        let router =
            obol_atp_server::Router::builder("https://api.example.com/v1/agent-tokens".parse().unwrap())
                .secrets(obol_atp_server::SecretBook::parse(book).unwrap())
                .scopes(["read"])
                .spent(Arc::new(MemorySpentSet::unfenced(clock, 60)))
                .build()
                .unwrap();
        let options = obol_atp_server::serve::Options::new("127.0.7.3:0".parse().unwrap())
            .http_at("127.0.7.3:0".parse().unwrap())
            .drain_timeout(drain);
        options.bind(router).await.unwrap()
    }

    fn handle(service: &Self::Service) -> Self::Handle {
        service.handle()
    }

    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
        tokio::spawn(service.run(shutdown))
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request(address, "/v1/agent-tokens");
        Box::new(|| finished(stream))
    }

    fn hang(address: &Address) -> Box<dyn core::any::Any> {
        Box::new(half_a_request(address, "/v1/agent-tokens"))
    }
}

struct ReverseProxy;

/// A call whose token is good, so that its body is waited for. Its API is away.
fn half_a_call(address: &Address) -> TcpStream {
    let token = Forge::new(1, &scope_json()).text();
    half_a_request_with(
        address,
        "/api/docs/a",
        &format!("Authorization: TBAC {token}\r\nContent-Type: application/json\r\n"),
    )
}

impl Kind for ReverseProxy {
    type Service = obol_gateway::Service;
    type Handle = obol_gateway::Handle;

    async fn bind(&self, drain: Duration) -> Self::Service {
        let api = json!({
            "upstream": "http://127.0.7.4:1", "credential": { "put": "bearer" },
            "route": [{
                "method": "POST", "path": "/docs/{name}", "tool": TOOL, "action": "read", "resource": "docs/{name}",
                "body": "json",
            }],
        });
        let api = serde_json::from_value(api).unwrap();
        let behind = obol_gateway::Behind::new("api", api, b"the API's long-lived key").unwrap();
        let gate = Gate::new(ResourceFixture::new().verifier);
        let options = obol_gateway::Options::new("127.0.7.4:0".parse().unwrap())
            .http_at("127.0.7.4:0".parse().unwrap())
            .drain_timeout(drain);
        options.bind(obol_gateway::Gateway::new(gate, vec![behind])).await.unwrap()
    }

    fn handle(service: &Self::Service) -> Self::Handle {
        service.handle()
    }

    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
        tokio::spawn(service.run(shutdown))
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_call(address);
        Box::new(|| finished_with(stream, "HTTP/1.1 503"))
    }

    fn hang(address: &Address) -> Box<dyn core::any::Any> {
        Box::new(half_a_call(address))
    }
}

struct Sidecar<'a>(&'a Path);

impl Kind for Sidecar<'_> {
    type Service = obol_sidecar::Service;
    type Handle = obol_sidecar::Handle;

    async fn bind(&self, drain: Duration) -> Self::Service {
        let queue = Queue::builder()
            .open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([7; 32]))
            .unwrap();
        let at = |name: &str| Endpoint::at(self.0.join("run").join(name)).unwrap();
        let options = obol_sidecar::Options::new(at("agent.sock"), at("control.sock"))
            .http(obol_sidecar::HttpAddress::Unix(at("http.sock")))
            .drain_timeout(drain);
        options.bind(Arc::new(queue)).await.unwrap()
    }

    fn handle(service: &Self::Service) -> Self::Handle {
        service.handle()
    }

    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
        tokio::spawn(service.run(shutdown))
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let Address::Unix(path) = address else { panic!("{address}") };
        let name = obol_ipc::names::PeerName::new("test/1").unwrap();
        let client = Client::connect(Endpoint::at(path).unwrap(), ConnectOptions::new(name)).unwrap();
        Box::new(|| drop(client))
    }

    fn hang(address: &Address) -> Box<dyn core::any::Any> {
        let Address::Unix(path) = address else { panic!("{address}") };
        // It never says hello.
        Box::new(UnixStream::connect(path).unwrap())
    }
}

struct Authenticator<'a>(&'a Path);

impl Kind for Authenticator<'_> {
    type Service = obol_authenticator::service::Service;
    type Handle = obol_authenticator::service::Handle;

    async fn bind(&self, drain: Duration) -> Self::Service {
        let pinned = format!("http://127.0.0.1:1#{}", "ab".repeat(32));
        let (file, key) = (self.0.join("agent.identity"), self.0.join("identity.key"));
        let authenticator = obol_authenticator::Authenticator::new(
            obol_uplink::Pinned::parse(&pinned).unwrap(),
            obol_authenticator::Identity::open_or_create(&file, &key).unwrap(),
            &obol_uplink::ConnectOptions::new(),
        );
        let at = |name: &str| Endpoint::at(self.0.join("run").join(name)).unwrap();
        obol_authenticator::service::Options::new(at("auth.sock"), at("control.sock"))
            .http(obol_sidecar::HttpAddress::Unix(at("auth-http.sock")))
            .drain_timeout(drain)
            .bind(authenticator.unwrap())
            .await
            .unwrap()
    }

    fn handle(service: &Self::Service) -> Self::Handle {
        service.handle()
    }

    fn run(service: Self::Service, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
        tokio::spawn(service.run(shutdown))
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let Address::Unix(path) = address else { panic!("{address}") };
        let name = obol_ipc::names::PeerName::new("test/1").unwrap();
        let client =
            obol_client::AuthClient::connect(Endpoint::at(path).unwrap(), ConnectOptions::new(name)).unwrap();
        Box::new(|| drop(client))
    }

    fn hang(address: &Address) -> Box<dyn core::any::Any> {
        Sidecar::hang(address)
    }
}

fn connects(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => TcpStream::connect(address).is_ok(),
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    }
}

fn keeps_the_contract<K: Kind>(kind: &K) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();

    // Bound: it can be connected to. A handle that is dropped does nothing.
    let service = runtime.block_on(kind.bind(PATIENCE));
    let handle = K::handle(&service);
    let addresses = handle.addresses().to_vec();
    assert!(!addresses.is_empty() && addresses.iter().all(connects), "{addresses:?}");
    let _said = handle.health();
    drop(handle.clone());
    let running = K::run(service, core::future::pending());
    std::thread::sleep(SHORT);
    assert!(!running.is_finished(), "a handle that was dropped stopped it");

    // A clone's stop ends `run`, once what is under way has ended; nothing is accepted meanwhile or later.
    let finish = K::begin(&addresses[0]);
    handle.clone().stop();
    handle.stop();
    let deadline = Instant::now() + PATIENCE;
    while addresses.iter().any(connects) {
        assert!(Instant::now() < deadline, "it still accepts");
    }
    finish();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await }).unwrap().unwrap();
    assert_eq!(ended, Ended { cut_off: 0 });
    assert!(!addresses.iter().any(connects));
    assert_eq!(handle.health(), Err("stopped".to_owned()));
    drop(handle);

    // `shutdown` ends it too, and what does not end in its time is cut off and counted.
    let service = runtime.block_on(kind.bind(SHORT));
    let handle = K::handle(&service);
    let address = handle.addresses()[0].clone();
    let (say, said) = tokio::sync::oneshot::channel::<()>();
    let running = K::run(service, async move {
        let _said = said.await;
    });
    let hanging = K::hang(&address);
    // Accepted, and not only in the system's queue.
    std::thread::sleep(SHORT);
    let start = Instant::now();
    say.send(()).unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await }).unwrap().unwrap();
    assert_eq!(ended, Ended { cut_off: 1 });
    assert!(start.elapsed() >= SHORT, "it was given its time");
    assert!(!connects(&address));
    drop(hanging);
}

#[test]
fn the_resource_server_keeps_the_contract() {
    keeps_the_contract(&Resource);
}

#[test]
fn the_provider_of_the_agent_token_protocol_keeps_the_contract() {
    keeps_the_contract(&Provider);
}

#[test]
fn the_gateway_keeps_the_contract() {
    keeps_the_contract(&ReverseProxy);
}

#[test]
fn the_sidecar_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&Sidecar(folder.path()));
}

#[test]
fn the_authenticator_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&Authenticator(folder.path()));
}
