//! The agent's side of the demo: `obol tqs` and `obol authenticator`, each a process of its own that can be killed.

use core::time::Duration;

use obol_client::{AuthClient, Client, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::names::ToolName;

use super::home::{Home, Process};
use crate::exit::{Failure, Outcome};
use crate::peer::options;

/// How long a draw may wait for a token.
const DRAW_PATIENCE: Duration = Duration::from_secs(5);

/// A running sidecar.
pub(crate) struct Sidecar {
    process: Process,
    agent: Endpoint,
    control: Endpoint,
}

impl Sidecar {
    /// Starts on the files that may be there from before.
    pub(crate) fn start(home: &Home) -> Outcome<Self> {
        let (agent, control) = (home.socket("agent.sock")?, home.socket("control.sock")?);
        let process = home.start("tqs", &[], || connect(&agent).is_ok())?;
        Ok(Self { process, agent, control })
    }

    pub(crate) fn client(&self) -> Outcome<Client> {
        connect(&self.agent)
    }

    pub(crate) fn control(&self) -> Outcome<ControlClient> {
        Ok(ControlClient::connect(self.control.clone(), options()?)?)
    }

    /// Ends the process as hard as a process can end.
    pub(crate) fn kill(self) -> Outcome {
        self.process.kill()
    }
}

/// A running authenticator.
pub(crate) struct Authenticator {
    socket: Endpoint,
    _process: Process,
}

impl Authenticator {
    /// One that knows the service by its pin.
    pub(crate) fn start(home: &Home, pin: &str) -> Outcome<Self> {
        let socket = home.socket("auth.sock")?;
        let process = home.start("authenticator", &["--url", pin], || ask(&socket).is_ok())?;
        Ok(Self { socket, _process: process })
    }

    pub(crate) fn client(&self) -> Outcome<AuthClient> {
        ask(&self.socket)
    }
}

fn connect(socket: &Endpoint) -> Outcome<Client> {
    Ok(Client::connect(socket.clone(), options()?)?)
}

fn ask(socket: &Endpoint) -> Outcome<AuthClient> {
    Ok(AuthClient::connect(socket.clone(), options()?)?)
}

/// Draws one token; gives back its text.
pub(crate) fn draw(client: &mut Client, tool: &str) -> Outcome<String> {
    let tool = ToolName::new(tool).map_err(Failure::other)?;
    let drawn = client.dequeue_token(&tool, DRAW_PATIENCE)?;
    Ok(drawn.token.expose().to_owned())
}
