//! A session between an agent and the resource servers that it may call, and the session's two halves: the agent's token
//! queue mints with one, and a resource server accepts tokens with the other.
//!
//! # What lives here
//!
//! - [`AgentHalf`] and [`ResourceHalf`]: read and written as JSON, both equally strictly. A duplicate name, a list in the
//!   place of an object and an unknown field are errors, and no error repeats a key.
//! - [`Grant`]: what may be minted, and at the resource server the most that is accepted. Both halves have the same form.
//! - [`Call`]: what one call uses of a grant, if a human is asked about each call.
//! - [`Establish`]: makes both halves from the secret of a handshake.
//! - [`Cursor`]: the position that a follower of the service that opens sessions has reached.
//! - [`clock`]: the source of the time, passed in.
//! - [`limits`]: the bounds on lengths and numbers.
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
pub use grant::{AgentIdentity, ApprovalRule, Grant};
pub use keys::{PopKey, ServerKeys};
pub use obol_token::{Nonces, SessionId, Suite};
pub use resource_half::{ResourceHalf, Window};
