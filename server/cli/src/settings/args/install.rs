//! Setting the sidecar up as a service of the machine, and taking that away.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A user whose processes are agents, by name or number, or a group as @name; may be given several times.
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) agent_user: Vec<String>,
    /// The Authentication Service and its key, as `obol as` prints them: the sidecar gets an authenticator, which opens its
    /// sessions there.
    #[arg(long = "as", value_name = "ORIGIN#KEY")]
    pub(crate) service: Option<String>,
    /// The certificate authorities that the authenticator trusts, and no others, as a file. Without it: the system's.
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

#[derive(Debug, Args)]
pub(crate) struct InstallPlace {
    /// One more sidecar beside the machine's first: its user, units and folders are called obol-NAME.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Work on the files in this folder, and leave the running machine as it is.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) prefix: Option<PathBuf>,
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
