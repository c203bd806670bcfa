//! Operators elsewhere: they log in with the identity provider, for a key that their command line holds, and then ask for what
//! the operator of the service's own machine may, as far as settings and policy let them.
//!
//! Each request is a handshake of its own by that key, so there is nothing that a log, a proxy or whoever reads a request again
//! could use. Logins and what was answered are in memory: the cookies of handshakes end with the process, and so do these.
//!
//! It must not know: what an operator can ask for, cookies, pages.

mod answers;
mod logins;

use core::fmt;

pub(crate) use self::answers::{Answers, Turn};
pub(crate) use self::logins::{ASKED_SECS, AskedLogin, LoginState, Logins};
pub use self::logins::{LiveLogin, SaidOfLogin};
use crate::directory::Human;
use crate::refused::Refused;

/// Whose it is what an operator asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// That of agents: whoever carries it out looks whose, and shows and does nothing to those of an organisation that the operator does not
    /// reach.
    Agents,
    /// The service's own, or everybody's.
    Service,
}

/// Carries out what an operator asks for.
pub trait Operator: Send + Sync + fmt::Debug {
    /// Carries out one request of `by`, written as on the operator's socket, if `may` lets them use its verb on what it is of; gives the
    /// answer, written so too.
    fn operate(&self, request: &[u8], by: &Human, may: &dyn Fn(&str, Of) -> Result<(), Refused>) -> Vec<u8>;
}
