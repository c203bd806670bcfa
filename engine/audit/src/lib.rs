//! The audit log: one line of JSON for each hand-out, denial, flush, renewal, and each start and end of a session; at a
//! resource server, for each token that was accepted or refused.
//!
//! What lives here: the lines, the chain that ties them together, the thread that writes them, and the check that
//! nobody changed, removed, moved or added one.
//!
//! What it promises:
//!
//! 1. *Nothing is handed out, or accepted, unaudited.* Whoever is about to do it takes a [`Reservation`] first; without one it must
//!    refuse. A place can be had only while lines can be written ([`Suspended`] says why not).
//! 2. *A caller never waits for the disk.* It puts an [`Entry`] into a bounded queue; one thread does the rest.
//! 3. *Tampering shows.* Each line carries the hash of the line before it and a seal under a key derived from the
//!    master key, so that who can write the file and does not have that key cannot make a line that counts. How far the
//!    log had got is kept, sealed, in a second file (the `head` of [`LogOptions`]), so that cut off lines are missed. Without
//!    that file a log is not whole; that both were taken away is known to whoever keeps a [`ChainMark`].
//! 4. *A crash is not tampering.* A line torn by a crash is told from a changed one: the next start declares it, sealed.
//! 5. *Refusals cost a bounded amount*, whoever asks for them and however often ([`AuditLog::refusal`]): beyond an
//!    allowance they are counted, and lines about them take no place from hand-outs. Names are cut at a length.
//! 6. *No secret is in it.* Of a token only a hash of its `jti` is written.
//!
//! What it does not promise: that who holds the master key cannot write history afresh; send the lines elsewhere for
//! that. Nor that the last moments before a power cut are there: lines are made durable within [`SYNC_WITHIN`].
//!
//! What it must not know: queues, sockets, tokens.

mod allowance;
mod chain;
mod entry;
mod files;
mod head;
mod inbox;
mod log;
mod options;
mod reader;
mod recover;
#[cfg(test)]
mod tests;
mod time;
pub mod verify;
mod writer;

pub use allowance::Party;
pub use chain::ChainKey;
pub use entry::{Decision, Entry, Event, RequestTag};
pub use inbox::{Suspended, Totals};
pub use log::{AuditLog, Reservation};
pub use options::{ChainMark, LogOptions, NotAMark};
pub use reader::{Line, LogPage, NotAPlace, Place};
pub use recover::LogOpenError;
pub use time::iso;
pub use writer::SYNC_WITHIN;
