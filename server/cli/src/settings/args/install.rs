//! Setting the sidecar, an Authentication Service, a resource server or a gateway up as a service of the machine, and taking that away.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A user that agents run as, by name or number, or a group as @name; may be given several times. A sidecar needs one.
    #[arg(long, value_name = "NAME")]
    pub(crate) agent_user: Vec<String>,
    /// For a resource server or a gateway: its identifier, the tokens' audience.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    /// The Authentication Service and its key, as `obol as` prints them: the sidecar gets an authenticator, which opens its
    /// sessions there; a resource server and a gateway get their sessions from there.
    #[arg(long = "as", value_name = "ORIGIN#KEY")]
    pub(crate) service: Option<String>,
    /// The file with the only certificate authorities to trust for the service. Without it: the system's.
    #[arg(long, value_name = "FILE", requires = "service")]
    pub(crate) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: InstallPlace,
}

#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    pub(crate) place: InstallPlace,
}

/// The roles that can be a system service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum InstallRole {
    /// The sidecar beside an agent, and its authenticator.
    Sidecar,
    /// The Authentication Service.
    As,
    /// A resource server.
    Rs,
    /// The gateway for APIs that do not know Obol.
    Gateway,
}

#[derive(Debug, Args)]
pub(crate) struct InstallPlace {
    /// What it is about.
    #[arg(long, value_enum, default_value = "sidecar")]
    pub(crate) role: InstallRole,
    /// Another one besides the machine's first: its user, units and folders are called obol-NAME, obol-as-NAME, obol-rs-NAME or
    /// obol-gateway-NAME.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Write the files into this folder, and leave the running machine as it is.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) prefix: Option<PathBuf>,
    /// Only print what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
