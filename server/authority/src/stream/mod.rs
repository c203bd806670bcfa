//! Who follows the events, and how far each has come.
//!
//! One task reads what was committed and hands it to those whom it concerns, each of which has a queue of its own: one commit
//! wakes all. Whoever does not read in time loses the queue and the stream with it, and comes back by cursor or by snapshot.
//!
//! | part | what it is |
//! |---|---|
//! | [`Hub`] | the streams that are open |
//! | [`Live`] | one of them |
//! | [`Feed`] | what its follower is told, in order and without a gap |

mod feed;
mod hub;
mod live;
#[cfg(test)]
mod tests;

pub(crate) use self::feed::Feed;
pub(crate) use self::hub::{Hub, Joined};
pub(crate) use self::live::{Live, Who};
