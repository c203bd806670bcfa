//! What stands between an MCP client and an MCP server: `obol mcp wrap` beside the client, `obol mcp guard` beside the server.
//! What becomes of each message is said by [`obol_mcp`]; here lines are read and written, and servers over HTTP reached by
//! [`obol_mcp_http`].
//!
//! Between processes each direction has a thread of its own, so that neither waits for the other, and goes line by line: what was said first
//! arrives first. A line is read whole before anything of it goes on, so one that breaks off is never taken for a message.

mod agent;
mod guard;
mod guard_http;
mod lines;
mod server;
mod wrap;
mod wrap_http;

pub(crate) use self::wrap::run as wrap;
use crate::exit::Outcome;
use crate::settings::args::mcp::McpGuardArgs;
use crate::settings::config::Config;

/// Guards a server that is started, until it ends, or one that is reached over HTTP, until told to end.
pub(crate) fn guard(args: &McpGuardArgs, config: &Config) -> Outcome {
    let rules = guard::rules_of(args)?;
    match &args.url {
        Some(url) => guard_http::run(args, url, rules, config),
        None => guard::run(args, rules, config),
    }
}
