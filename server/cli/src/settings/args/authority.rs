//! The command line of the Authentication Service and of its operator.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::settings::args::{AuditLogArgs, Output};

/// The service, and the commands of its operator.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Run the Authentication Service, which registers agents and opens their sessions; or show its key.
    As(Box<AsRoleArgs>),
    /// Show the registrations that wait for somebody to approve them.
    Registrations(AsOperatorArgs),
    /// Show the calls that wait for a human's approval.
    Approvals(AsOperatorArgs),
    /// Approve an agent by the code that it shows, once its key's words match on both sides; or approve calls by their ID.
    Approve(ApproveArgs),
    /// Deny a waiting agent or waiting calls.
    Deny(DenyArgs),
    /// Show agents, end them or let them in again, and invite new ones.
    Agent(AgentArgs),
    /// Log in to operate a service on another machine: every command of its operator then works from here.
    ///
    /// The login is a key in a private file here; it ends with `obol logout` or when its time is over.
    Login(LoginArgs),
    /// End the login, at the service and here.
    Logout(LogoutArgs),
    /// Show the operators of other machines who are logged in; or end their logins.
    Logins(LoginsArgs),
}

impl AuthorityCommand {
    /// Whether it stays up for others.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::As(role) if role.command.is_none())
    }
}

/// The service, or a command of its operator.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AsRoleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AsCommand>,
    #[command(flatten)]
    pub(crate) server: AsArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AsCommand {
    /// Show the key that agents pin, in words and as they pin it. Reads the key's file; the service need not run.
    Key(AsKeyArgs),
    /// Show the running service: its key, the policy in force, what waits and what is denied.
    Status(AsOperatorArgs),
    /// Show the transmitters and receivers of security events, or try an event.
    Events {
        #[command(subcommand)]
        command: EventsCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Show the transmitters and receivers, and the results.
    Status(AsOperatorArgs),
    /// Send a security event about a user or an agent, as an identity provider would, and show who has confirmed what it ends. The event
    /// is carried out: sessions end.
    Test(TestEventArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TestEventArgs {
    /// The agent that the event is about, by name or ID.
    #[arg(long, value_name = "NAME", conflicts_with = "user", required_unless_present = "user")]
    pub(crate) agent: Option<String>,
    /// The user that the event is about, by their issuer's name for them: it affects all of their agents.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The user's issuer: that of an identity provider. Without it: this machine's user list.
    #[arg(long, value_name = "URL", requires = "user")]
    pub(crate) issuer: Option<String>,
    /// The event: session-revoked ends sessions; account-disabled also suspends agents.
    #[arg(long, value_name = "EVENT", default_value = "session-revoked", value_parser = ["session-revoked", "account-disabled"])]
    pub(crate) event: String,
    /// How many seconds to wait for followers to confirm it, at most 10.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) wait: f64,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct AsArgs {
    /// The address to listen on. Without a certificate it must be a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address that agents know the service by, such as https://as.example. Without it, on loopback without TLS: its address.
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Option<String>,
    /// The organisation that owns the sessions.
    #[arg(long, value_name = "NAME")]
    pub(crate) org: Option<String>,
    /// The folder with the catalogue and the policies. Read at the first start and on SIGHUP; otherwise the version activated last stays
    /// in force.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policy: Option<PathBuf>,
    /// The identity provider with which humans log in to approve agents: its issuer URL.
    #[arg(long, value_name = "URL")]
    pub(crate) provider: Option<String>,
    /// The service's client ID at the provider.
    #[arg(long, value_name = "ID")]
    pub(crate) provider_client_id: Option<String>,
    /// The file with the service's client secret at the provider. Without it, a public client.
    #[arg(long, value_name = "FILE")]
    pub(crate) provider_client_secret: Option<PathBuf>,
    /// The private file that names several identity providers, instead of the one.
    #[arg(long, value_name = "FILE", conflicts_with = "provider")]
    pub(crate) providers: Option<PathBuf>,
    /// The certificate chain, PEM. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The file of agents, sessions, policies and events; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) directory: Option<PathBuf>,
    /// Start once with a directory that was put back from a copy: every session ends, every agent is suspended until it is enabled, and
    /// the audit log's entries since then are shown.
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    /// The file with the master key that seals the directory; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// The file with the private half of the key that agents pin; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_key: Option<PathBuf>,
    /// The private file that lists the transmitters and receivers of security events. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// The file that lists the issuers whose signed tokens can replace a human's approval. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) attestors: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: AuditLogArgs,
    /// Where /livez, /readyz and /metrics are served: a loopback address, or off.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<String>,
    /// Run without Landlock and seccomp, if they get in the way.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    #[command(flatten)]
    pub(crate) socket: AsSocket,
}

#[derive(Debug, Args)]
pub(crate) struct AsKeyArgs {
    /// Print only the line that agents pin: the service's address, # and its key.
    #[arg(long)]
    pub(crate) pin: bool,
    /// The address that agents know the service by. Without it: as.origin, the running service's own answer, or the
    /// address that it would listen on.
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Option<String>,
    /// The file with the private half of the key.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where the service's operator socket is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AsSocket {
    /// The Authentication Service's control socket: a path or unix:///path. Without it: $OBOL_AS_CONTROL_SOCKET,
    /// $XDG_RUNTIME_DIR/obol/as-control.sock, /run/obol/as-control.sock.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) as_control_socket: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The service and its key, https://host#KEY, as `obol as key --pin` prints them there. If a login is kept here, only its address.
    #[arg(long = "as", value_name = "URL")]
    pub(crate) service: String,
    /// Use a browser on another machine: a code is typed there, and three words here.
    #[arg(long)]
    pub(crate) remote: bool,
    /// The certificate authorities for the service's certificate, PEM. Without it: the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The service, if you are logged in at several.
    #[arg(long = "as", value_name = "URL")]
    pub(crate) service: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LoginsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LoginsCommand>,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoginsCommand {
    /// End a login, or all logins of a person.
    End {
        /// The login, or the person, as `obol logins` shows them.
        #[arg(value_name = "LOGIN|WHO")]
        login: String,
        #[command(flatten)]
        operator: AsOperatorArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AsOperatorArgs {
    #[command(flatten)]
    pub(crate) socket: AsSocket,
    /// A service on another machine where you are logged in (`obol login`). Without it: this machine's service, or, if there is none,
    /// the one where you are logged in.
    #[arg(long = "as", value_name = "URL", conflicts_with = "as_control_socket")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The code that the agent shows, or the ID of calls, as `obol approvals` shows it.
    #[arg(value_name = "CODE|ID")]
    pub(crate) code: String,
    /// A role that the agent gets; may be given several times. Without it: the roles that it asks for.
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Vec<String>,
    /// For how many days. Without it: the service's setting.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=366))]
    pub(crate) days: Option<u64>,
    /// Do not ask; for scripts that have compared the words themselves.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    /// The code that the agent shows, the registration's ID, as `obol registrations` shows it, or the ID of calls.
    #[arg(value_name = "CODE|ID")]
    pub(crate) registration: String,
    /// Take no more registrations from the same address for an hour.
    #[arg(long)]
    pub(crate) block: bool,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Show all agents.
    List(AsOperatorArgs),
    /// Show one agent and its live sessions.
    Show {
        /// Its name or id.
        #[arg(value_name = "NAME")]
        agent: String,
        #[command(flatten)]
        operator: AsOperatorArgs,
    },
    /// End all sessions of an agent and let it open no new one, or end the use of a tool.
    ///
    /// Prints which resource servers still accept the ended sessions, and until when at the latest.
    Disable(DisableArgs),
    /// Let an agent open sessions again, or allow a tool again. Ended sessions stay ended.
    Enable(EnableArgs),
    /// End an agent for good: its key can never return, and its name is free.
    Remove(RemoveArgs),
    /// End one session. Its agent may open another.
    EndSession(EndSessionArgs),
    /// Create a ticket with which agents register without a human, and print it.
    Invite(InviteArgs),
}

/// Why something is ended.
#[derive(Debug, Args)]
pub(crate) struct EndingArgs {
    /// Why, for the log.
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub(crate) reason: String,
    /// How many seconds to wait for followers to confirm it, at most 10.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) wait: f64,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DisableArgs {
    /// The agent's name or id.
    #[arg(value_name = "NAME", required_unless_present = "tool", conflicts_with = "tool")]
    pub(crate) agent: Option<String>,
    /// A tool: no agent is granted it until it is enabled, and sessions that grant it end.
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    #[command(flatten)]
    pub(crate) ending: EndingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The agent's name or id.
    #[arg(value_name = "NAME", required_unless_present = "tool", conflicts_with = "tool")]
    pub(crate) agent: Option<String>,
    /// A tool.
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The agent's name or id.
    #[arg(value_name = "NAME")]
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) ending: EndingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EndSessionArgs {
    /// The session, 16 hexadecimal digits.
    #[arg(value_name = "ID")]
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) ending: EndingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The class that the agents must name.
    #[arg(long, value_name = "NAME")]
    pub(crate) class: String,
    /// A role that they get; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Vec<String>,
    /// How many agents may use it.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) max: u32,
    /// How many seconds it is valid, at most a week.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub(crate) expires: u64,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveCopyArgs {
    /// The copy's id; `obol rs list` shows it.
    #[arg(value_name = "COPY")]
    pub(crate) copy: String,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InviteServerArgs {
    /// The resource server's identifier, the tokens' audience.
    #[arg(value_name = "AUDIENCE")]
    pub(crate) audience: String,
    /// The suites that it can read.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [1_u32, 2, 3, 4])]
    pub(crate) suites: Vec<u32>,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ActivateArgs {
    /// The folder with the version: catalogue.toml and all *.cedar in it.
    #[arg(value_name = "DIR", default_value = "policy", conflicts_with_all = ["back_to", "stop_observing"])]
    pub(crate) folder: PathBuf,
    /// A version that was in force before: its number, or the beginning of its digest, as `obol policy history` shows them. Going back
    /// raises the epoch too.
    #[arg(long, value_name = "NUMBER|DIGEST")]
    pub(crate) back_to: Option<String>,
    /// Do not put the version in force: observe it beside the current one. What it would change is audited; nothing changes.
    #[arg(long, conflicts_with_all = ["yes", "dry_run"])]
    pub(crate) observe: bool,
    /// Stop observing another version.
    #[arg(long, conflicts_with_all = ["back_to", "observe", "yes", "dry_run"])]
    pub(crate) stop_observing: bool,
    /// Only show what it would change.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Confirm the change, even if it takes away more than a fifth of what agents have.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) operator: AsOperatorArgs,
}
