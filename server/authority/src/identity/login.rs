//! One login: what it begins with, what comes back, and what is known of the human then.

use core::fmt;
use std::collections::BTreeSet;

use obol_handshake::Random;
use obol_secret::text::to_base64url;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::directory::{Human, Person};

/// What a login begins with. Whoever asked for it keeps it until the browser comes back.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// What the browser must bring back: it is this browser's login and nobody else's.
    pub(crate) state: String,
    /// What the ID token must say: it was made for this login.
    pub(super) nonce: String,
    /// What the code is exchanged with: a code that was stolen on its way is worth nothing.
    pub(super) verifier: String,
    /// Who is asked: nobody else's answer is one.
    pub(crate) issuer: String,
    /// When it began, in Unix seconds.
    pub(crate) at: u64,
}

impl Login {
    pub(super) fn new(issuer: &str, rng: &mut dyn Random, at: u64) -> Self {
        let mut fresh = || {
            let mut bytes = [0; 32];
            rng.fill(&mut bytes);
            to_base64url(&bytes)
        };
        Self { state: fresh(), nonce: fresh(), verifier: fresh(), issuer: issuer.to_owned(), at }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login([redacted])")
    }
}

/// What the browser brings back from the provider.
#[derive(Clone, Default, Deserialize)]
pub struct Callback {
    /// The code.
    #[serde(default)]
    pub code: Option<String>,
    /// Which login it answers.
    #[serde(default)]
    pub state: Option<String>,
    /// Who answers.
    #[serde(default)]
    pub iss: Option<String>,
    /// Why there is no code.
    #[serde(default)]
    pub error: Option<String>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("iss", &self.iss).field("error", &self.error).finish_non_exhaustive()
    }
}

/// A human whom the provider vouches for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Who it is.
    pub human: Human,
    /// What to call them.
    pub name: String,
    /// Their roles.
    pub roles: BTreeSet<String>,
    /// Whether they showed a second factor.
    pub mfa: bool,
    /// When they logged in, in Unix seconds.
    pub login_at: u64,
}

impl Known {
    /// What the directory knows of them from now on.
    pub fn person(&self, now: u64) -> Person {
        Person {
            name: self.name.clone(),
            roles: self.roles.clone(),
            mfa: self.mfa,
            login_at: self.login_at,
            known_at: now,
            ..Person::unknown(self.human.clone())
        }
    }
}

/// Why nobody is logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoginError {
    /// The provider does not answer, or not as one.
    Unreachable(String),
    /// The provider says that there was no login: an error's name.
    Said(String),
    /// What came back is not the answer to this login, or not to be trusted.
    NotTrusted(String),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the identity provider cannot be asked: {why}"),
            Self::Said(error) => write!(f, "the identity provider says: {error}"),
            Self::NotTrusted(why) => write!(f, "the login is not trusted: {why}"),
        }
    }
}

impl core::error::Error for LoginError {}
