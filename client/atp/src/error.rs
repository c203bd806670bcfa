//! What can go wrong on the agent's side. No message holds a secret or a token.

use core::fmt;
use std::sync::Arc;

use obol_atp::UnfitSecret;
use obol_atp::discovery::DiscoveryError;
use obol_secret::file::PrivateFileError;
use obol_secret::key::KeyFileError;

/// Why there is no token, or no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum AtpError {
    /// The document of the host gives nothing to work with.
    Discovery(DiscoveryError),
    /// The host has no document.
    NotOffered,
    /// No secret is set for the host.
    NoSecret(String),
    /// The secret is not taken.
    Secret(UnfitSecret),
    /// The provider said no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The protocol's code, or `status_` and the status.
        code: String,
        /// Seconds to wait, if it said so.
        retry_after: Option<u64>,
    },
    /// More was granted than was asked for; the token was given back.
    WiderGrant,
    /// The provider cannot be reached, or cannot answer at the moment.
    Unavailable(String),
    /// The token is not of this host; nothing was sent.
    WrongIssuer,
    /// The scopes or the purpose are not what the protocol takes.
    Argument(&'static str),
    /// A file of the agent's state cannot be used.
    File(PrivateFileError),
    /// The key of the keychain cannot be used.
    Key(KeyFileError),
    /// The keychain cannot be used, or holds something else.
    Keychain(String),
    /// Somebody else asked at the same moment, and this is what came of it.
    Shared(Arc<AtpError>),
    /// The system failed.
    System(String),
}

impl fmt::Display for AtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery(error) => error.fmt(f),
            Self::NotOffered => {
                f.write_str("the host has no discovery document, so it offers no agent tokens")
            }
            Self::NoSecret(why) => f.write_str(why),
            Self::Secret(error) => error.fmt(f),
            Self::Refused { code, .. } => write!(f, "the provider refused: {code}"),
            Self::WiderGrant => {
                f.write_str("the provider granted more than was asked for; the token was given back")
            }
            Self::Unavailable(why) => write!(f, "the provider cannot be reached: {why}"),
            Self::WrongIssuer => f.write_str("the token is not from this host; nothing was sent"),
            Self::Argument(what) => f.write_str(what),
            Self::File(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Keychain(why) => f.write_str(why),
            Self::Shared(error) => error.fmt(f),
            Self::System(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for AtpError {}

impl AtpError {
    /// The error itself, also where somebody else met it.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Shared(error) => error.cause(),
            own => own,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self.cause() {
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Unavailable(_) => true,
            _ => false,
        }
    }

    /// How many seconds the provider asked to wait.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self.cause() {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<DiscoveryError> for AtpError {
    fn from(error: DiscoveryError) -> Self {
        Self::Discovery(error)
    }
}

impl From<PrivateFileError> for AtpError {
    fn from(error: PrivateFileError) -> Self {
        Self::File(error)
    }
}

impl From<KeyFileError> for AtpError {
    fn from(error: KeyFileError) -> Self {
        Self::Key(error)
    }
}

impl From<std::io::Error> for AtpError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error.to_string())
    }
}
