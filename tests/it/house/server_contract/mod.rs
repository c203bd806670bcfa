//! The contract that every server keeps: bound before it serves, steered by handles, drained before it ends.

mod ports;
mod sockets;

use core::any::Any;
use core::net::SocketAddr;
use core::time::Duration;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use obol_probe::contract::{Address, Ended};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use self::ports::{AgentsProxy, AuthenticationService, Guard, Provider, Resource, ReverseProxy};
use self::sockets::{Authenticator, Sidecar};

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

/// What a service can do.
trait Serve {
    type Handle: Steer;

    fn handle(&self) -> Self::Handle;
    /// Runs it until `shutdown` resolves.
    fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended>;
}

macro_rules! serve {
    ($($service:ty => $handle:ty),+ $(,)?) => {
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
        }

        impl Serve for $service {
            type Handle = $handle;

            fn handle(&self) -> $handle {
                Self::handle(self)
            }

            fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Ended> {
                tokio::spawn(Self::run(self, shutdown))
            }
        })+
    };
}

serve!(
    obol_authority::http::Service => obol_authority::http::Handle,
    obol_authenticator::service::Service => obol_authenticator::service::Handle,
    obol_sidecar::Service => obol_sidecar::Handle,
    obol_resource::service::Service => obol_resource::service::Handle,
    obol_atp_server::serve::Service => obol_atp_server::serve::Handle,
    obol_gateway::Service => obol_gateway::Handle,
    obol_mcp_http::Service => obol_mcp_http::Handle,
    obol_proxy::Service => obol_proxy::Handle,
);

/// One kind of server.
trait Kind {
    type Service: Serve;

    /// The address of loopback that is its own in this test, where it listens on ports.
    const HOST: [u8; 4] = [127, 0, 0, 1];

    /// Binds one that gives what is under way so long; or says why not. `at` is for those that listen on ports.
    async fn bind(&self, at: SocketAddr, drain: Duration) -> Result<Self::Service, String>;
    /// Begins something that ends in good order once the server stops.
    fn begin(address: &Address) -> Box<dyn FnOnce()>;
    /// Begins something that never ends by itself.
    fn hang(address: &Address) -> Box<dyn Any>;
}

fn connects(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => TcpStream::connect(address).is_ok(),
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    }
}

/// The address as an error names it.
fn name(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

fn keeps_the_contract<K: Kind>(kind: &K) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let anywhere = SocketAddr::from((K::HOST, 0));
    steps_while_it_serves(kind, &runtime, anywhere);
    is_freed_where_it_never_ran(kind, &runtime, anywhere);
    cuts_off_what_hangs(kind, &runtime, anywhere);
}

fn steps_while_it_serves<K: Kind>(kind: &K, runtime: &Runtime, anywhere: SocketAddr) {
    // Bound: it can be connected to. A handle that is dropped does nothing.
    let service = runtime.block_on(kind.bind(anywhere, PATIENCE)).unwrap();
    let handle = service.handle();
    let addresses = handle.addresses().to_vec();
    assert!(!addresses.is_empty() && addresses.iter().all(connects), "{addresses:?}");
    assert_ne!(handle.health(), Err("stopped".to_owned()));
    drop(handle.clone());
    let running = service.run(core::future::pending());
    std::thread::sleep(SHORT);
    assert!(!running.is_finished(), "a handle that was dropped stopped it");

    // What is taken is not to be had by a second one, which says what it wanted; the first goes on.
    let taken = addresses[0].tcp().unwrap_or(anywhere);
    let Err(refused) = runtime.block_on(kind.bind(taken, PATIENCE)) else { panic!("bound twice") };
    assert!(addresses.iter().any(|address| refused.contains(&name(address))), "{refused}");
    assert!(addresses.iter().all(connects), "{addresses:?}");

    // A clone's stop ends `run`, once what is under way has ended; nothing is accepted meanwhile or later.
    let finish = K::begin(&addresses[0]);
    handle.clone().stop();
    handle.stop();
    let deadline = Instant::now() + PATIENCE;
    while addresses.iter().any(connects) {
        assert!(Instant::now() < deadline, "it still accepts");
    }
    finish();
    assert_eq!(ended(runtime, running), Ended { cut_off: 0 });
    assert!(!addresses.iter().any(connects));

    // A handle outlives it: it knows the addresses, says that there is nothing any more, and has nothing to stop.
    assert_eq!(handle.health(), Err("stopped".to_owned()));
    handle.stop();
    assert_eq!(handle.addresses(), addresses);
}

fn is_freed_where_it_never_ran<K: Kind>(kind: &K, runtime: &Runtime, anywhere: SocketAddr) {
    let service = runtime.block_on(kind.bind(anywhere, PATIENCE)).unwrap();
    let handle = service.handle();
    drop(service);
    assert!(!handle.addresses().iter().any(connects), "{:?}", handle.addresses());
    assert_eq!(handle.health(), Err("stopped".to_owned()), "the handle keeps nothing of it");
}

fn cuts_off_what_hangs<K: Kind>(kind: &K, runtime: &Runtime, anywhere: SocketAddr) {
    // `shutdown` ends it too, and what does not end in its time is cut off and counted.
    let service = runtime.block_on(kind.bind(anywhere, SHORT)).unwrap();
    let handle = service.handle();
    let address = handle.addresses()[0].clone();
    let (say, said) = tokio::sync::oneshot::channel::<()>();
    let running = service.run(async move {
        let _said = said.await;
    });
    let hanging = K::hang(&address);
    // Accepted, and not only in the system's queue.
    std::thread::sleep(SHORT);
    let start = Instant::now();
    say.send(()).unwrap();
    assert_eq!(ended(runtime, running), Ended { cut_off: 1 });
    assert!(start.elapsed() >= SHORT, "it was given its time");
    assert!(!connects(&address));
    drop(hanging);
}

fn ended(runtime: &Runtime, running: JoinHandle<Ended>) -> Ended {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await }).unwrap().unwrap()
}

#[test]
fn the_authentication_service_keeps_the_contract() {
    keeps_the_contract(&AuthenticationService);
}

#[test]
fn the_guard_over_http_keeps_the_contract() {
    keeps_the_contract(&Guard);
}

#[test]
fn the_agents_proxy_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&AgentsProxy(folder.path()));
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
