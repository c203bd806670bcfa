//! The commands around the authenticator: the daemon, the supervisor that keeps it and the sidecar up, and what an agent or
//! its human asks of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AuditLogArgs, Output, Sockets};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthenticatorCommand {
    /// Run the authenticator, which keeps the agent's identity, opens its sessions and gives them to the sidecar.
    Authenticator(Box<AuthenticatorRoleArgs>),
    /// Run the sidecar and the authenticator, and keep both running.
    ///
    /// It holds no keys. It starts `obol tqs` and `obol authenticator`, restarts whichever ends, passes on SIGHUP, and ends both when it is
    /// told to end. Use it in containers, which run one command. The configuration sets what the two do.
    Sidecar(SidecarArgs),
    /// Register the agent at the Authentication Service, where a human approves it.
    ///
    /// Prints a code that the human types, and words that the human must see too. A registered agent stays registered.
    Register(RegisterArgs),
    /// Open a session for the agent; the sidecar then mints its tokens.
    Authenticate(AuthenticateArgs),
    /// Inspect and operate the authenticator.
    Auth(AuthArgs),
}

impl AuthenticatorCommand {
    /// Whether it stays up for others.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Authenticator(_) | Self::Sidecar(_))
    }
}

/// Where the authenticator's socket is.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuthSocket {
    /// The agent's socket, which the authenticator's is beside: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET,
    /// $XDG_RUNTIME_DIR/obol/agent.sock, /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct AuthenticatorRoleArgs {
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) authenticator: AuthenticatorArgs,
    /// The operator's socket. Without it: $OBOL_AUTH_CONTROL_SOCKET, or auth-control.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_control_socket: Option<OsString>,
    #[command(flatten)]
    pub(crate) audit: AuditLogArgs,
    /// Where /livez, /readyz and /metrics are served: a loopback address, unix:///path, or off. Without it: auth-http.sock
    /// beside the agent's socket.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<String>,
    /// Run without Landlock and seccomp, if they get in the way.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuthenticatorArgs {
    /// The socket for agents. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
    /// The Authentication Service and its key, as `obol as` prints them: https://host#KEY. Without #KEY: --pin-file.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The file whose text is the service's key, 64 hex digits, or address and key.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The file with the agent's identity; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// The file with the key that the identity is sealed under; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_key: Option<PathBuf>,
    /// The only certificate authorities to trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SidecarArgs {
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    /// The authenticator's socket. Without it: $OBOL_AUTH_SOCKET, or auth.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_socket: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The agent's name, as humans see it. Needed unless the operator set it.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Its class.
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// A role that the agent asks for; may be given several times.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<String>,
    /// A tool that the agent asks for; may be given several times.
    #[arg(long, value_name = "TOOL")]
    pub(crate) tool: Vec<String>,
    /// The file with an invitation's ticket, which replaces a human's approval.
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// The file with a signed token from an issuer that the service trusts (a workload's, or an ID-JAG), which replaces a human's
    /// approval.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ticket_file", "remote"])]
    pub(crate) assertion_file: Option<PathBuf>,
    /// Use a browser on another machine, for example over SSH: the human types a code there, and another one here.
    #[arg(long)]
    pub(crate) remote: bool,
    /// The three words that the service's page showed after a human's approval.
    #[arg(long, value_name = "WORDS", conflicts_with_all = ["remote", "wait", "ticket_file", "assertion_file"])]
    pub(crate) return_code: Option<String>,
    /// Wait until the human has decided, and print the decision.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) socket: AuthSocket,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AuthenticateArgs {
    /// Only if there is no session, or the current one is about to end.
    #[arg(long)]
    pub(crate) if_needed: bool,
    #[command(flatten)]
    pub(crate) socket: AuthSocket,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    pub(crate) command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Show the agent's state: registration, session, clock and the last failure.
    ///
    /// Exit code 0 if there is a session, otherwise 5.
    Status {
        #[command(flatten)]
        socket: AuthSocket,
        #[command(flatten)]
        output: Output,
    },
    /// Replace the agent's identity key. The agent needs no new approval.
    ///
    /// This also happens automatically: authenticator.rotate_days.
    Rotate(AuthOperatorArgs),
    /// End the agent for good: its sessions end, tokens minted ahead are destroyed, and its key can never return.
    ///
    /// The next agent to register here is a new agent with a new key, which a human must approve.
    Deregister {
        /// Confirm that this cannot be undone.
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        operator: AuthOperatorArgs,
    },
}

/// Where the authenticator's operator is answered.
#[derive(Debug, Args)]
pub(crate) struct AuthOperatorArgs {
    /// The agent's socket, which the operator's is beside: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET,
    /// $XDG_RUNTIME_DIR/obol/agent.sock, /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The operator's socket of the authenticator. Without it: $OBOL_AUTH_CONTROL_SOCKET, or auth-control.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) auth_control_socket: Option<OsString>,
    #[command(flatten)]
    pub(crate) output: Output,
}
