//! The provider's side of the Agent Token Protocol (docs/atp.md): issues, checks, rotates and revokes scoped tokens.
//!
//! # What lives here
//!
//! - [`Router`]: the routes, to nest into an `axum` server or to run alone, and [`Router::require`], the layer that lets a
//!   request through only with a token that has a scope.
//! - [`SecretBook`]: the agents and masters, read from the operator's file.
//! - [`Store`]: JWT keys, tokens of masters and revocations, in memory or in a sealed file.
//! - `serve` (feature `serve`): a separate process, with TLS.
//!
//! # What it promises
//!
//! - Before a signature is verified, no answer depends on which agents exist, and nothing is written.
//! - A signed request is answered with a token at most once, over restarts and, with a shared spent set, over replicas.
//! - A revocation or rotation is durable before it is answered, and survives restarts.
//! - If something cannot be written, looked up or audited, the request is refused: nothing fails open.
//!
//! # What it must not know
//!
//! What the API does behind [`Router::require`].

mod access;
mod audit;
mod builder;
mod denied;
mod issue;
mod keys;
mod master;
mod metrics;
mod networks;
mod provider;
mod request;
mod require;
mod router;
mod secrets;
#[cfg(feature = "serve")]
pub mod serve;
mod store;

pub use builder::{BuildError, Builder};
pub use require::{AgentToken, RequireLayer, RequireService};
pub use router::{Peer, Router};
pub use secrets::{MAX_SECRETS_FILE_BYTES, SecretBook, SecretsError};
pub use store::{Store, StoreError};
#[cfg(test)]
mod tests;
