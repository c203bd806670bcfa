//! The gateway's Unix socket, on a thread of its own: it is taken outside the sandbox, and served inside.

use std::path::PathBuf;
use std::thread::JoinHandle;

use obol_gateway::Gateway;
use obol_sandbox::Sandbox;
use obol_sidecar::HttpListener;
use tokio::runtime::Runtime;

use crate::exit::Outcome;
use crate::places::folder_of;
use crate::role::agents::{access, listener};
use crate::settings::args::gateway::GatewayArgs;
use crate::signals::LAST_WAIT;

/// A socket that was taken.
#[derive(Debug)]
pub(super) struct UnixDoor {
    runtime: Runtime,
    listener: HttpListener,
}

impl UnixDoor {
    /// Takes the socket, if there is to be one.
    pub(super) fn open(args: &GatewayArgs) -> Outcome<Option<Self>> {
        let Some(socket) = &args.unix else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            listener(socket, access(&args.agent_user)?)?
        };
        Ok(Some(Self { runtime, listener }))
    }

    /// Lets it be served, and removed at the end.
    pub(super) fn within(&self, sandbox: Sandbox) -> Sandbox {
        let sandbox = sandbox.serve_unix();
        match self.listener.path() {
            Some(path) => sandbox.write(folder_of(path)),
            None => sandbox,
        }
    }

    /// Serves until the gateway's service stops.
    pub(super) fn serve(self, gateway: Gateway) -> Outcome<JoinHandle<()>> {
        let Self { runtime, listener } = self;
        let socket = listener.path().map(PathBuf::from).unwrap_or_default();
        tracing::info!(socket = %socket.display(), "listening");
        let serve = move || {
            let _said_in_the_log = runtime.block_on(gateway.serve_beside(listener));
            runtime.shutdown_timeout(LAST_WAIT);
        };
        Ok(std::thread::Builder::new().name("obol-unix".to_owned()).spawn(serve)?)
    }
}
