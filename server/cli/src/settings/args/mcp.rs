//! The command line of what stands between MCP clients and servers.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RsArgs;

#[derive(Debug, Args)]
pub(crate) struct McpArgs {
    #[command(subcommand)]
    pub(crate) command: McpCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Run an MCP server for a client that does not know tokens, and add one to each call.
    ///
    /// Put this in front of the server's command in the client's configuration. A server without the extension works as before, and
    /// no token is drawn for it.
    Wrap(McpWrapArgs),
    /// Run an MCP server that does not know tokens, and let a tool call reach it only with a valid token.
    ///
    /// It verifies and spends as `obol rs` does, with the same flags and the settings of [rs].
    Guard(Box<McpGuardArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct McpWrapArgs {
    /// The resource server that the command is: the audience of its tokens. No other tokens are drawn for it.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: String,
    /// How long a call waits for its token, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub(crate) wait: u32,
    /// The agent's socket: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET, $XDG_RUNTIME_DIR/obol/agent.sock,
    /// /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
    /// The address of a server over HTTP, instead of a command. http:// is only for this machine.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub(crate) url: Option<String>,
    /// Allow http:// to another machine. Tokens then cross the network in the clear.
    #[arg(long, requires = "url")]
    pub(crate) plain: bool,
    /// The server's command.
    #[arg(last = true, required_unless_present = "url", value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct McpGuardArgs {
    /// A file (TOML) that says which token a call of each tool needs. Without it: each tool needs a token for its name.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// The address of a server over HTTP, instead of a command: the guard listens at --listen, under the same path. Only the guard should
    /// be able to reach the server. http:// is only for this machine.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub(crate) url: Option<String>,
    /// Allow http:// to a server on another machine.
    #[arg(long, requires = "url")]
    pub(crate) plain: bool,
    /// The certificate chain, PEM, with --url. Without it: plain HTTP, on loopback only. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "url")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A loopback address for /livez, /readyz and /metrics, with --url.
    #[arg(long, value_name = "ADDRESS", requires = "url")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
    /// The server's command.
    #[arg(last = true, required_unless_present = "url", value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
