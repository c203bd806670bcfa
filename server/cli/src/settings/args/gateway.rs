//! The command line of the gateway, and of who gives it a credential.

use core::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// A loopback address for /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) server: RsArgs,
}
