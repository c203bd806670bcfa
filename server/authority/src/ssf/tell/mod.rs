//! What the service tells others: sessions that open and end, to those who hold a stream of the Shared Signals Framework or a
//! webhook; alarms and what waits for a human, to webhooks.
//!
//! | part | what it is |
//! |---|---|
//! | `said` | what is said of an event of the directory, as a token and as a document |
//! | `outlets` | one task for each who is told: reads the directory's events behind its own cursor, and sends them |
//! | `streams` | what a receiver may do with its streams |
//!
//! Nothing here is waited for: an end is committed first, and whoever is told reads it from the directory afterwards, as fast as
//! they can. Who is away for longer than events are kept is told what is left, and what is lost is counted.

mod outlets;
mod said;
mod streams;

pub use self::outlets::OutletStatus;
pub(super) use self::outlets::Outlets;
pub(in crate::ssf) use self::streams::Desk;
pub(crate) use self::streams::{StreamError, Verb, asked_while_waiting};
