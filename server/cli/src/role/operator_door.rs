//! The operator's socket of a server that also serves strangers, and a runtime of its own: the operator is answered whatever
//! strangers ask of the others.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use obol_ipc::names::PeerName;
use obol_ipc::{Endpoint, Protocol};
use obol_probe::stop::Stop;
use obol_sidecar::{Answerer, BindError, OperatorSocket};
use tokio::runtime::Runtime;

use crate::exit::{Failure, Outcome};
use crate::signals::LAST_WAIT;

/// A socket that was taken.
#[derive(Debug)]
pub(crate) struct OperatorDoor {
    runtime: Runtime,
    socket: OperatorSocket,
}

impl OperatorDoor {
    /// Takes the socket, or says why it cannot be had. To be called outside the sandbox: whether a socket that is there is dead
    /// is found out by connecting to it.
    pub(crate) fn open(endpoint: &Endpoint) -> Outcome<Result<Self, BindError>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bound = {
            let _inside = runtime.enter();
            OperatorSocket::bind(endpoint)
        };
        Ok(bound.map(|socket| Self { runtime, socket }))
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Answers on a thread of its own until the word to stop is said. `server` is what it calls itself.
    pub(crate) fn serve<P: Protocol, A: Answerer<P>>(
        self,
        answerer: A,
        server: &str,
        stop: Stop,
    ) -> Outcome<JoinHandle<()>> {
        let server = PeerName::new(server).map_err(Failure::other)?;
        tracing::info!(control = %self.path().display(), "the operator is answered");
        let Self { runtime, socket } = self;
        let serve = move || {
            runtime.block_on(socket.serve(Arc::new(answerer), server, &stop));
            runtime.shutdown_timeout(LAST_WAIT);
        };
        Ok(std::thread::Builder::new().name("obol-operator".to_owned()).spawn(serve)?)
    }
}
