//! The agent's side of the Agent Token Protocol (docs/atp.md): requests scoped tokens, keeps them sealed, refreshes them
//! ahead of their end, and gives them back.
//!
//! # What lives here
//!
//! - [`Client`]: requests, ensures, verifies and revokes tokens; [`Refresher`] keeps them fresh in the background.
//! - [`KeychainChoice`]: where tokens and secrets are kept.
//! - [`generate_agent_id`]: this machine's agent ID; [`sign_atp_body`] and [`verify_atp_signature`]: for any JSON object.
//! - [`address`]: which addresses belong to the public internet.
//!
//! # What it promises
//!
//! - Nothing is signed for, or sent to, an endpoint that is not HTTPS at the requested host, or at an address that is not
//!   public, unless the owner listed it. No redirect is followed and no proxy is used.
//! - A token goes only to its issuer, and a secret to nobody.
//! - One request is made for each host, however many tasks and processes want a token at the same moment.
//! - An answer never counts for more than it says: no answer does not mean "invalid", and a wider grant is given back.
//!
//! # What it must not know
//!
//! What the tokens are used for.

pub mod address;
mod client;
mod connect;
mod date;
mod entry;
mod error;
mod failures;
mod keychain;
mod machine;
mod options;
mod refresh;
mod secrets;
mod state;
mod token;

pub use obol_atp::{AgentId, AtpEndpoint, Host, sign_atp_body, verify_atp_signature};

pub use client::Client;
pub use error::AtpError;
pub use keychain::KeychainChoice;
pub use machine::generate_agent_id;
pub use options::{AgentIdMode, Options};
pub use refresh::{HostStatus, LastFailure, Refresher};
pub use token::{Revocation, Token, TokenRequest, TokenVerdict};
