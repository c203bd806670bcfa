//! The agent's side of a gateway, without code: programs take a local address as the base URL of an API, and each request that they
//! send there goes on with a single-use token of the agent's session.
//!
//! # What lives here
//!
//! - [`Targets`]: which API the path of a request names.
//! - [`Proxy`]: gives a request its token and passes it on, by the rules of `docs/agent.md`.
//! - [`Door`]: loopback addresses and Unix sockets, for the agents' users alone; [`Options`] → [`Service`] → [`Handle`] as every server.
//!
//! # What it promises
//!
//! - Who is not one of the agents' users gets no token; nor does somebody whose user the kernel does not tell, or a web page.
//! - Nothing that a program logs in with goes on.
//! - A request is sent again only where nothing was run, with another token each time.
//! - Sizes, waits and numbers are bounded.
//!
//! # What it must not know about
//!
//! No key, no credential of an API's, no policy; where tokens may go is the session's to say.

mod answer;
mod headers;
mod owner;
mod proxy;
mod serve;
mod targets;
mod told;

pub use self::owner::{Caller, Owners};
pub use self::proxy::Proxy;
pub use self::serve::{Admits, Door, Handle, Looked, Options, Service};
pub use self::targets::{Targets, WrongTarget};
pub use self::told::FOREIGN_HOST;
pub use obol_probe::contract::BindError;
