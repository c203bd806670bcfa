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
    /// Make, replace or end the secrets of a provider's agents.
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
    /// Keep the tokens fresh that were requested, and revoke what could not be revoked, until told to stop.
    Refresh(RefreshArgs),
    /// Show which tokens are kept fresh, until when they hold, and what is still to be revoked.
    Status(AgentArgs),
    /// Put a provider's secret into the keychain, from --secret-file.
    KeepSecret(HostArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// The token endpoint as agents see it, such as https://api.example.com/v1/agent-tokens.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A scope on offer; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) scope: Vec<String>,
    /// The file of secrets, agents and masters. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// Address to listen on; 127.0.0.1:8710 if not said. Without TLS, loopback only.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The certificate chain, PEM. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM, in a private file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen on an address that other machines can reach, also without TLS.
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Where /livez, /readyz and /metrics are served: a loopback address, or off. Off if not said.
    #[arg(long, value_name = "ADDRESS|off")]
    pub(crate) http: Option<String>,
    /// The life of a token, in seconds; 3600 if not said.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// The longest life of a token under a master, in seconds; 86400 if not said.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_ttl: Option<u64>,
    /// Where JWT keys, tokens of masters, revocations and which secrets are over are kept: a file, created if it is not there,
    /// `memory`, or the address of a Redis or Valkey that all providers of this endpoint share.
    #[arg(long, value_name = "FILE|memory|URL")]
    pub(crate) store: Option<PathBuf>,
    /// Where answered requests are remembered: a file, `memory`, or the address of a Redis or Valkey.
    #[arg(long, value_name = "FILE|memory|URL")]
    pub(crate) spent: Option<PathBuf>,
    /// The file with the key that the store is sealed under; created if it is not there. The same for all that share a store.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// This is a new deployment: no request was answered before, and no secret retired. Without this, requests signed up to a minute after a
    /// new file was made are refused, and so is a start without the token store beside its key.
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
    /// A scope whose tokens are good for one request; may be given several times.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) single_use: Vec<String>,
    /// Switch the dialect of masters off.
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
    /// Make a secret, add it to the file, and print it once.
    New {
        #[command(flatten)]
        whose: Whose,
        /// A scope that it may have at most; may be given several times. A master needs one.
        #[arg(long, value_name = "NAME")]
        scope: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Make a new secret beside the one there is, which holds for a while longer, and print the new one once.
    Rotate {
        #[command(flatten)]
        whose: Whose,
        /// How long the old one still holds: a number and s, m, h or d.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        keep: String,
        #[command(flatten)]
        output: Output,
    },
    /// End the secret before the newest; of a master, the only one. A running provider reads it on SIGHUP, as all of these.
    Retire {
        #[command(flatten)]
        whose: Whose,
        /// Refuse the agent's tokens issued before, too. The newest secret holds on: `disable` cuts an agent off.
        #[arg(long, requires = "agent")]
        now: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Cut an agent off: it is given no token any more, and those it has are refused.
    Disable {
        #[command(flatten)]
        agent: OneAgent,
        #[command(flatten)]
        output: Output,
    },
    /// Let an agent in again that was cut off. Its tokens from before stay refused.
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
    /// The file of secrets; created by `new` if it is not there.
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
    /// The file with the secret: its bytes are the key, but for one line end.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
    /// Check this signature instead; exit code 3 if it is wrong.
    #[arg(long, value_name = "SIGNATURE")]
    pub(crate) check: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What every command of the agent's side takes.
#[derive(Debug, Args)]
pub(crate) struct AgentSettings {
    /// The folder with this agent's name and tokens; `atp` in Obol's state folder if not said.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// The file with the secret. Without it: $AGENTDOM_ATP_SECRET__HOST, $AGENTDOM_ATP_SECRET.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Trust the certificate authorities of this PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Where tokens are kept: auto, secret-service, kernel or file. Auto is the Secret Service where it can be used, else files.
    #[arg(long, value_name = "KEYCHAIN")]
    pub(crate) keychain: Option<KeychainChoice>,
}

#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// Where /metrics is served: a loopback address, or off. Off if not said.
    #[arg(long, value_name = "ADDRESS|off")]
    pub(crate) http: Option<String>,
    #[command(flatten)]
    pub(crate) settings: AgentSettings,
}

/// What a command of the agent's side takes that says what came of it.
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
    /// The file with the master credential for this host, which is used only if it takes no signed requests.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_file: Option<PathBuf>,
    /// A scope to ask for; may be given several times.
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) scope: Vec<String>,
    /// What the token is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,
    /// Take the token that is kept here, if it covers the scopes and need not be refreshed yet.
    #[arg(long)]
    pub(crate) cached: bool,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The provider.
    pub(crate) host: Host,
    /// The token, or - for standard input, where no process list shows it. Without it: the one that is kept here.
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentIdArgs {
    /// The name for this provider alone, by the machine id as a key.
    #[arg(long, value_name = "HOST")]
    pub(crate) keyed: Option<Host>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}
