//! Programs that print a credential: run at the start, and again and again where a file says so, by a helper that is started before the
//! sandbox.
//!
//! The gateway runs no program once it serves. What does is a process of its own, which is told at its start which programs there
//! are, and from then on only the number of one: whoever takes the gateway over can have the operator's own programs run, and
//! no others. It ends with the gateway, whichever way that ends.

mod link;
mod process;
mod run;
mod wire;

pub(crate) use self::link::{Helper, Program};
pub(crate) use self::process::help;
