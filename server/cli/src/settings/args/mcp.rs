//! The command line of what stands between MCP clients and servers.

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
    /// Run an MCP server for a client that knows nothing of tokens, and put one on each call.
    ///
    /// Put it in front of the server's command in the client's configuration. A server that does not speak the extension is served
    /// as it is, and no token is drawn for it.
    Wrap(McpWrapArgs),
    /// Run an MCP server that knows nothing of tokens, and let a call of its tools reach it only for one.
    ///
    /// Verifies and spends as `obol rs` does, with the same flags and the settings of [rs].
    Guard(Box<McpGuardArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct McpWrapArgs {
    /// Which resource server the command is, the audience of its tokens. Tokens of no other are drawn for it.
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
    /// The server's command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct McpGuardArgs {
    /// A file (TOML) that says what a call of each tool stands for. Without it: each tool needs a token for its name.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
    /// The server's command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
