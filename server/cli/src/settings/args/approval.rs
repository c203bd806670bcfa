//! `obol approval`: a human's yes, as an agent asks for it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;
use super::fetch::AgentSockets;

#[derive(Debug, Args)]
pub(crate) struct ApprovalArgs {
    #[command(subcommand)]
    pub(crate) command: ApprovalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// Ask for one yes to a call, or to several, wait for it, and print what each call is drawn by.
    ///
    /// What is printed, a line for each call, is the --approval-id of `obol fetch`, as often as the call says. Exit codes: 3 for a no, 5 where
    /// nobody decided, 4 where the service does not answer.
    Request(Box<ApprovalRequestArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ApprovalRequestArgs {
    /// The tool, for one call.
    #[arg(value_name = "TOOL", required_unless_present = "calls", conflicts_with = "calls")]
    pub(crate) tool: Option<String>,
    /// The resource server, where the tool is granted for several.
    #[arg(long, value_name = "URI", conflicts_with = "calls")]
    pub(crate) audience: Option<String>,
    /// What the call does, where that is less than the grant allows. May be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "calls")]
    pub(crate) action: Vec<String>,
    /// With what the call does it.
    #[arg(long, value_name = "RESOURCE", conflicts_with = "calls")]
    pub(crate) resource: Option<String>,
    /// Limits beyond those of the grant: a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "calls")]
    pub(crate) constraints: Option<String>,
    /// The arguments, a JSON object: the human sees them, and a call with others is refused.
    #[arg(long, value_name = "JSON", conflicts_with = "calls")]
    pub(crate) arguments: Option<String>,
    /// How often each call may be made that does not say so itself.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..=32))]
    pub(crate) count: Option<u64>,
    /// Several calls: a JSON file with a list of {"tool", "audience"?, "action"?, "resource"?, "constraints"?, "arguments"?, "count"?}.
    #[arg(long, value_name = "FILE")]
    pub(crate) calls: Option<PathBuf>,
    /// Why they are made: the human reads it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,
    /// For how many seconds after the yes they may be made; five minutes if not said.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(crate) lifetime: Option<u64>,
    /// How long to wait for the human, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 360)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) sockets: AgentSockets,
    #[command(flatten)]
    pub(crate) output: Output,
}
