//! Servers on ports: what each is made of, what is under way there, and what hangs.

use core::any::Any;
use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use obol_authority::directory::MemoryDirectory;
use obol_authority::policy::KeptPolicy;
use obol_authority::{Authority, Now, Parts, Settings};
use obol_handshake::AuthoritySecret;
use obol_probe::contract::Address;
use obol_resource::Gate;
use obol_verify::MemorySpentSet;
use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::scope::scope_json;
use obol_world::server::Server as ResourceFixture;
use serde_json::json;

use super::sockets::Sidecar;
use super::{Kind, PATIENCE};

/// Another port of the same address.
fn any_port(mut at: SocketAddr) -> SocketAddr {
    at.set_port(0);
    at
}

/// Sends all of a request but the end of its body, once the server has asked for the body.
fn half_a_request(address: &Address, path: &str) -> TcpStream {
    half_a_request_with(address, path, "")
}

fn half_a_request_with(address: &Address, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address.tcp().unwrap()).unwrap();
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

pub(super) struct Resource;

impl Kind for Resource {
    type Service = obol_resource::service::Service;

    const HOST: [u8; 4] = [127, 0, 7, 2];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let options = obol_resource::service::Options::new(at).drain_timeout(drain);
        let bound = options.bind(Gate::new(ResourceFixture::new().verifier)).await;
        bound.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request(address, "/v1/verify");
        Box::new(|| finished(stream))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_request(address, "/v1/verify"))
    }
}

pub(super) struct Provider;

impl Kind for Provider {
    type Service = obol_atp_server::serve::Service;

    const HOST: [u8; 4] = [127, 0, 7, 3];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let clock = Arc::new(obol_verify::SystemClock::new());
        let book = br#"{"obol_atp":1,"shared":[{"secret":"a secret of more than thirty-two bytes"}]}"#;
        let router =
            obol_atp_server::Router::builder("https://api.example.com/v1/agent-tokens".parse().unwrap())
                .secrets(obol_atp_server::SecretBook::parse(book).unwrap())
                .scopes(["read"])
                .spent(Arc::new(MemorySpentSet::unfenced(clock, 60)))
                .build()
                .unwrap();
        let options = obol_atp_server::serve::Options::new(at).http_at(any_port(at)).drain_timeout(drain);
        options.bind(router).await.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request(address, "/v1/agent-tokens");
        Box::new(|| finished(stream))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_request(address, "/v1/agent-tokens"))
    }
}

pub(super) struct ReverseProxy;

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

    const HOST: [u8; 4] = [127, 0, 7, 4];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
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
        let options = obol_gateway::Options::new(at).http_at(any_port(at)).drain_timeout(drain);
        let bound = options.bind(obol_gateway::Gateway::new(gate, vec![behind])).await;
        bound.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_call(address);
        Box::new(|| finished_with(stream, "HTTP/1.1 503"))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_call(address))
    }
}

pub(super) struct Guard;

const MESSAGE: &str = "Content-Type: application/json\r\n";

impl Kind for Guard {
    type Service = obol_mcp_http::Service;

    const HOST: [u8; 4] = [127, 0, 7, 5];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let guard = obol_mcp::ToolGuard::new(Gate::new(ResourceFixture::new().verifier));
        let front = obol_mcp::front::Front::new(guard, obol_mcp::Rules::default(), Box::new(|_| false));
        let remote = obol_mcp_http::Remote::new("http://127.0.7.5:1/mcp", false).unwrap();
        let options = obol_mcp_http::Options::new(at).http_at(any_port(at)).drain_timeout(drain);
        let bound = options.bind(obol_mcp_http::Proxy::new(front, remote)).await;
        bound.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request_with(address, "/mcp", MESSAGE);
        Box::new(|| finished_with(stream, "HTTP/1.1 400"))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_request_with(address, "/mcp", MESSAGE))
    }
}

pub(super) struct AuthenticationService;

const HANDSHAKE: &str = "Content-Type: application/vnd.obol.handshake\r\n";

impl Kind for AuthenticationService {
    type Service = obol_authority::http::Service;

    const HOST: [u8; 4] = [127, 0, 7, 6];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let directory = Arc::new(MemoryDirectory::new());
        let parts = Parts {
            settings: Settings::new("http://127.0.7.6:8720", "example").unwrap(),
            decider: KeptPolicy::load(&*directory).unwrap().decider(),
            directory,
            key: AuthoritySecret::from_bytes(&[7; 32]),
            code_key: [3; 32],
            audit: None,
        };
        let authority = Arc::new(Authority::new(parts, Now { ms: 1_000 }).unwrap());
        let options = obol_authority::http::Options::new(at).http_at(any_port(at)).drain_timeout(drain);
        options.bind(authority).await.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request_with(address, "/v1/handshake", HANDSHAKE);
        Box::new(|| finished_with(stream, "HTTP/1.1 4"))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_request_with(address, "/v1/handshake", HANDSHAKE))
    }
}

/// A proxy, and the sidecar in front of which it stands, which serves as long as the test runs.
pub(super) struct AgentsProxy<'a>(pub(super) &'a Path);

impl Kind for AgentsProxy<'_> {
    type Service = obol_proxy::Service;

    const HOST: [u8; 4] = [127, 0, 7, 7];

    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let socket = self.0.join("run/agent.sock");
        if !socket.exists() {
            let sidecar = Sidecar(self.0).bind(at, PATIENCE).await.unwrap();
            tokio::spawn(sidecar.run(core::future::pending()));
        }
        let agent = obol_agent::Agent::builder().socket(&socket).routes(Vec::new()).connect().await.unwrap();
        let targets = obol_proxy::Targets::read(&["api=https://api.example".to_owned()]).unwrap();
        let door = obol_proxy::Door::looked(at, obol_proxy::Owners::open().unwrap(), Arc::new(|_| true));
        let options = obol_proxy::Options::new([door]).drain_timeout(drain);
        let bound = options.bind(obol_proxy::Proxy::new(agent, targets)).await;
        bound.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let stream = half_a_request(address, "/api/x");
        Box::new(|| finished(stream))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Box::new(half_a_request(address, "/api/x"))
    }
}
