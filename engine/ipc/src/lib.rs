//! The protocol of the local sockets: of the sidecar (TQS), for agents and for its operator, of the authenticator, and of the
//! operators of a resource server and of the Authentication Service. Bytes in, messages out; no sockets.
//!
//! # What lives here
//!
//! - [`frame`]: length-prefixed frames.
//! - [`hello`]: the first frame each way, which settles the protocol version and the codec.
//! - [`message`]: what an agent may say on `agent.sock`, and [`auth`] on the authenticator's `auth.sock`; [`control`]: what
//!   the operator may say on `control.sock`, [`auth_control`] on the authenticator's `auth-control.sock`, [`rs_control`] on a resource server's `rs-control.sock`, and [`as_control`] on
//!   the Authentication Service's `as-control.sock`. Each is one table of a [`Protocol`].
//! - [`approvals`]: a human's yes to a call, on three of these sockets.
//! - [`refusal`]: the errors that all answer with; [`names`], [`numbers`], [`time`], [`proof`] and [`secret`]: the checked
//!   values they carry.
//! - [`codec`]: messages to frame bodies and back, as JSON-RPC 2.0 or as bincode.
//! - [`Endpoint`]: where the sockets are; [`user`]: who is expected to serve them.
//!
//! Servers and clients both build on this, and so agree by construction. What it writes is fixed by
//! `tests/vectors/ipc`, which clients in other languages read too.
//!
//! # What it promises
//!
//! - Input from the other side never panics and never makes this crate allocate more than one frame's worth
//!   ([`frame::MAX_BODY_BYTES`]) beyond what has arrived.
//! - Tokens and session documents are wiped from memory when dropped, and print as a redaction. The wiping is best
//!   effort: the parser's scratch space is out of reach.
//!
//! # What it must not know about
//!
//! No sockets, no keys, no token format, no database, no HTTP, no configuration files. A token is opaque text here.

pub mod approvals;
pub mod as_control;
pub mod auth;
pub mod auth_control;
mod binary;
pub mod codec;
pub mod control;
mod endpoint;
pub mod frame;
pub mod hello;
pub mod message;
pub mod names;
pub mod numbers;
pub mod proof;
mod protocol;
pub mod refusal;
pub mod rs_control;
mod scope;
pub mod secret;
pub mod time;
pub mod user;

pub use endpoint::{
    AGENT_SOCKET_VARIABLE, AS_CONTROL_SOCKET_VARIABLE, AUTH_CONTROL_SOCKET_VARIABLE, AUTH_SOCKET_VARIABLE,
    CONTROL_SOCKET_VARIABLE, DAEMON_USER_VARIABLE, Endpoint, EndpointError, RS_CONTROL_SOCKET_VARIABLE,
};
pub use protocol::Protocol;
