//! What keeps a secret a secret on this machine. Every crate that holds one does it with what is here.
//!
//! # What lives here
//!
//! - [`text`]: hex and base64url, strict, the longest text given by whoever reads.
//! - [`wipe`]: memory that is overwritten when it is let go.
//! - [`secret!`]: a type for 32 secret bytes: no `Clone`, no revealing `Debug`, compared in constant time, wiped.
//! - [`mod@file`] (feature `files`): files that hold secrets, opened by one rule.
//! - [`mod@key`] (feature `files`): 32 random bytes in a file, and what is derived from them.
//! - [`seal`] (feature `seal`): sealing at rest.
//! - [`json`] (feature `json`): reads JSON to the letter, with errors that never repeat a value.
//!
//! Without features there is no I/O here, so that the token format stays free of it.
//!
//! # What it must not know about
//!
//! What the secrets are for: no tokens, no sessions, no sockets.

pub mod compare;
#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "files")]
pub mod key;
#[cfg(feature = "seal")]
pub mod seal;
pub mod text;
pub mod wipe;

#[doc(hidden)]
pub use serde;
