//! The resource server's service in this process, alone or beside a guarded app.

use core::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use obol_probe::contract::Ended;
use obol_resource::service::{Handle, Options, Service};
use obol_resource::{Gate, SpentToken, TbacLayer, ToolCall};
use obol_verify::{Denial, Verifier};
use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::server::Server;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Answer, PATIENCE, fetch, post};
use crate::end_to_end::api;

/// A service that runs on the current runtime.
pub(super) struct Running {
    address: SocketAddr,
    handle: Handle,
    task: JoinHandle<Ended>,
}

impl Running {
    pub(super) fn start(service: Service) -> Self {
        let handle = service.handle();
        let address = handle.addresses()[0].tcp().unwrap();
        Self { address, handle, task: tokio::spawn(service.run(core::future::pending())) }
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn stop(self) -> Ended {
        self.handle.stop();
        self.task.await.unwrap()
    }
}

/// A guarded app and the service beside it, on two ports of one process.
pub(super) struct Site {
    _runtime: Runtime,
    pub(super) server: Server,
    pub(super) app: SocketAddr,
    pub(super) service: Running,
}

impl Site {
    pub(super) fn new() -> Self {
        Self::with_gate(Gate::new)
    }

    pub(super) fn with_gate(gate: impl FnOnce(Verifier) -> Gate) -> Self {
        Self::configured(gate, |options| options.header_timeout(PATIENCE).body_timeout(PATIENCE))
    }

    pub(super) fn configured(
        gate: impl FnOnce(Verifier) -> Gate,
        limits: impl FnOnce(Options) -> Options,
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = Server::new();
        let gate = gate(server.verifier.clone());
        let (app, service) = runtime.block_on(async {
            let app = api::listen(guarded_app(gate.clone())).await;
            let options = limits(Options::new("127.0.0.1:0".parse().unwrap()));
            (app, Running::start(options.bind(gate).await.unwrap()))
        });
        Self { _runtime: runtime, server, app, service }
    }

    pub(super) fn service(&self) -> SocketAddr {
        self.service.local_addr()
    }

    pub(super) fn call(&self, target: &str, token: &Forge) -> Answer {
        fetch(self.app, target, &[("Authorization", &format!("TBAC {}", token.text()))])
    }

    pub(super) fn verify(&self, token: &Forge, more: Value) -> Answer {
        let mut body = json!({"token": token.text(), "tool": TOOL});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        post(self.service(), "/v1/verify", &body.to_string())
    }
}

fn guarded_app(gate: Gate) -> Router {
    async fn hello(token: SpentToken, headers: axum::http::HeaderMap) -> String {
        assert!(!headers.contains_key("authorization"), "a handler has no use for the token");
        format!("{} for {}", token.scope().tool, token.session_id())
    }
    let by_path = |parts: &axum::http::request::Parts| match parts.uri.path().strip_prefix("/docs/") {
        Some("") | None => Err(Denial::malformed_request("no document is named")),
        Some(name) => Ok(ToolCall::new(TOOL).action("read").resource(format!("docs/{name}"))),
    };
    Router::new()
        .route("/search", get(hello).layer(TbacLayer::new(gate.clone(), ToolCall::new(TOOL).action("read"))))
        .route("/delete", get(hello).layer(TbacLayer::new(gate.clone(), ToolCall::new("delete"))))
        .route("/docs/{*name}", get(hello).layer(TbacLayer::from_parts(gate, by_path)))
        .route("/forgotten", get(hello))
}
