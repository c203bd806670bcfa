//! The command line of the gateway, and of who gives it a credential.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::RsArgs;

/// The gateway, or a command of its operator.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct GatewayRoleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<GatewayCommand>,
    #[command(flatten)]
    pub(crate) server: Box<GatewayArgs>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Seal an API's credential for the gateway, and write the API's file if there is a recipe: anthropic, github, gitlab, openai,
    /// slack, stripe.
    Add(AddArgs),
    /// Check the files of all APIs, and print what is wrong with them.
    Check(ApisArgs),
    /// Write an API's file from its OpenAPI document (3.0 or 3.1, JSON or YAML); the file begins with what it could not express.
    Rules(RulesArgs),
    /// Run the programs that print credentials for a gateway; the gateway starts this itself.
    #[command(hide = true)]
    CredentialHelper,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RulesArgs {
    /// The document.
    #[arg(long, value_name = "FILE")]
    pub(crate) openapi: PathBuf,
    /// The file to write, which must not exist yet. Without it: standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// One tool for all routes. Without it each is named for the first tag of its operation, or for the first segment of its path.
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// A prefix for the names of tools; an underscore follows it.
    #[arg(long, value_name = "NAME", conflicts_with = "tool")]
    pub(crate) prefix: Option<String>,
    /// The action of a call: read or write by its method, or the operation's own name.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) action: ActionOf,
    /// The API's address, instead of the one in the document.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The security scheme that the credential is for. Without it: the one that most operations take.
    #[arg(long, value_name = "NAME")]
    pub(crate) scheme: Option<String>,
    /// The OAuth client whose credentials the gateway then uses to get tokens.
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// Only operations with this tag; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ActionOf {
    /// read for GET, HEAD and OPTIONS, otherwise write.
    #[default]
    Method,
    /// The operationId.
    Operation,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ApisArgs {
    /// The folder with a file NAME.toml for each API. Without it: gateway in the state folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) apis: Option<PathBuf>,
    /// The file with the key that credentials are sealed under; created if it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AddArgs {
    /// The API, as its file is named, or a recipe.
    pub(crate) name: String,
    /// The file with the credential; - for standard input. It can be removed afterwards.
    #[arg(long, value_name = "FILE")]
    pub(crate) credential_file: PathBuf,
    /// Replace an existing credential. A running gateway uses the new one after a restart.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) apis: ApisArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) apis: ApisArgs,
    /// The certificate chain, PEM. Without it: plain HTTP, on loopback only. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A Unix socket for agents on this machine, with HTTP/1.1: a path or unix:///path. Its folder belongs to this user. Without --listen
    /// there is then no port.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) unix: Option<OsString>,
    /// Who may connect to the Unix socket besides this user and root: a user by number or name, or a @group. May be given several times.
    #[arg(long, value_name = "USER", requires = "unix")]
    pub(crate) agent_user: Vec<String>,
    /// A loopback address for /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
}
