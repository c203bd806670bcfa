//! The Agent Token Protocol: what both sides agree on, without sockets, files or clocks.
//!
//! # What lives here
//!
//! - [`TokenBody`], [`RevokeBody`]: the signed bodies, parsed strictly and written in canonical form. A [`Signed`] becomes
//!   [`Authentic`] once its signature is verified; only then is there a body to act on.
//! - [`Secret`], [`Signature`]: for any JSON object.
//! - [`jwt`]: the tokens that a provider makes. A token is read only if its header is, byte for byte, that of a live key.
//! - [`discovery`]: the document that says where a provider's endpoints are, written and read. It yields only HTTPS URLs
//!   at the requested host.
//! - [`master`]: the dialect with a long-lived credential instead of signatures.
//! - [`AtpEndpoint`], [`AtpScope`], [`AgentId`], [`purpose`]: the protocol's terms, each with its own rules.
//!
//! # What it promises
//!
//! - What was verified is what is acted on: one typed value, read once.
//! - No error repeats an input value, because bodies and documents may hold secrets.
//! - Secrets are compared in constant time, wiped when dropped, and never printed.
//!
//! # What it must not know
//!
//! Sockets, HTTP, files, clocks. Time comes in as an argument.

mod agent_id;
mod answer;
mod body;
pub mod discovery;
mod endpoint;
pub mod jwt;
pub mod master;
pub mod purpose;
mod scope;
mod signature;
mod text;
#[cfg(test)]
mod vectors;

pub use agent_id::AgentId;
pub use answer::{AtpErrorCode, AtpRefusal, TokenAnswer};
pub use body::{
    Authentic, Body, BodyError, KeyUsed, MAX_WINDOW_BACK_SECS, RevokeBody, Signed, TimestampWindow, TokenBody,
};
pub use endpoint::{AtpEndpoint, Host, Malformed};
pub use scope::{AtpScope, MAX_SCOPES, NotAScope, ScopeSet};
pub use signature::{
    MAX_SECRET_BYTES, MIN_SECRET_BYTES, NoCanonicalForm, Secret, Signature, UnfitSecret, canonical,
    sign_atp_body, verify_atp_signature,
};

/// The longest body, in bytes.
pub const MAX_BODY_BYTES: usize = 8 << 10;
