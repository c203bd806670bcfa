//! Daemons on Unix sockets: what each is made of, what is under way there, and what hangs.

use core::any::Any;
use core::net::SocketAddr;
use core::time::Duration;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use obol_client::{AuthClient, Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::PeerName;
use obol_probe::contract::Address;
use obol_queue::{MasterKey, Queue};
use redb::backends::InMemoryBackend;

use super::Kind;

fn name() -> ConnectOptions {
    ConnectOptions::new(PeerName::new("test/1").unwrap())
}

fn endpoint(address: &Address) -> Endpoint {
    let Address::Unix(path) = address else { panic!("{address}") };
    Endpoint::at(path).unwrap()
}

pub(super) struct Sidecar<'a>(pub(super) &'a Path);

impl Kind for Sidecar<'_> {
    type Service = obol_sidecar::Service;

    async fn bind(&self, _: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let queue = Queue::builder()
            .open_with(InMemoryBackend::new(), InMemoryBackend::new(), MasterKey::from_bytes([7; 32]))
            .unwrap();
        let at = |name: &str| Endpoint::at(self.0.join("run").join(name)).unwrap();
        let options = obol_sidecar::Options::new(at("agent.sock"), at("control.sock"))
            .http(obol_sidecar::HttpAddress::Unix(at("http.sock")))
            .drain_timeout(drain);
        options.bind(Arc::new(queue)).await.map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let client = Client::connect(endpoint(address), name()).unwrap();
        Box::new(|| drop(client))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        // It never says hello.
        Box::new(UnixStream::connect(endpoint(address).path()).unwrap())
    }
}

pub(super) struct Authenticator<'a>(pub(super) &'a Path);

impl Kind for Authenticator<'_> {
    type Service = obol_authenticator::service::Service;

    async fn bind(&self, _: SocketAddr, drain: Duration) -> Result<Self::Service, String> {
        let pinned = format!("http://127.0.0.1:1#{}", "ab".repeat(32));
        let (file, key) = (self.0.join("agent.identity"), self.0.join("identity.key"));
        let authenticator = obol_authenticator::Authenticator::new(
            obol_uplink::Pinned::parse(&pinned).unwrap(),
            obol_authenticator::Identity::open_or_create(&file, &key).unwrap(),
            &obol_uplink::UplinkOptions::new(),
        );
        let at = |name: &str| Endpoint::at(self.0.join("run").join(name)).unwrap();
        obol_authenticator::service::Options::new(at("auth.sock"), at("control.sock"))
            .http(obol_sidecar::HttpAddress::Unix(at("auth-http.sock")))
            .drain_timeout(drain)
            .bind(authenticator.unwrap())
            .await
            .map_err(|error| error.to_string())
    }

    fn begin(address: &Address) -> Box<dyn FnOnce()> {
        let client = AuthClient::connect(endpoint(address), name()).unwrap();
        Box::new(|| drop(client))
    }

    fn hang(address: &Address) -> Box<dyn Any> {
        Sidecar::hang(address)
    }
}
