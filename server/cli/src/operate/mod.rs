//! What people ask of servers that run: status, sessions, flushes, tokens, logs; and what their settings come to.
//!
//! A file for each command or group of commands. What is sent to whom stands in the clients of the sockets; here is what is
//! made of the arguments, and how answers are shown.

#[cfg(feature = "authority")]
pub(crate) mod afar;
pub(crate) mod approval;
pub(crate) mod atp;
pub(crate) mod audit_verify;
pub(crate) mod auth;
#[cfg(feature = "authority")]
pub(crate) mod authority;
pub(crate) mod config_check;
mod connect;
pub(crate) mod dequeue;
pub(crate) mod fetch;
pub(crate) mod flush;
pub(crate) mod inspect;
pub(crate) mod join;
mod other_user;
pub(crate) mod rs;
pub(crate) mod session;
pub(crate) mod status;
mod watch;
