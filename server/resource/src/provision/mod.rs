//! Sessions from an Authentication Service: a resource server joins it once, and follows what it says from then on.
//!
//! | part | what it is |
//! |---|---|
//! | [`join`] | makes this copy of the resource server known, by a code that an operator of the service made |
//! | [`Follower`] | hears of sessions and of their ends, and carries that out in a table of sessions |
//! | [`Lease`], [`LeasedTable`] | nothing is accepted once the service was not heard of for too long |
//!
//! What it promises:
//! - what the service ended is accepted no more from the moment it is heard of, tokens in flight included, and that is kept
//!   where the table keeps anything before it is confirmed;
//! - whatever is withheld, delayed, repeated or cut on the way: nothing is accepted after the lease, and nothing comes back;
//! - no session is taken without its grants, so no token is accepted that is wider than what was granted.
//!
//! It must not know: who decides what is granted, how tokens are minted.

mod follower;
mod join;
mod lease;

pub use self::follower::{Follower, Following};
pub use self::join::{Joined, join};
pub use self::lease::{Lease, LeaseState, LeasedTable};
