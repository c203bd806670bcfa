//! The agent's side of the Agent Token Protocol (docs/atp.md): asks for scoped tokens, keeps them sealed, refreshes them ahead of
//! their end, gives them back.
//!
//! # What lives here
//!
//! - [`Client`]: request, ensure, verify, revoke; [`Refresher`]: what keeps tokens fresh in the background.
//! - [`KeychainChoice`]: where tokens and secrets are kept.
//! - [`generate_agent_id`]: this machine's agent id; [`sign_atp_body`] and [`verify_atp_signature`]: over any JSON object.
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

pub use obol_atp::{AgentId, Endpoint, Host, sign_atp_body, verify_atp_signature};

pub use client::Client;
pub use error::AtpError;
pub use keychain::KeychainChoice;
pub use machine::generate_agent_id;
pub use options::{AgentIdMode, Options};
pub use refresh::{LastFailure, Refresher, Status};
pub use token::{Revocation, Token, TokenRequest, Verdict};
