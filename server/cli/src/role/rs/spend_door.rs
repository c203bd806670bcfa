//! The socket where others spend identifiers of their own (`POST /v1/spend`), and a runtime of its own. Only for users that were named,
//! and this server's own: who spends what is another's keeps that other out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use obol_ipc::Endpoint;
use obol_probe::stop::Stop;
use obol_resource::Gate;
use obol_resource::service::SpendService;
use obol_sandbox::Sandbox;
use obol_sidecar::{Access, AgentUsersError, HttpAddress, HttpListener};
use obol_verify::SystemClock;
use tokio::runtime::Runtime;

use crate::exit::{Failure, Outcome};
use crate::places::folder_of;
use crate::settings::args::RsArgs;
use crate::settings::config::Config;
use crate::signals::LAST_WAIT;

/// A socket that was taken.
#[derive(Debug)]
pub(super) struct SpendDoor {
    runtime: Runtime,
    listener: HttpListener,
    path: PathBuf,
}

impl SpendDoor {
    /// Takes the socket, if there is to be one. To be called outside the sandbox.
    pub(super) fn open(args: &RsArgs, config: &Config) -> Outcome<Option<Self>> {
        let Some((endpoint, access)) = socket(args, config)? else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bound = {
            let _inside = runtime.enter();
            HttpAddress::Unix(endpoint.clone()).bind(access)
        };
        let listener = bound.map_err(Failure::unavailable)?;
        Ok(Some(Self { runtime, listener, path: endpoint.path().to_owned() }))
    }

    /// Lets the socket be removed at the end.
    pub(super) fn within(&self, sandbox: Sandbox) -> Sandbox {
        sandbox.serve_unix().write(folder_of(&self.path))
    }

    /// Spends on a thread of its own until the word to stop is said.
    pub(super) fn serve(self, gate: Gate, clock: Arc<SystemClock>, stop: Stop) -> Outcome<JoinHandle<()>> {
        let Self { runtime, listener, path } = self;
        tracing::info!(socket = %path.display(), "identifiers of others are spent here");
        let serve = move || {
            let _said_in_the_log = runtime.block_on(SpendService::new(gate, clock).run(listener, &stop));
            runtime.shutdown_timeout(LAST_WAIT);
        };
        Ok(std::thread::Builder::new().name("obol-spend".to_owned()).spawn(serve)?)
    }
}

/// Where, and for whom; without opening anything.
pub(crate) fn socket(args: &RsArgs, config: &Config) -> Outcome<Option<(Endpoint, Access)>> {
    let Some(path) = args.spend_socket.as_deref().or(config.rs.spend_socket.as_deref()) else {
        if config.rs.spend_users.is_some() {
            return Err(Failure::usage("rs.spend_users needs a socket; name one in rs.spend_socket"));
        }
        return Ok(None);
    };
    let endpoint = Endpoint::at(absolute(path)?).map_err(Failure::usage)?;
    let Some(users) = &config.rs.spend_users else { return Ok(Some((endpoint, Access::OwnUser))) };
    let access = users.find().map(Access::Agents).map_err(|error| match error {
        AgentUsersError::Nobody => Failure::usage(
            "rs.spend_users is empty; leave it out if only this server's own user and root are to spend",
        ),
        AgentUsersError::HasTheKeys(_) => Failure::usage(
            "rs.spend_users names root or this server's own user, which may spend anyway; leave it out",
        ),
        error => Failure::usage(format_args!("rs.spend_users {error}")),
    })?;
    Ok(Some((endpoint, access)))
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    let text = path.to_str().and_then(|text| text.strip_prefix("unix://"));
    Ok(std::path::absolute(text.map_or(path, Path::new))?)
}
