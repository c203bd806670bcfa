//! A session between an agent and the resource servers it may call, and the two halves of it: what the agent's token queue
//! mints with, and what a resource server accepts by.
//!
//! # What lives here
//!
//! - [`AgentHalf`] and [`ResourceHalf`]: read and written as JSON, strictly, both alike. A name that stands twice, a list
//!   in the place of an object and an unknown field are errors, and no error repeats a key.
//! - [`Grant`]: what may be minted, and at the resource server the most that is accepted. The same form in both halves.
//! - [`Call`]: what one call takes of a grant, where a human is asked about each.
//! - [`Establish`]: makes both halves from the secret that a handshake left.
//! - [`Cursor`]: how far somebody has come who follows the service that opens sessions.
//! - [`clock`]: where the time comes from, handed in.
//! - [`limits`]: how long and how many.
//!
//! # What it must not know about
//!
//! Files, stores and sockets; who decides what is granted.

mod agent_half;
mod call;
pub mod clock;
mod cursor;
mod error;
mod establish;
mod grant;
mod keys;
pub mod limits;
mod resource_half;

pub use agent_half::AgentHalf;
pub use call::{APPROVED_TRUST_LEVEL, Call, approved_scope};
pub use cursor::Cursor;
pub use error::DocumentError;
pub use establish::Establish;
pub use grant::{AgentIdentity, Approval, Grant};
pub use keys::{PopKey, ServerKeys};
pub use obol_token::{Nonces, SessionId, Suite};
pub use resource_half::{ResourceHalf, Window};
