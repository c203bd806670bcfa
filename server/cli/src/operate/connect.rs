//! The sockets of a running sidecar, as its agent or its operator.

use core::time::Duration;
use std::time::Instant;

use obol_client::{Client, ControlClient};
use obol_ipc::Endpoint;

use crate::exit::{Failure, Outcome};
use crate::operate::other_user;
use crate::peer::options;
use crate::places::environment;
use crate::settings::args::Sockets;

/// Pause between two attempts to reach a sidecar that is not there yet.
pub(super) const CONNECT_PAUSE: Duration = Duration::from_millis(25);

impl Sockets {
    /// The agent's socket of a running sidecar.
    pub(crate) fn agent(&self) -> Outcome<Client> {
        self.agent_until(Instant::now())
    }

    /// The agent's socket of a sidecar that may still be starting.
    pub(crate) fn agent_until(&self, deadline: Instant) -> Outcome<Client> {
        loop {
            let endpoint =
                Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
            match Client::connect(endpoint, options()?) {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    std::thread::sleep(CONNECT_PAUSE);
                }
                connected => {
                    return connected.map_err(|error| other_user::unconnected(error, "OBOL_ENDPOINT_SOCKET"));
                }
            }
        }
    }

    /// The operator's socket of a running sidecar.
    pub(crate) fn control(&self) -> Outcome<ControlClient> {
        let agent =
            Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(Failure::usage)?;
        let endpoint =
            Endpoint::control(self.control_socket.as_deref(), &agent, environment).map_err(Failure::usage)?;
        ControlClient::connect(endpoint, options()?)
            .map_err(|error| other_user::unconnected(error, "OBOL_CONTROL_SOCKET"))
    }
}
