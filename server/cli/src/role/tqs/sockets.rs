//! The sockets: bound here, or bound by the service manager and handed over.

use core::net::SocketAddr;
use std::ffi::OsStr;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;
use obol_ipc::Endpoint;
use obol_sidecar::{Access, HttpAddress, HttpListener, Listener};

use crate::exit::{Failure, Outcome};
use crate::places::{environment, folder_of};
use crate::settings::args::TqsArgs;
use crate::settings::config::Config;

/// File of the HTTP listener, beside the agent's socket.
const HTTP_SOCKET: &str = "http.sock";

/// Everything the daemon listens on.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) agent: Listener,
    pub(super) control: Listener,
    pub(super) http: Option<HttpListener>,
}

impl Sockets {
    /// Takes over what the service manager hands over, and binds the rest. Must be called inside a tokio runtime.
    pub(super) fn bind(args: &TqsArgs, config: &Config) -> Outcome<Self> {
        let access = access(config)?;
        let mut given = Given::take(&access)?;
        let named = args.sockets.socket.as_deref();
        let (agent, agent_at) = match given.agent.take() {
            Some(listener) => {
                let at = Endpoint::at(listener.path()).map_err(Failure::usage)?;
                (Some(listener), at)
            }
            None => (None, Endpoint::agent(named, environment).map_err(Failure::usage)?),
        };
        let control = match given.control.take() {
            Some(listener) => listener,
            None => {
                let at = Endpoint::control(args.sockets.control_socket.as_deref(), &agent_at, environment)
                    .map_err(Failure::usage)?;
                Listener::bind(&at, beside(&access, &agent_at, &at)).map_err(Failure::unavailable)?
            }
        };
        let agent = match agent {
            Some(listener) => listener,
            None => Listener::bind(&agent_at, access.clone()).map_err(Failure::unavailable)?,
        };
        let http = match http_address(args, config, &agent_at)? {
            Some(address) => {
                let access = match &address {
                    HttpAddress::Unix(at) => beside(&access, &agent_at, at),
                    HttpAddress::Tcp(_) => Access::OwnUser,
                };
                Some(address.bind(access).map_err(Failure::unavailable)?)
            }
            None => None,
        };
        Ok(Self { agent, control, http })
    }

    /// Folders in which sockets may have to be made again, or removed at the end.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        let http = self.http.as_ref().and_then(HttpListener::path);
        [Some(self.agent.path()), Some(self.control.path()), http].into_iter().flatten().map(folder_of)
    }
}

/// Whom the agents' sockets are for.
pub(crate) fn access(config: &Config) -> Outcome<Access> {
    let Some(users) = &config.tqs.agent_users else { return Ok(Access::OwnUser) };
    users.find().map(Access::Agents).map_err(|error| Failure::usage(format_args!("tqs.agent_users {error}")))
}

/// For our own user, in whatever folder.
pub(crate) fn beside(agents: &Access, agent: &Endpoint, socket: &Endpoint) -> Access {
    let folder = |socket: &Endpoint| folder_of(socket.path()).to_owned();
    if folder(agent) == folder(socket) { agents.own_user_beside() } else { Access::OwnUser }
}

/// Where the sidecar is watched.
pub(super) fn http_address(
    args: &TqsArgs,
    config: &Config,
    agent: &Endpoint,
) -> Outcome<Option<HttpAddress>> {
    http_at(args.http.as_deref().or(config.tqs.http.as_deref()), HTTP_SOCKET, agent)
}

/// `off`, an address, or a socket; a socket of this name beside the agent's if nothing is said.
pub(crate) fn http_at(named: Option<&str>, usual: &str, agent: &Endpoint) -> Outcome<Option<HttpAddress>> {
    let Some(named) = named else {
        let beside = Endpoint::at(agent.path().with_file_name(usual)).map_err(Failure::usage)?;
        return Ok(Some(HttpAddress::Unix(beside)));
    };
    if named == "off" {
        return Ok(None);
    }
    if named.starts_with("unix:") || named.starts_with('/') {
        let at = Endpoint::agent(Some(OsStr::new(named)), |_| None).map_err(Failure::usage)?;
        return Ok(Some(HttpAddress::Unix(at)));
    }
    named.parse::<SocketAddr>().map(|address| Some(HttpAddress::Tcp(address))).map_err(|_| {
        Failure::usage(format_args!(
            "http must be a loopback address such as 127.0.0.1:9466, unix:///a/path, or off, not {named}"
        ))
    })
}

/// Sockets that were bound before the daemon started (`LISTEN_FDS`, see `sd_listen_fds(3)`).
#[derive(Debug, Default)]
struct Given {
    agent: Option<Listener>,
    control: Option<Listener>,
}

impl Given {
    fn take(agents: &Access) -> Outcome<Self> {
        // Meant for another process that forgot to clear them, unless they name this one.
        let ours = environment("LISTEN_PID").and_then(|pid| pid.to_str()?.parse::<u32>().ok());
        if ours != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let names = environment("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.to_str().unwrap_or_default().split(':');
        let mut descriptors = ListenFd::from_env();
        let mut given = Self::default();
        for (index, name) in (0..descriptors.len()).zip(names.chain(core::iter::repeat(""))) {
            let (place, access) = match name {
                "agent" => (&mut given.agent, agents.clone()),
                "control" => (&mut given.control, Access::OwnUser),
                other => {
                    return Err(Failure::usage(format_args!(
                        "the passed socket {index} is named {other:?}; set FileDescriptorName=agent or control in its unit"
                    )));
                }
            };
            let socket = descriptors.take_unix_listener(index).map_err(Failure::usage)?;
            *place = socket.map(|socket| inherit(socket, access)).transpose()?;
        }
        Ok(given)
    }
}

fn inherit(socket: UnixListener, access: Access) -> Outcome<Listener> {
    Listener::inherit(socket, access)
        .map_err(|error| Failure::usage(format_args!("a passed socket cannot be used: {error}")))
}
