//! `obol fetch`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Output;

/// Whether a human is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WhetherAsked {
    Never,
    Wait,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Where: https, or http on this machine.
    pub(crate) url: String,
    /// The method. Without it: GET, or POST with --data.
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// A header, such as 'Accept: text/plain'. May be given several times.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
    /// The body: text, or @FILE, or @- for standard input. JSON unless a header says otherwise.
    #[arg(short = 'd', long, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// The tool, where the URL does not say which.
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// The resource server, where the URL does not say which.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    /// Names the call, so that a server with retry receipts carries it out once.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Where the call takes a human's yes: 'wait' asks one, writes to standard error what they decide by, and waits six minutes at most.
    #[arg(long, value_name = "WHETHER", default_value = "never")]
    pub(crate) approval: WhetherAsked,
    /// Why the call is made: the human reads it.
    #[arg(long, value_name = "TEXT", requires = "approval")]
    pub(crate) purpose: Option<String>,
    /// What the call does, where that is less than the grant allows: the human says yes to that. May be given several times.
    #[arg(long, value_name = "NAME", requires = "approval")]
    pub(crate) action: Vec<String>,
    /// With what the call does it, where that is less than the grant allows.
    #[arg(long, value_name = "RESOURCE", requires = "approval")]
    pub(crate) resource: Option<String>,
    /// Ask also where a token is to be had without a yes: for what such tokens do not allow.
    #[arg(long, requires = "approval")]
    pub(crate) always: bool,
    /// Do not show the human the arguments, as for a server that does not see bodies.
    #[arg(long, requires = "approval")]
    pub(crate) no_show_arguments: bool,
    /// The call is one that a human said yes to before: what its token is drawn by.
    #[arg(long, value_name = "ID")]
    pub(crate) approval_id: Option<String>,
    /// How long everything may take, in seconds. The wait for a human is not part of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Also print status and headers, in front of the body.
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Take an answer that leads elsewhere as it is.
    #[arg(long)]
    pub(crate) no_redirect: bool,
    /// Where requests may go, for a session made by hand: a JSON file with a list of {"audience", "tools", "url"?, "method"?, "path"?,
    /// "via"?}. Otherwise the session says so.
    #[arg(long, value_name = "FILE")]
    pub(crate) routes: Option<PathBuf>,
    /// Trust the certificate authorities of this PEM file, and not the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: AgentSockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where sidecar and authenticator are asked.
#[derive(Debug, Args)]
pub(crate) struct AgentSockets {
    /// The agent's socket: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET, $XDG_RUNTIME_DIR/obol/agent.sock,
    /// /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
}
