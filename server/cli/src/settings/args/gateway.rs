//! The command line of the gateway, and of who gives it a credential.

use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::RsArgs;

/// The gateway, or what its operator does.
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
    /// Seal an API's credential for the gateway, and write the API's file where there is a recipe: anthropic, github, gitlab, openai,
    /// slack, stripe.
    Add(AddArgs),
    /// Check the files of all APIs, and say what is wrong with them.
    Check(ApisArgs),
    /// Write the file of an API from its OpenAPI document (3.0 or 3.1, JSON or YAML): what it could not say is told at its beginning.
    Rules(RulesArgs),
    /// Run the programs that print credentials, for a gateway, which starts this by itself.
    #[command(hide = true)]
    CredentialHelper,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RulesArgs {
    /// The document.
    #[arg(long, value_name = "FILE")]
    pub(crate) openapi: PathBuf,
    /// Where to write the file, which must not be there yet. Without it: to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// One tool for all routes. Without it each is named for the first tag of its operation, or for the first segment of its path.
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// What the names of tools begin with, and an underscore.
    #[arg(long, value_name = "NAME", conflicts_with = "tool")]
    pub(crate) prefix: Option<String>,
    /// What the action of a call is: read or write by its method, or the operation's own name.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) action: ActionOf,
    /// Where the API is, instead of what the document says.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The security scheme that the credential is for. Without it: the one that most operations take.
    #[arg(long, value_name = "NAME")]
    pub(crate) scheme: Option<String>,
    /// The client of OAuth client credentials, which then get tokens by themselves.
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// Only operations with this tag; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ActionOf {
    /// read for GET, HEAD and OPTIONS, else write.
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
    /// The file with the key that credentials are sealed under; created if it is not there.
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
    /// Take the place of a credential that is there. A gateway that runs uses it once it is started again.
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
    /// A Unix socket for agents of this machine, with HTTP/1.1: a path or unix:///path. Its folder is this user's. Without --listen there
    /// is no port then.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) unix: Option<OsString>,
    /// Who may connect to the Unix socket beside this user and root: a user by number or name, or a @group. May be given several times.
    #[arg(long, value_name = "USER", requires = "unix")]
    pub(crate) agent_user: Vec<String>,
    /// A loopback address for /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
}
