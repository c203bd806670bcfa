//! The roles that `obol` plays as a server, and what they share: where things are kept, what is left to them, how they log
//! what they do.

mod agents;
pub(crate) mod atp;
pub(crate) mod audit;
pub(crate) mod authenticator;
#[cfg(feature = "authority")]
pub(crate) mod authority;
mod companions;
#[cfg(feature = "authority")]
pub(crate) mod demo;
#[cfg(feature = "authority")]
pub(crate) mod dev;
pub(crate) mod followed;
#[cfg(feature = "gateway")]
pub(crate) mod gateway;
pub(crate) mod master_key;
pub(crate) mod mcp;
#[cfg(feature = "authority")]
mod operator;
mod operator_door;
mod pin;
pub(crate) mod proxy;
pub(crate) mod rs;
mod sandbox;
pub(crate) mod sidecar;
pub(crate) mod stores;
mod strangers;
pub(crate) mod templates;
pub(crate) mod tqs;
