//! The Token Queue Service (TQS): two Unix sockets over one durable queue.
//!
//! What lives here: the listeners, the connections, and what each method does; what a peer may take; and what it
//! tells those who watch over it. The agent's socket hands out tokens;
//! the operator's socket provisions, flushes and reports. They are separate files so that a sandbox can be given the
//! one without the other.
//!
//! What it promises:
//! - a socket is reached by those it is for and nobody else: modes of folder and socket let no more in than they must, and
//!   the peer's user is checked at every connection; the operator's is for the daemon's own user and root;
//! - a live socket is never stolen, a dead one is replaced;
//! - every frame, wait, queue and number of connections has a bound, and what goes beyond is refused in words;
//! - a token is written to one connection and to nothing else, above all to no log.
//!
//! What it must not know: the token format, files of configuration, where the master key comes from.

mod access;
mod agent;
mod agents_socket;
mod approved;
mod audit;
mod connection;
mod control;
mod counters;
mod denials;
mod http;
mod limits;
mod listener;
mod operator;
mod owner;
mod parts;
mod pop_keys;
mod seats;
mod service;
mod socket_server;
mod turns;
mod waits;

pub use access::{Access, AgentUsers, AgentUsersError, Modes};
pub use agents_socket::{AgentsSocket, SocketHealth};
pub use connection::{Answer, Answerer, Requester};
pub use http::{HttpAddress, HttpListener};
pub use limits::PeerLimits;
pub use listener::Listener;
pub use obol_probe::contract::{BindCause, BindError};
pub use operator::OperatorSocket;
pub use owner::Owner;
pub use service::{Handle, HttpSocket, Options, Service, Socket};
