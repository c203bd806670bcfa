//! MCP's Streamable HTTP, on both sides of the extension. What becomes of a message is said by [`obol_mcp`]; here it travels.
//!
//! # What lives here
//!
//! - [`Proxy`]: the guard in front of a server that is reached over HTTP; [`Options`] → [`Service`] → [`Handle`] as every server.
//! - [`Bridge`]: the wrapper in front of a client that speaks over standard input and output, and of a server over HTTP.
//! - [`Remote`]: the address of the server behind either.
//!
//! # What it promises
//!
//! - One request in, at most one request out: nothing is sent again, whatever happens to it.
//! - What a session was told to change or to seal is changed and sealed on each of its streams. A session that is not known is refused:
//!   who does not know what has to be sealed passes nothing on.
//! - A message says in its headers what it says in its body, or goes no further.
//! - Everything else passes as it came, but for what belongs to a connection.
//! - Sizes, waits and numbers are bounded.
//!
//! # What it must not know about
//!
//! Where tokens come from, what is kept of them, what tools do.

mod body;
mod bridge;
mod headers;
mod proxy;
mod remote;

pub use self::bridge::{Bridge, Draw, Ended};
pub use self::proxy::{Handle, Proxy, Service};
pub use self::remote::Remote;
pub use obol_probe::contract::BindError;
pub use obol_probe::front::Options;

/// The longest message of a client, in bytes.
pub const MAX_CLIENT_BYTES: usize = 16 << 20;
/// The longest message of a server, in bytes: results may hold images.
pub const MAX_SERVER_BYTES: usize = 64 << 20;
