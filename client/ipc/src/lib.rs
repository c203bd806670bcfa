//! Clients of the local sockets: for agents that draw tokens from the sidecar (TQS) and have the authenticator open
//! sessions, and for the operators of the sidecar and of a resource server.
//!
//! # What lives here
//!
//! - [`Client`], [`AuthClient`], [`ControlClient`], [`RsControlClient`], [`AsControlClient`], [`AuthControlClient`]:
//!   blocking clients, one for each socket. `AsyncClient` (feature `tokio`): one connection to the agent's socket, shared
//!   by many tasks.
//! - [`ConnectOptions`]: how a client introduces itself. Opening a socket checks which user is at the other end.
//!
//! The messages are in [`protocol`], the crate `obol-ipc`, which the servers use too.
//!
//! # What it promises
//!
//! - A `dequeueToken` request of which one byte was written is never sent a second time. If its answer is lost, the
//!   caller is told that the token may have been handed out ([`CallError::MayHaveBeenHandedOut`]).
//! - A client talks only to a socket and a process that belong to its own user, to root, to the user that it was told to
//!   expect ([`protocol::DAEMON_USER_VARIABLE`]), or to the owner of a folder that only root can have put there.
//! - Every wait ends.
//!
//! # What it must not know about
//!
//! Keys, token formats, databases, HTTP, configuration files. A token is opaque text here.
//!
//! # Platform
//!
//! Linux. On other systems the crate builds, but connecting fails, because the peer cannot be identified.

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
