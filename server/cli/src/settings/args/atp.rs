//! The command line of `obol atp`.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use obol_atp::Host;
use obol_atp_client::KeychainChoice;

use crate::settings::args::{AuditLogArgs, Output};

#[derive(Debug, Args)]
pub(crate) struct AtpArgs {
    #[command(subcommand)]
    pub(crate) command: AtpCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AtpCommand {
    /// Run a provider: issue, check, rotate and revoke scoped tokens.
    Serve(Box<ServeArgs>),
    /// Create, replace or end the secrets of a provider's agents.
    Secret(SecretArgs),
    /// Sign a JSON object, or check a signature.
    Sign(SignArgs),
    /// Ask a provider for a token, keep it and print it.
    Request(RequestArgs),
    /// Ask a provider whether a token is valid: exit code 0 if it is, 3 if not, 4 if there is no answer.
    Verify(VerifyArgs),
    /// Give a provider's token back.
    Revoke(HostArgs),
    /// Print this agent's name.
    AgentId(AgentIdArgs),
    /// Keep requested tokens fresh, and repeat failed revocations, until stopped.
    Refresh(RefreshArgs),
    /// Show which tokens are kept fresh, when they expire, and what is still to be revoked.
    Status(AgentArgs),
    /// Put a provider's secret into the keychain, from --secret-file.
    KeepSecret(HostArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// The token endpoint as agents see it, such as https://api.example.com/v1/agent-tokens.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A scope to offer; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) scope: Vec<String>,
    /// The file of secrets, agents and masters. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// The address to listen on; 127.0.0.1:8710 by default. Without TLS, loopback only.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The certificate chain, PEM. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM, in a private file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen on an address that other machines can reach, even without TLS.
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Where /livez, /readyz and /metrics are served: a loopback address, or off (the default).
    #[arg(long, value_name = "ADDRESS|off")]
    pub(crate) http: Option<String>,
    /// The life of a token, in seconds; 3600 by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// The longest life of a token under a master, in seconds; 86400 by default.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_ttl: Option<u64>,
    /// Where JWT keys, tokens of masters, revocations and the list of ended secrets are kept: a file, created if it does not exist,
    /// `memory`, or the address of a Redis or Valkey that all providers of this endpoint share.
    #[arg(long, value_name = "FILE|memory|URL")]
    pub(crate) store: Option<PathBuf>,
    /// Where answered requests are remembered: a file, `memory`, or the address of a Redis or Valkey.
    #[arg(long, value_name = "FILE|memory|URL")]
    pub(crate) spent: Option<PathBuf>,
    /// The file with the key that seals the store; created if it does not exist. The same for all providers that share a store.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// This is a new deployment: no request was answered and no secret retired before. Without this flag, requests signed up to a minute
    /// after a new file was made are refused, and so is a start with a key but no token store.
    #[arg(long)]
    pub(crate) first_start: bool,
    #[command(flatten)]
    pub(crate) audit: AuditLogArgs,
    /// A JSON file with `name` and `capabilities` for the discovery document.
    #[arg(long, value_name = "FILE")]
    pub(crate) discovery: Option<PathBuf>,
    /// Refuse requests that do not name this endpoint.
    #[arg(long)]
    pub(crate) require_aud: bool,
    /// A scope whose tokens are valid for one request; may be given several times.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) single_use: Vec<String>,
    /// Switch off the dialect of masters.
    #[arg(long)]
    pub(crate) signed_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Create a secret, add it to the file, and print it once.
    New {
        #[command(flatten)]
        whose: Whose,
        /// A scope that it may have; may be given several times. A master needs at least one.
        #[arg(long, value_name = "NAME")]
        scope: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Create a new secret and print it once; the old one stays valid for a while.
    Rotate {
        #[command(flatten)]
        whose: Whose,
        /// How long the old secret stays valid: a number and s, m, h or d.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        keep: String,
        #[command(flatten)]
        output: Output,
    },
    /// End the secret before the newest, or a master's only one. A running provider reads this, like all these changes, on SIGHUP.
    Retire {
        #[command(flatten)]
        whose: Whose,
        /// Also refuse the agent's tokens issued before. The newest secret stays valid; `disable` cuts an agent off.
        #[arg(long, requires = "agent")]
        now: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Cut an agent off: it gets no more tokens, and those it has are refused.
    Disable {
        #[command(flatten)]
        agent: OneAgent,
        #[command(flatten)]
        output: Output,
    },
    /// Let in an agent that was cut off. Its earlier tokens stay refused.
    Enable {
        #[command(flatten)]
        agent: OneAgent,
        #[command(flatten)]
        output: Output,
    },
}

/// An agent, and where its secret is.
#[derive(Debug, Args)]
pub(crate) struct OneAgent {
    /// The file of secrets.
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: PathBuf,
    /// The agent, by its id of 64 hex digits.
    #[arg(long, value_name = "ID")]
    pub(crate) agent: String,
}

/// Whose secret, and where it is.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// The file of secrets; `new` creates it if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: PathBuf,
    #[command(flatten)]
    pub(crate) who: Who,
}

/// One of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Who {
    /// An agent, by its id of 64 hex digits.
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// The secret that agents without one of their own share.
    #[arg(long)]
    pub(crate) shared: bool,
    /// A master, by its name.
    #[arg(long, value_name = "NAME")]
    pub(crate) master: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The JSON object, or - for standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// The file with the secret: its bytes are the key, except for a final line end.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
    /// Check this signature instead; exit code 3 if it is wrong.
    #[arg(long, value_name = "SIGNATURE")]
    pub(crate) check: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Options of every command on the agent's side.
#[derive(Debug, Args)]
pub(crate) struct AgentSettings {
    /// The folder with this agent's name and tokens; by default `atp` in Obol's state folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// The file with the secret. Without it: $AGENTDOM_ATP_SECRET__HOST, $AGENTDOM_ATP_SECRET.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Where tokens are kept: auto, secret-service, kernel or file. Auto uses the Secret Service if it is available, otherwise files.
    #[arg(long, value_name = "KEYCHAIN")]
    pub(crate) keychain: Option<KeychainChoice>,
}

#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// Where /livez, /readyz and /metrics are served: a loopback address, or off (the default).
    #[arg(long, value_name = "ADDRESS|off")]
    pub(crate) http: Option<String>,
    #[command(flatten)]
    pub(crate) settings: AgentSettings,
}

/// Options of a command on the agent's side that prints a result.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) settings: AgentSettings,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// One provider, and nothing else.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The provider.
    pub(crate) host: Host,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The provider, such as api.example.com.
    pub(crate) host: Host,
    /// The file with the master credential for this host, used only if the host does not accept signed requests.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_file: Option<PathBuf>,
    /// A scope to ask for; may be given several times.
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) scope: Vec<String>,
    /// What the token is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,
    /// Use the token kept here, if it covers the scopes and does not need refreshing yet.
    #[arg(long)]
    pub(crate) cached: bool,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The provider.
    pub(crate) host: Host,
    /// The token, or - for standard input, which keeps it out of process lists. Without it: the one that is kept here.
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentIdArgs {
    /// The name for this provider only, keyed by the machine ID.
    #[arg(long, value_name = "HOST")]
    pub(crate) keyed: Option<Host>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}
