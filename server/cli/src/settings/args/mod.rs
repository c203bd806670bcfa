//! The command line.

pub(crate) mod approval;
pub(crate) mod atp;
pub(crate) mod authenticator;
#[cfg(feature = "authority")]
pub(crate) mod authority;
pub(crate) mod fetch;
#[cfg(feature = "gateway")]
pub(crate) mod gateway;
pub(crate) mod install;
pub(crate) mod mcp;
#[cfg(feature = "authority")]
pub(crate) mod policy;
pub(crate) mod proxy;
mod rs;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

pub(crate) use self::rs::{
    JoinArgs, RevokeArgs, RsArgs, RsAuthorityArgs, RsCommand, RsOperatorArgs, RsRoleArgs,
};
use crate::settings::args::approval::ApprovalArgs;
use crate::settings::args::atp::{AtpArgs, AtpCommand};
use crate::settings::args::authenticator::{AuthenticatorArgs, AuthenticatorCommand};
use crate::settings::args::fetch::FetchArgs;
pub(crate) use crate::settings::args::install::{InstallArgs, InstallPlace, InstallRole, UninstallArgs};
use crate::settings::args::mcp::{McpArgs, McpCommand};

/// Single-use tokens for AI agents.
///
/// Exit codes: 0 ok, 2 usage, 3 denied, 4 unavailable or empty, 5 login or approval needed, 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "obol", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Configuration file (TOML). Without it: $OBOL_CONFIG, ~/.config/obol/obol.toml, /etc/obol/obol.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How much to log on standard error: by default `info` for the servers and `warn` for everything else.
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    pub(crate) log: Option<LogLevel>,
    /// Log lines for people, or JSON for programs.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// End when the process that started this one ends.
    #[arg(long, global = true, hide = true)]
    pub(crate) end_with_parent: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Command {
    /// How much to log if nothing else is said.
    pub(crate) fn default_log_level(&self) -> LogLevel {
        match self {
            Self::Tqs(_) | Self::Proxy(_) | Self::Rs(RsRoleArgs { command: None, .. }) => LogLevel::Info,
            Self::Authenticator(command) if command.serves() => LogLevel::Info,
            Self::Atp(atp) if matches!(atp.command, AtpCommand::Serve(_) | AtpCommand::Refresh(_)) => {
                LogLevel::Info
            }
            #[cfg(feature = "authority")]
            Self::Authority(command) if command.serves() => LogLevel::Info,
            Self::Mcp(McpArgs { command: McpCommand::Guard(_) }) => LogLevel::Info,
            #[cfg(feature = "gateway")]
            Self::Gateway(gateway::GatewayRoleArgs { command: None, .. }) => LogLevel::Info,
            _ => LogLevel::Warn,
        }
    }

    /// Whether it stays up for others, who must not notice what becomes of its log.
    pub(crate) fn serves(&self) -> bool {
        let atp = matches!(self, Self::Atp(atp) if matches!(atp.command, AtpCommand::Serve(_) | AtpCommand::Refresh(_)));
        #[cfg(feature = "authority")]
        let atp = atp
            || matches!(self, Self::Authority(command) if command.serves())
            || matches!(self, Self::Dev(_));
        #[cfg(feature = "gateway")]
        let atp = atp || matches!(self, Self::Gateway(gateway::GatewayRoleArgs { command: None, .. }));
        let auth = matches!(self, Self::Authenticator(command) if command.serves());
        atp || auth
            || matches!(self, Self::Mcp(_) | Self::Proxy(_) | Self::Tqs(_))
            || matches!(self, Self::Rs(RsRoleArgs { command: None, .. }))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a token's whole life on this machine: approval, handshake, mint, draw, verify, refuse, end. Needs nothing else.
    #[cfg(feature = "authority")]
    Demo(Output),
    /// Run the Token Queue Service, the sidecar beside an agent.
    Tqs(TqsCommandArgs),
    #[command(flatten)]
    Authenticator(AuthenticatorCommand),
    /// Run a resource server that verifies tokens over HTTP, or operate a running one.
    Rs(RsRoleArgs),
    /// Run a gateway in front of APIs that do not know Obol: it spends the token and adds the real credential.
    ///
    /// It verifies and spends as `obol rs` does, with the same flags and the settings of [rs].
    #[cfg(feature = "gateway")]
    Gateway(gateway::GatewayRoleArgs),
    /// Run the agent's side of gateways for programs that do not know Obol: they use a local address as their base URL.
    ///
    /// Each request gets its own token and goes only where the session allows. It serves the programs of this user and of --agent-user;
    /// the kernel tells whose a connection is.
    Proxy(proxy::ProxyArgs),
    #[cfg(feature = "authority")]
    #[command(flatten)]
    Authority(authority::AuthorityCommand),
    /// Draw one token for a tool and print it.
    Dequeue(DequeueArgs),
    /// Send one request with a token and print the answer.
    ///
    /// A token goes only where the session allows, and is never sent twice. A request that was sent but not answered is sent again only if it
    /// is GET, HEAD or OPTIONS, or has an idempotency key.
    Fetch(FetchArgs),
    /// Ask a human to approve calls before they are made.
    Approval(ApprovalArgs),
    /// Show which tokens are waiting in the queue.
    Status(StatusArgs),
    /// Show the current session, create a session's files, or provision one.
    Session(SessionArgs),
    /// Destroy the tokens minted ahead, for good, and take no new session until `obol resume`.
    Flush(FlushArgs),
    /// Take new sessions again after a flush.
    Resume(OperatorArgs),
    /// Deny tools or allow them again, whatever sessions grant; check and test policies before you use them.
    Policy(PolicyArgs),
    /// Inspect a token.
    Token(TokenArgs),
    /// Add tokens between MCP clients and servers that do not know them.
    Mcp(McpArgs),
    /// Both sides of the Agent Token Protocol: scoped tokens from an API's provider.
    Atp(AtpArgs),
    /// Check an audit log.
    Audit(AuditArgs),
    /// Show or check the configuration.
    Config(ConfigArgs),
    /// Run all roles on this machine, with an agent that is registered, approved and has a session, until Ctrl-C.
    #[cfg(feature = "authority")]
    Dev(DevArgs),
    /// Set up the sidecar, an Authentication Service, a resource server or a gateway as a system service with its own user.
    ///
    /// Creates a system user, folders, a master key and systemd units, and starts the service. It prints each step. Run it again to apply
    /// changes, such as other users for agents.
    Install(InstallArgs),
    /// Remove what `obol install` set up: service, units, folders, key and user.
    ///
    /// Anything else, such as an audit log, stays, and its path is printed.
    Uninstall(UninstallArgs),
    /// Verify (and mint) tokens read as JSON, one request a line.
    Verify(VerifyArgs),
    /// Write a manual page for each command, or print the first of them.
    Man {
        /// The folder for the pages, such as /usr/local/share/man/man1; created if it does not exist. Without it: obol(1) is
        /// printed.
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Print the catalogue of error codes, as in docs/errors.md.
    #[command(hide = true)]
    Errors,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the sidecar's sockets are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sockets {
    /// The agent's socket: a path or unix:///path. Without it: $OBOL_ENDPOINT_SOCKET, $XDG_RUNTIME_DIR/obol/agent.sock,
    /// /run/obol/agent.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: Option<OsString>,
    /// The operator's socket. Without it: $OBOL_CONTROL_SOCKET, or control.sock beside the agent's.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control_socket: Option<OsString>,
}

/// `obol tqs`: what `obol config check` takes too, and what other roles call by the same name.
#[derive(Debug, Args)]
pub(crate) struct TqsCommandArgs {
    #[command(flatten)]
    tqs: TqsArgs,
    /// Write an audit log to this file; every token handed out is in it. Check it with `obol audit verify`.
    #[arg(long, value_name = "FILE", conflicts_with = "audit")]
    audit_log: Option<PathBuf>,
    #[command(flatten)]
    former: FormerAudit,
}

impl TqsCommandArgs {
    pub(crate) fn args(&self) -> TqsArgs {
        let audit_log = self.audit_log.clone().or_else(|| self.former.audit.clone());
        TqsArgs { audit_log, ..self.tqs.clone() }
    }

    /// What is to be said of how something was named.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.former.warning()
    }
}

/// What `--audit-log` of the sidecar was called up to version 0.1. It goes with the version after this one.
#[derive(Debug, Args)]
pub(crate) struct FormerAudit {
    /// The former name of --audit-log.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) audit: Option<PathBuf>,
}

impl FormerAudit {
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.audit.is_some().then_some("--audit is now called --audit-log; rename it")
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TqsArgs {
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    /// The token store. Its key file is beside it, with .keys at the end of its name.
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// The master key's file; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// A session to provision at the start, or a folder in which every *.json is a session; may be given several times. A known session
    /// is left as it is. Read again on SIGHUP.
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) session: Vec<PathBuf>,
    /// Where /livez, /readyz and /metrics are served: a loopback address, unix:///path, or off. Without it: http.sock
    /// beside the agent's socket.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<String>,
    /// Run without Landlock and seccomp, if they get in the way.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// The file of the audit log, for who knows which role's that is.
    #[arg(skip)]
    pub(crate) audit_log: Option<PathBuf>,
}

/// The audit log of a server that is not the sidecar.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AuditLogArgs {
    /// Write an audit log to this file; everything accepted, issued or opened is in it. Check it with `obol audit
    /// verify`.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// The file with the key that seals the audit log; created if it does not exist. Each server has its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DequeueArgs {
    /// The tool.
    pub(crate) tool: String,
    /// The resource server, if the tool is granted for several.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    /// How long to wait for the sidecar and for a token, in milliseconds, at most 30,000.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    pub(crate) wait: u32,
    /// The call's arguments, a JSON object in a file (`-` for standard input), if the tool needs a proof of possession
    /// over them. The proof is printed on a second line.
    #[arg(long, value_name = "FILE")]
    pub(crate) arguments: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Ask the agent's socket about this one tool, instead of the operator's socket about everything.
    pub(crate) tool: Option<String>,
    /// Keep showing what the sidecar does, until Ctrl-C.
    #[arg(long, conflicts_with = "tool")]
    pub(crate) watch: bool,
    /// Seconds between updates.
    #[arg(long, value_name = "SECONDS", default_value = "1", requires = "watch", value_parser = interval)]
    pub(crate) interval: f64,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SessionCommand>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Make a session by hand, without an Authentication Service: one file for the sidecar and one for the resource
    /// server, both with mode 0600.
    Create(CreateArgs),
    /// Give a session's file to the running sidecar.
    Provision {
        /// The file for the sidecar.
        file: PathBuf,
        /// Take the session even if a flush holds new sessions back, and stop holding them back.
        #[arg(long)]
        resume: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The resource server's identifier, the tokens' audience.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: String,
    /// A tool to grant; may be given several times.
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) tool: Vec<String>,
    /// The action that the tools may take.
    #[arg(long, default_value = "call")]
    pub(crate) action: String,
    /// The resources that the tools may use, as a pattern; ** is all.
    #[arg(long, default_value = "**")]
    pub(crate) resource: String,
    /// The algorithm suite. 1 is that of TBAC r41, which others understand; 2 (AES-256-GCM) and 3 (ChaCha20-Poly1305) are
    /// Obol's own and cost a fraction of it. 4 needs keys from a hybrid handshake; here they are random.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) suite: u8,
    /// A token's life, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) ttl: u64,
    /// The session's life, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) lifetime: u64,
    /// Require each call to prove possession of a key that only the sidecar holds, and create that key.
    #[arg(long)]
    pub(crate) require_pop: bool,
    /// The agent's name.
    #[arg(long, default_value = "agent-1")]
    pub(crate) agent: String,
    /// Where the sidecar's half goes; must not exist.
    #[arg(long, value_name = "FILE", default_value = "agent-session.json")]
    pub(crate) agent_file: PathBuf,
    /// Where the resource server's half goes; must not exist.
    #[arg(long, value_name = "FILE", default_value = "rs-sessions.json")]
    pub(crate) rs_file: PathBuf,
    /// Add the resource server's half to this session file, which must exist, instead of creating a file.
    #[arg(long, value_name = "FILE", conflicts_with = "rs_file")]
    pub(crate) append: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FlushArgs {
    #[command(flatten)]
    pub(crate) scope: FlushScopeArgs,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A command of an operator that says all by its name.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Hand out no token for a tool in any session, even after a restart, until it is allowed again.
    Deny(PolicyToolArgs),
    /// Take a tool off the list of `obol policy deny`. What an Authentication Service denies stays denied.
    Allow(PolicyToolArgs),
    /// Put a version of the policy in force in the running Authentication Service, or observe it beside the current one.
    #[cfg(feature = "authority")]
    Activate(Box<authority::ActivateArgs>),
    /// Show the versions of the policy that were in force in the Authentication Service, and who activated them.
    #[cfg(feature = "authority")]
    History(authority::AsOperatorArgs),
    #[cfg(feature = "authority")]
    #[command(flatten)]
    Folder(policy::FolderCommand),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyToolArgs {
    /// The tool.
    pub(crate) tool: String,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct FlushScopeArgs {
    /// One tool, in every session. The sessions go on.
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// One session, which ends.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// All sessions of one agent, which end.
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Everything; all sessions end.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Show a token's clear header. It needs no key; what it shows is not verified.
    Inspect {
        /// The token, or - to read it from standard input, which keeps it out of process lists.
        token: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting, its source, and every fault.
    ///
    /// Reads the file, the environment and flags as `obol tqs` and `obol rs` do, and changes nothing. Exit code 0 if
    /// no problems are found, else 2.
    Check(Box<ConfigCheckArgs>),
    /// Print a configuration file with every setting, its meaning and its default, all commented out.
    Sample,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    #[command(flatten)]
    pub(crate) tqs: TqsArgs,
    #[command(flatten)]
    pub(crate) rs: RsArgs,
    #[command(flatten)]
    pub(crate) authenticator: AuthenticatorArgs,
    #[command(flatten)]
    pub(crate) former: FormerAudit,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(feature = "authority")]
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The folder for files and sockets; created if it does not exist, and kept at the end. Without it: a temporary folder that is
    /// removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// The resource server's address; loopback only. Without it: port 8700, or another port if that is in use.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<core::net::SocketAddr>,
    /// A tool of a new folder; may be given several times. Without it: search and pay.
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no line was changed, removed, moved or added.
    ///
    /// Exit code 0 if so, 1 if not; each wrong line is named.
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// The log's files, in any order. Without them: those of the log that `tqs.audit_log` names in the configuration, or otherwise
    /// `rs.audit_log`.
    pub(crate) files: Vec<PathBuf>,
    /// The resource server's log, not the sidecar's: `rs.audit_log` and `rs.audit_key` instead of `tqs.audit_log` and the master
    /// key.
    #[arg(long, group = "whose")]
    pub(crate) rs: bool,
    /// The authenticator's log: `authenticator.audit_log` and `authenticator.audit_key`.
    #[arg(long, group = "whose")]
    pub(crate) authenticator: bool,
    /// The Authentication Service's log: `as.audit_log` and `as.audit_key`.
    #[arg(long = "as", group = "whose")]
    pub(crate) authority: bool,
    /// The key that sealed the log: the sidecar's master key, or another server's audit key. Without it: the configured key, if it can be
    /// read; otherwise only the chain is checked, which anyone who can write the file can forge.
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// The note of how far the log had got, beside the token store or the audit key (its name ends with .audit). Without
    /// it, lines cut off at the end do not show.
    #[arg(long, value_name = "FILE")]
    pub(crate) head: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Read requests from standard input, one JSON object a line, and answer each with one.
    #[arg(long, required = true)]
    pub(crate) jsonl: bool,
}

/// An interval in seconds.
fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("an interval is 0.1 to 3600 seconds".to_owned()),
    }
}
