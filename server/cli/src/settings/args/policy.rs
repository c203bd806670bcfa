//! The command line of the commands on folders of policies.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::settings::args::Output;

/// Commands for a folder of policies, without an Authentication Service.
#[derive(Debug, Subcommand)]
pub(crate) enum FolderCommand {
    /// Check a folder of policies: catalogue.toml and all *.cedar in it.
    Check(CheckArgs),
    /// Ask the policies about the cases in a file, and compare the answers with those that it expects.
    Test(TestArgs),
    /// Show what an agent of the cases gets from a tool, and which policies decide it.
    Explain(ExplainArgs),
    /// Show what the agents of the cases gain and lose from one folder to another.
    Diff(DiffArgs),
    /// Write a first folder of policies, with a catalogue from an MCP server's list of tools.
    Init(InitArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The folder.
    #[arg(value_name = "DIR", default_value = "policy")]
    pub(crate) folder: PathBuf,
    /// Fail on warnings too.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where the cases are.
#[derive(Debug, Args)]
pub(crate) struct CasesArgs {
    /// The file with agents and cases, in TOML or JSON. Without it: cases.toml in the folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) cases: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The folder.
    #[arg(value_name = "DIR", default_value = "policy")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) cases: CasesArgs,
    /// Fail if a policy decides no case.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The agent's name in the cases.
    pub(crate) agent: String,
    /// The tool.
    pub(crate) tool: String,
    /// The resource server, if several have the tool.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: Option<String>,
    /// The folder.
    #[arg(long, value_name = "DIR", default_value = "policy")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) cases: CasesArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The folder with the older version.
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The folder with the newer version. Its cases name the agents.
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) cases: CasesArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder; nothing in it is overwritten.
    #[arg(value_name = "DIR", default_value = "policy")]
    pub(crate) folder: PathBuf,
    /// The result of the MCP server's tools/list, as JSON; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) from_mcp: PathBuf,
    /// The MCP server's identifier, the tokens' audience.
    #[arg(long, value_name = "URI")]
    pub(crate) audience: String,
    /// The organisation whose tools these are. Without it, policy could not say who may use the console.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) org: String,
}
