//! The resource server's service, running in this process.

use std::net::SocketAddr;

use obol_probe::contract::Ended;
use obol_resource::service::{Handle, Service};
use tokio::task::JoinHandle;

/// A service that runs on the current runtime.
pub(crate) struct Running {
    address: SocketAddr,
    handle: Handle,
    task: JoinHandle<Ended>,
}

impl Running {
    pub(crate) fn start(service: Service) -> Self {
        let handle = service.handle();
        let address = handle.addresses()[0].tcp().unwrap();
        Self { address, handle, task: tokio::spawn(service.run(core::future::pending())) }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) -> Ended {
        self.handle.stop();
        self.task.await.unwrap()
    }
}
