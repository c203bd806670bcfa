//! Whom a server of agents is for, and the Unix socket that is theirs.

use std::ffi::OsStr;
use std::path::Path;

use obol_ipc::Endpoint;
use obol_sidecar::{Access, AgentUsers, AgentUsersError, HttpAddress, HttpListener};

use crate::exit::{Failure, Outcome};

/// This process's own user, and those who are named by `--agent-user`.
pub(crate) fn access(names: &[String]) -> Outcome<Access> {
    if names.is_empty() {
        return Ok(Access::OwnUser);
    }
    let users = AgentUsers::named(names, rustix::process::geteuid().as_raw());
    users.map(Access::Agents).map_err(|error| match error {
        AgentUsersError::HasTheKeys(_) => Failure::usage(
            "--agent-user names root or this process's own user, which are served anyway; leave it out",
        ),
        error => Failure::usage(format_args!("--agent-user {error}")),
    })
}

/// Takes the socket: a path, or `unix:///path`. To be called within a runtime, and outside the sandbox.
pub(crate) fn listener(socket: &OsStr, access: Access) -> Outcome<HttpListener> {
    let text = socket.to_str().and_then(|text| text.strip_prefix("unix://"));
    let path = std::path::absolute(text.map_or(Path::new(socket), Path::new))?;
    let endpoint = Endpoint::at(path).map_err(Failure::usage)?;
    HttpAddress::Unix(endpoint).bind(access).map_err(Failure::unavailable)
}
