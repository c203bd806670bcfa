//! What stands between an MCP client and an MCP server, over standard input and output: `obol mcp wrap` beside the client,
//! `obol mcp guard` beside the server. What becomes of each line is said by [`obol_mcp`]; here lines are read and written.
//!
//! Each direction has a thread of its own, so that neither waits for the other, and goes line by line: what was said first
//! arrives first. A line is read whole before anything of it goes on, so one that breaks off is never taken for a message.

mod agent;
mod guard;
mod lines;
mod server;
mod wrap;

pub(crate) use self::guard::run as guard;
pub(crate) use self::wrap::run as wrap;
