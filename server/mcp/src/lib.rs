//! Single-use tokens for MCP servers, after TBAC r41 (the extension `io.modelcontextprotocol/tbac`).
//!
//! # What lives here
//!
//! - [`capability`]: what both ends say about themselves when they meet, and what follows from it.
//! - [`RequestMeta`]: what a client puts into `params._meta` of `tools/call`, and how a server reads it.
//! - [`ToolResult`] and [`Denied`]: refusals as MCP wants them, inside a result and not as an error of the protocol.
//! - [`ToolGuard`]: from the name of a tool to a spent token: verifies it for the tool and its arguments, opens sealed
//!   arguments and seals the result.
//! - [`front`] and [`Rules`]: the guard in front of a server in any language, line by line.
//! - [`wrap`]: the other side, in front of a client in any language.
//! - [`routing`] and [`sse`]: what both need where messages travel over HTTP.
//! - `rmcp`, with the feature of that name: the guard around a server of the official SDK.
//!
//! All but the last is plain data and an `async` function or two; it fits any server that has the JSON of a request.
//!
//! # What it promises
//!
//! - A tool runs only after its token was spent. Tools that nobody told the guard about need a token as well.
//! - Whatever the client claimed when it connected changes nothing about that.
//! - A refusal holds the stable names of code and check and nothing else; the log has the reason. No token is logged,
//!   and none reaches the tool.
//! - The result of a call with sealed arguments leaves sealed, or not at all.
//!
//! # What it must not know about
//!
//! Transports, and what the tools do.

pub mod capability;
pub mod front;
mod guard;
mod jsonrpc;
mod message;
mod raw;
mod result;
#[cfg(feature = "rmcp")]
pub mod rmcp;
pub mod routing;
mod rules;
pub mod sse;
pub mod wrap;

pub use guard::{Admitted, ToolGuard};
pub use message::{CallReadError, RequestMeta, TokenText, ToolsCall};
pub use result::{Denied, ToolResult};
pub use rules::Rules;

/// The extension's name: a key of capabilities and of `_meta`.
pub const EXTENSION: &str = "io.modelcontextprotocol/tbac";
/// The revision that is spoken here.
pub const VERSION: &str = "2026-04-21-r41";
/// The only token format.
pub const TOKEN_FORMAT: &str = "opaque";
