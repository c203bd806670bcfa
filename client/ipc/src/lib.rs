//! Frames, messages and clients for the local sockets of the Token Queue Service (TQS) and the resource server.
//!
//! # What lives here
//!
//! - [`frame`]: length-prefixed frames, without I/O.
//! - [`hello`]: the first frame each way, which settles the protocol version and the codec.
//! - [`message`]: what an agent may say on `agent.sock`; [`control`]: what the operator may say on `control.sock`, and
//!   [`rs_control`] on a resource server's `rs-control.sock`.
//! - [`refusal`]: the errors both protocols answer with; [`value`] and [`secret`]: the checked values they carry.
//! - [`codec`]: messages to frame bodies and back, as JSON-RPC 2.0 or as bincode.
//! - [`endpoint`]: where the sockets are; [`connect`]: opening one and making sure who is at the other end.
//! - [`client`]: blocking clients; `async_client` (feature `tokio`): one connection shared by many tasks.
//!
//! The server uses everything but the clients; both sides therefore agree by construction.
//!
//! # What it promises
//!
//! - Input from the other side never panics and never makes this crate allocate more than one frame's worth
//!   ([`frame::MAX_BODY_BYTES`]) beyond what has arrived.
//! - A `dequeueToken` of which one byte was written is never sent a second time. When its answer is lost, the caller
//!   is told that the token may have been handed out ([`client::CallError::MayHaveBeenHandedOut`]).
//! - A client talks only to a socket and a process that belong to its own user, to root, or to the user it was told to
//!   expect ([`endpoint::DAEMON_USER_VARIABLE`]), or to the owner of a folder that only root can have put there.
//! - Tokens and session documents are wiped from memory when dropped, and print as a redaction. The wiping is best
//!   effort: the kernel's socket buffers and the parser's scratch space are out of reach.
//!
//! # What it must not know about
//!
//! No keys, no token format, no database, no HTTP, no configuration files. A token is opaque text here.
//!
//! # Platform
//!
//! Linux. Elsewhere the crate builds, and connecting fails closed because the peer cannot be identified.

pub mod client;
pub mod codec;
pub mod connect;
pub mod control;
pub mod endpoint;
pub mod frame;
pub mod hello;
pub mod message;
pub mod proof;
mod protocol;
pub mod refusal;
pub mod rs_control;
pub mod secret;
pub mod time;
pub mod user;
pub mod value;

#[cfg(feature = "tokio")]
pub mod async_client;

#[cfg(feature = "tokio")]
pub use async_client::AsyncClient;
pub use client::{CallError, Client, ControlClient, RsControlClient};
pub use codec::Codec;
pub use connect::ConnectOptions;
pub use endpoint::Endpoint;
pub use protocol::Protocol;
