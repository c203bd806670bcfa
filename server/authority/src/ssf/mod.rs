//! Security events: what others say of humans and their sessions (Shared Signals Framework 1.0, CAEP 1.0, RISC), and what
//! follows from it for their agents.
//!
//! | part | what it is |
//! |---|---|
//! | [`EventSettings`] | who is listened to, from a file |
//! | `set`, `subject`, `effect` | what a security event token says, and what it brings about; no I/O |
//! | `receive` | takes a token: checks it, and has the directory remember it with its effect |
//! | [`trial`](mod@trial) | the service says an event to itself, for whoever wants to see what follows |
//! | `login` | what is shown at a transmitter that is asked for tokens |
//! | `poll` | fetches tokens (RFC 8936) where nobody can reach this service |
//! | `outlet_settings`, `hook` | who is told, and how a webhook is signed |
//! | `tell` | tells others what opens and ends, and what somebody should look at |
//!
//! Nothing here lets anybody in: an event can only end, suspend or revoke.

mod effect;
mod hook;
mod live;
mod login;
mod outlet_settings;
mod poll;
mod receive;
mod refusal;
mod set;
mod settings;
mod subject;
mod tell;
#[cfg(test)]
mod tests;
mod transmitter;
mod trial;

pub use self::live::Events;
pub(crate) use self::refusal::{Refusal, Wrong};
pub use self::settings::{EventSettings, EventSettingsError};
pub use self::tell::OutletStatus;
pub(crate) use self::tell::{StreamError, Verb, asked_while_waiting};
pub use self::transmitter::TransmitterStatus;
pub(crate) use self::trial::fresh_name;
pub use self::trial::{Trial, trial};
