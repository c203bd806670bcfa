//! The way up to the Authentication Service, for whoever speaks to it: agents, and resource servers.
//!
//! | part | what it is |
//! |---|---|
//! | [`Pinned`] | which service, and the key that it must have |
//! | [`Uplink`] | carries out one purpose by a mutual handshake, over a connection of its own |
//! | [`Caller`] | who does so: its key, and what it says |
//! | [`UplinkConnector`], [`begin`] | the steps of that, one by one |
//! | [`Stream`], [`Voice`], [`Outbox`] | what the service says from then on, and what is answered |
//!
//! What it promises:
//! - a service without the pinned key, or one that was made to forget a better suite, is not gone on with;
//! - a lost answer is asked for again with the same bytes;
//! - everything is bounded in size and time, no redirect is followed and no proxy is used.
//!
//! It must not know: what a session is used for, what follows from what the service says, files of identities.

mod connect;
mod error;
mod exchange;
mod kept;
mod outbox;
mod pinned;
mod stream;
mod uplink;

pub use connect::{Answer, Connection, UplinkConnector};
pub use error::{AuthError, Clear};
pub use exchange::{Begun, Greeted, Proven, begin};
pub use outbox::Outbox;
pub use pinned::{Pinned, PinnedError};
pub use stream::{Stream, Voice};
pub use uplink::{Caller, MAX_SKEW_SECS, Uplink, UplinkOptions};
