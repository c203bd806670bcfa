//! `obol proxy`.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The loopback address that programs take as their base URL. Without it, and without --unix: 127.0.0.1:8740.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// A Unix socket that does the same: a path or unix:///path. Its folder belongs to this user.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) unix: Option<OsString>,
    /// The user whose programs are served besides this user's own: by number or name, or a @group, which over TCP means its members.
    /// May be given several times.
    #[arg(long, value_name = "USER")]
    pub(crate) agent_user: Vec<String>,
    /// A short name for an API: with github=https://api.github.com, programs use http://127.0.0.1:8740/github. May be given several
    /// times. Without one, an API is named by its host, as in http://127.0.0.1:8740/api.github.com.
    #[arg(long, value_name = "NAME=URL")]
    pub(crate) to: Vec<String>,
    /// Remove what programs log in with (Authorization, X-Api-Key, Cookie and the like) instead of refusing the request. This is for
    /// programs that do not start without a key: give them any key.
    #[arg(long)]
    pub(crate) drop_credentials: bool,
    /// How long an API may be silent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Where requests may go, for a session made by hand: a JSON file with a list of {"audience", "tools", "url"?, "method"?, "path"?,
    /// "via"?}. Otherwise the session decides.
    #[arg(long, value_name = "FILE")]
    pub(crate) routes: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The agent's socket: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET, $XDG_RUNTIME_DIR/obol/agent.sock,
    /// /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
    /// Run without Landlock and seccomp, if they get in the way.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}
