//! The agent's side of the Agent Token Protocol (docs/atp.md): asks for scoped tokens, keeps them sealed, refreshes them ahead of
//! their end, gives them back.
//!
//! # What lives here
//!
//! - [`Client`]: request, ensure, verify, revoke.
//! - [`machine`]: this machine's agent id.
//! - [`address`]: which addresses are of the public internet.
//!
//! # What it promises
//!
//! - Nothing is signed for, and nothing sent to, an endpoint that is not HTTPS at the host that was asked, or at an address that
//!   is not public, unless the owner listed it. No redirect is followed and no proxy is used.
//! - A token goes to nobody but its issuer, a secret to nobody at all.
//! - One request for each host, however many tasks and processes want a token at the same moment.
//! - What is answered is never taken for more than it says: no answer is not "invalid", and a wider grant is given back.
//!
//! # What it must not know
//!
//! What the tokens are used for.

pub mod address;
mod client;
mod connect;
mod error;
mod keychain;
pub mod machine;
mod options;
mod secrets;
mod state;

pub use client::{Client, Revocation, Token, TokenRequest, Verdict};
pub use error::AtpError;
pub use options::Options;
