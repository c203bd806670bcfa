//! Setting the sidecar up as a service of the machine, and taking that away.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A user whose processes are agents, by name or number, or a group as @name; may be given several times.
    #[arg(long, required = true, value_name = "NAME")]
    pub(crate) agent_user: Vec<String>,
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
