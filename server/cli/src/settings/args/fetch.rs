//! `obol fetch`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::Output;

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
    /// How long everything may take, in seconds.
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
    /// The agent's socket: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET, $XDG_RUNTIME_DIR/obol/agent.sock,
    /// /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
    #[command(flatten)]
    pub(crate) output: Output,
}
