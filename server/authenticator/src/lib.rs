//! The agent's side of the Authentication Service: keeps the identity key, registers the agent, and opens sessions by a
//! mutual handshake.
//!
//! | part | what it is |
//! |---|---|
//! | [`Identity`] | the identity key, the SEK and what the last session left, in one sealed file |
//! | [`Authenticator`] | registers, asks what became of that, and opens sessions |
//! | [`service`] | the daemon: serves `auth.sock`, renews in time, gives each session to the sidecar, and listens to the service |
//!
//! What it promises:
//! - no session key crosses the wire: both sides derive them, and the session's own secret is gone once they are;
//! - a service without the pinned key, or one that was made to forget a better suite, is not gone on with;
//! - a lost answer is asked for again with the same bytes, and costs neither a second session nor a false alarm;
//! - the next session is with the sidecar before the last one ends, and a service that is away costs nothing before that;
//! - what an operator flushed, or the service ended, gets no session until they say so;
//! - where there is an audit log, nobody is registered and no session is opened that is not in it.
//!
//! It must not know: tokens, queues, what a session is used for.

mod approvals;
mod audit;
mod authenticator;
mod derive;
mod health;
mod identity;
mod keeper;
mod known;
mod leave;
mod listener;
mod refusal;
mod routes;
mod schedule;
pub mod service;
mod socket;
mod stolen;
#[cfg(test)]
mod tests;
mod tqs;
mod wishes;

pub use authenticator::{Authenticator, Registered, RegistrationState, Session, Waiting, Wishes};
pub use derive::Route;
pub use identity::{Identity, IdentityError};
