//! The stream by which resource servers and agents follow the Authentication Service: what it says, what they answer, and
//! the frames that carry it.
//!
//! | part | what it is |
//! |---|---|
//! | [`Subscribe`] | what a follower says of itself inside the handshake |
//! | [`Item`] | what the service says, one item in each sealed message |
//! | [`Word`] | what a follower answers: how far it has come, or that an operator flushed its sidecar |
//! | [`Frames`] | server-sent events, as they come from the network |
//!
//! The order is: `hello`; after that a list of everything, where the follower does not know enough to go on, ended by
//! `listed`; after that numbered items, and heartbeats in between. Each numbered item names the number before it *for this
//! follower*, so one that was lost shows.
//!
//! What lives here is bytes in, values out. It must not know: sockets, who is allowed to follow, what a follower does with it.

mod frames;
mod item;
mod word;

pub use frames::{FrameError, Frames, frame};
pub use item::{ApprovedUse, Hello, Item, ItemError, MAX_ITEM_BYTES, Mode, Standing, Transaction, What};
pub use word::{StreamId, Subscribe, Word, WordError};
