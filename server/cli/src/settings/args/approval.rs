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
    /// Ask a human to approve one call or several, wait for the decision, and print an approval ID for each call.
    ///
    /// Each line is the --approval-id of `obol fetch` for one call, valid as often as that call allows. Exit codes: 3 if denied, 5 if nobody
    /// decided, 4 if the service does not answer.
    Request(Box<ApprovalRequestArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ApprovalRequestArgs {
    /// The tool, for one call.
    #[arg(value_name = "TOOL", required_unless_present = "calls", conflicts_with = "calls")]
    pub(crate) tool: Option<String>,
    /// The resource server, if the tool is granted for several.
    #[arg(long, value_name = "URI", conflicts_with = "calls")]
    pub(crate) audience: Option<String>,
    /// An action of the call, if it is narrower than the grant. May be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "calls")]
    pub(crate) action: Vec<String>,
    /// A resource that the call uses.
    #[arg(long, value_name = "RESOURCE", conflicts_with = "calls")]
    pub(crate) resource: Option<String>,
    /// Limits beyond those of the grant: a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "calls")]
    pub(crate) constraints: Option<String>,
    /// The arguments, a JSON object: the human sees them, and a call with other arguments is refused.
    #[arg(long, value_name = "JSON", conflicts_with = "calls")]
    pub(crate) arguments: Option<String>,
    /// How often each call may be made, unless the call sets its own count.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..=32))]
    pub(crate) count: Option<u64>,
    /// Several calls: a JSON file with a list of {"tool", "audience"?, "action"?, "resource"?, "constraints"?, "arguments"?, "count"?}.
    #[arg(long, value_name = "FILE")]
    pub(crate) calls: Option<PathBuf>,
    /// Why the calls are made: the human reads it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: Option<String>,
    /// For how many seconds after the approval they may be made; five minutes by default.
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
