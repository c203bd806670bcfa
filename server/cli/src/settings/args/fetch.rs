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
    /// The URL: https, or http on this machine.
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
    /// The tool, if the URL does not tell.
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// The resource server, if the URL does not tell.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    /// Names the call, so that a server with retry receipts carries it out once.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// If the call needs a human's approval: 'wait' asks for it, writes what the human needs to standard error, and waits at most six minutes.
    #[arg(long, value_name = "WHETHER", default_value = "never")]
    pub(crate) approval: WhetherAsked,
    /// Why the call is made: the human reads it.
    #[arg(long, value_name = "TEXT", requires = "approval")]
    pub(crate) purpose: Option<String>,
    /// An action of the call, if it is narrower than the grant: the human approves only that. May be given several times.
    #[arg(long, value_name = "NAME", requires = "approval")]
    pub(crate) action: Vec<String>,
    /// A resource that the call uses, if it is narrower than the grant.
    #[arg(long, value_name = "RESOURCE", requires = "approval")]
    pub(crate) resource: Option<String>,
    /// Ask even if a token is available without an approval, for calls that such a token does not allow.
    #[arg(long, requires = "approval")]
    pub(crate) always: bool,
    /// Do not show the arguments to the human; for a server that does not see bodies.
    #[arg(long, requires = "approval")]
    pub(crate) no_show_arguments: bool,
    /// The approval ID of a call that a human has already approved.
    #[arg(long, value_name = "ID")]
    pub(crate) approval_id: Option<String>,
    /// How long everything may take, in seconds, not counting the wait for a human.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Also print the status and headers before the body.
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Print a redirect as it is instead of following it.
    #[arg(long)]
    pub(crate) no_redirect: bool,
    /// Where requests may go, for a session made by hand: a JSON file with a list of {"audience", "tools", "url"?, "method"?, "path"?,
    /// "via"?}. Otherwise the session decides.
    #[arg(long, value_name = "FILE")]
    pub(crate) routes: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: AgentSockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where the sidecar and the authenticator are.
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
