//! Clients of the local sockets: for agents that draw tokens from the sidecar (TQS) and have the authenticator open
//! sessions, and for the operators of the sidecar and of a resource server.
//!
//! # What lives here
//!
//! - [`Client`], [`AuthClient`], [`ControlClient`], [`RsControlClient`], [`AsControlClient`], [`AuthControlClient`]: blocking clients, one for each
//!   socket. `AsyncClient` (feature
//!   `tokio`): one connection to the agent's socket, shared by many tasks.
//! - [`ConnectOptions`]: how a client introduces itself. Opening a socket makes sure who is at the other end.
//!
//! What is said on a socket is [`protocol`], the crate `obol-ipc`, which the servers build on as well.
//!
//! # What it promises
//!
//! - A `dequeueToken` of which one byte was written is never sent a second time. When its answer is lost, the caller
//!   is told that the token may have been handed out ([`CallError::MayHaveBeenHandedOut`]).
//! - A client talks only to a socket and a process that belong to its own user, to root, or to the user it was told to
//!   expect ([`protocol::DAEMON_USER_VARIABLE`]), or to the owner of a folder that only root can have put there.
//! - Every wait has an end.
//!
//! # What it must not know about
//!
//! No keys, no token format, no database, no HTTP, no configuration files. A token is opaque text here.
//!
//! # Platform
//!
//! Linux. Elsewhere the crate builds, and connecting fails closed because the peer cannot be identified.

#[cfg(feature = "tokio")]
mod async_client;
mod client;
mod connect;
#[cfg(test)]
mod tests;

/// What is said on the sockets: names, messages, refusals, and where the sockets are.
pub use obol_ipc as protocol;

#[cfg(feature = "tokio")]
pub use self::async_client::{AsyncClient, MAX_IN_FLIGHT};
pub use self::client::{
    AsControlClient, AuthClient, AuthControlClient, BlockingClient, CallError, Client, ControlClient,
    RsControlClient, Way,
};
pub use self::connect::{ConnectError, ConnectOptions, Lost};
