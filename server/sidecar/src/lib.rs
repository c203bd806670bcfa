//! The Token Queue Service (TQS): two Unix sockets over one durable queue.
//!
//! What lives here: the listeners, the connections, and what each method does. The agent's socket hands out tokens;
//! the operator's socket provisions, flushes and reports. They are separate files so that a sandbox can be given the
//! one without the other.
//!
//! What it promises:
//! - a socket is reached by its owner alone: folder 0700, socket 0600, and the peer's user checked at every connection;
//! - a live socket is never stolen, a dead one is replaced;
//! - every frame, wait, queue and number of connections has a bound, and what goes beyond is refused in words;
//! - a token is written to one connection and to nothing else, above all to no log.
//!
//! What it must not know: the token format, files of configuration, HTTP.

mod agent;
mod connection;
mod control;
mod limits;
mod listener;
mod rate;
mod service;

pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use service::{Handle, Options, Service};
