//! The command line of a resource server, of its operator, and of who has it join an Authentication Service.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[cfg(feature = "authority")]
use super::authority;
use super::{AuditLogArgs, Output};

/// The server, or what its operator asks of it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RsRoleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RsCommand>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RsCommand {
    /// Stop accepting tokens of a session, or of an agent's sessions, for good.
    Revoke(RevokeArgs),
    /// Show the sessions whose tokens are accepted.
    Status(RsOperatorArgs),
    /// Read the session file again, as on SIGHUP, and print whether it is valid.
    Reload(RsOperatorArgs),
    /// Join an Authentication Service with this copy of a resource server, once, with a code that `obol rs invite` prints.
    ///
    /// The copy gets its own identity, and from then on the service sends it sessions.
    Join(JoinArgs),
    /// Create a code at the Authentication Service with which one copy of a resource server joins, and print it.
    #[cfg(feature = "authority")]
    Invite(authority::InviteServerArgs),
    /// Show the resource servers that the Authentication Service knows, and which copies follow it.
    #[cfg(feature = "authority")]
    List(authority::AsOperatorArgs),
    /// Stop a copy of a resource server from following the Authentication Service, for good.
    #[cfg(feature = "authority")]
    Remove(authority::RemoveCopyArgs),
}

/// Which Authentication Service a resource server follows, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RsAuthorityArgs {
    /// The Authentication Service and its key, as `obol as key --pin` prints them: https://host#KEY. Without #KEY: --rs-pin-file.
    #[arg(long, value_name = "URL")]
    pub(crate) authority: Option<String>,
    /// The file whose text is the service's key, 64 hex digits, or address and key.
    #[arg(long, value_name = "FILE")]
    pub(crate) rs_pin_file: Option<PathBuf>,
    /// The file with this copy's identity key; created if it does not exist. Each copy has its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) rs_identity_key: Option<PathBuf>,
    /// The only certificate authorities to trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) rs_ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The code.
    // One in 64 begins with a stroke.
    #[arg(value_name = "CODE", required_unless_present = "code_file", allow_hyphen_values = true)]
    pub(crate) code: Option<String>,
    /// A file with the code; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "code")]
    pub(crate) code_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) service: RsAuthorityArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The sessions.
    #[arg(value_name = "SESSION", required_unless_present_any = ["agent", "all"])]
    pub(crate) sessions: Vec<String>,
    /// All sessions of one agent.
    #[arg(long, value_name = "NAME", conflicts_with = "sessions")]
    pub(crate) agent: Option<String>,
    /// Every session.
    #[arg(long, conflicts_with_all = ["sessions", "agent"])]
    pub(crate) all: bool,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) operator: RsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RsOperatorArgs {
    /// The resource server's control socket: a path or unix:///path. Without it: $OBOL_RS_CONTROL_SOCKET,
    /// $XDG_RUNTIME_DIR/obol/rs-control.sock, /run/obol/rs-control.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) rs_control_socket: Option<OsString>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RsArgs {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// This resource server's identifier, the tokens' audience. Without it: the one that all sessions name.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    #[command(flatten)]
    pub(crate) service: RsAuthorityArgs,
    /// The sessions whose tokens are accepted: a file, or a folder in which every *.json is read; may be given several times.
    /// Read again on SIGHUP.
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) sessions: Vec<PathBuf>,
    /// Where sessions are kept in addition to those files: `memory` (not at all), a file, or the address of a Redis or Valkey.
    #[arg(long, value_name = "memory|FILE|URL")]
    pub(crate) session_store: Option<PathBuf>,
    /// The file with the key that seals stored sessions; created if it does not exist. The same on all servers
    /// that share a Redis.
    #[arg(long, value_name = "FILE")]
    pub(crate) session_key: Option<PathBuf>,
    /// Where spent tokens are kept: a file, created if it does not exist; `memory`; or, for several servers, the address
    /// of a Redis or Valkey (redis://host:port, unix:///socket). More settings for Redis are in the configuration file.
    #[arg(long, value_name = "FILE|memory|URL")]
    pub(crate) spent: Option<PathBuf>,
    /// This is a new deployment, with no spent tokens yet. Without this flag, a new file or an empty Redis counts as one
    /// that lost them, and tokens issued up to a minute later are refused.
    #[arg(long)]
    pub(crate) first_start: bool,
    #[command(flatten)]
    pub(crate) audit: AuditLogArgs,
    /// The operator's socket (`obol rs revoke`): a path, unix:///path, or off. Without it:
    /// $OBOL_RS_CONTROL_SOCKET, $XDG_RUNTIME_DIR/obol/rs-control.sock, /run/obol/rs-control.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) rs_control_socket: Option<OsString>,
    /// The socket where other programs spend their own identifiers once (`POST /v1/spend`): a path or unix:///path. Without it: none.
    /// It serves this server's user, root and the users in rs.spend_users.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) spend_socket: Option<PathBuf>,
    /// Listen on an address that other machines can reach. Plain HTTP: tokens cross the network in the clear unless
    /// something in front encrypts it.
    #[arg(long)]
    pub(crate) allow_remote: bool,
}
