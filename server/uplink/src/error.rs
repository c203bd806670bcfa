//! Why something was not done at the service, in words that say what to do.

use core::fmt;

use obol_handshake::HandshakeError;
use obol_secret::text::plain;
use obol_session::DocumentError;
use serde::Deserialize;

/// A refusal in clear, as far as it can be read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Clear {
    /// Its code, or the status.
    #[serde(default)]
    pub code: String,
    /// What it says.
    #[serde(default)]
    pub detail: String,
    /// The suites that are spoken, where that is why.
    #[serde(default)]
    pub suites: Vec<u8>,
}

/// Why something failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AuthError {
    /// The caller's identity cannot be read or kept.
    Identity(Box<dyn core::error::Error + Send + Sync>),
    /// The service cannot be reached, or its answer did not arrive. It may have done what was asked.
    Unreachable(String),
    /// The service refused inside the handshake, so it was really the service: its code and its words.
    Refused {
        /// The stable code.
        code: String,
        /// What it means, and what to do.
        detail: String,
    },
    /// Something on the way refused in clear; nobody knows whether it was the service.
    Rejected {
        /// The code it gave, or the status.
        code: String,
        /// What it said.
        detail: String,
    },
    /// The answer is not one of the service whose key is pinned, or was changed on its way.
    NotTheService(HandshakeError),
    /// The service could have used a better suite than somebody on the way made it use.
    Downgrade {
        /// What was used.
        used: u8,
        /// What was possible.
        possible: u8,
    },
    /// No suite is spoken by both, or none that is strong enough.
    NoSuite,
    /// This machine's clock is ahead of the service's by so many seconds; or behind, where it is negative.
    ClockSkew(i64),
    /// The service's answer makes no sense.
    Answer(String),
    /// There was nothing to ask about: the agent has not asked to be registered.
    NotAsked,
    /// Something of this machine failed.
    System(String),
}

impl AuthError {
    /// A stable code, for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Identity(_) => "IDENTITY",
            Self::Unreachable(_) => "AUTHORITY_UNREACHABLE",
            Self::Refused { code, .. } | Self::Rejected { code, .. } => code,
            Self::NotTheService(_) => "NOT_THE_SERVICE",
            Self::Downgrade { .. } => "DOWNGRADE",
            Self::NoSuite => "NO_SUITE",
            Self::ClockSkew(_) => "CLOCK_SKEW",
            Self::Answer(_) => "ANSWER",
            Self::NotAsked => "NOT_REGISTERED",
            Self::System(_) => "SYSTEM",
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => error.fmt(f),
            Self::Unreachable(why) => write!(f, "the service cannot be reached: {why}"),
            Self::Refused { code, detail } => write!(f, "the service refused ({code}): {detail}"),
            Self::Rejected { code, detail } => {
                write!(f, "refused on the way to the service, or by it ({code}): {detail}")
            }
            Self::NotTheService(error) => write!(
                f,
                "the answer is not from the service whose key is pinned ({error}); if the service has a new key, pin it after \
                 comparing it over a channel you trust"
            ),
            Self::Downgrade { used, possible } => write!(
                f,
                "somebody on the way made the service use suite {used} although suite {possible} was possible; nothing was sent"
            ),
            Self::NoSuite => f.write_str("there is no suite that both sides speak and that is strong enough"),
            Self::ClockSkew(secs) => write!(
                f,
                "this machine's clock is {} s {} the service's; set whichever is wrong, and keep both by NTP",
                secs.unsigned_abs(),
                if *secs < 0 { "behind" } else { "ahead of" }
            ),
            Self::Answer(why) => write!(f, "the service's answer makes no sense: {why}"),
            Self::NotAsked => f.write_str("this agent has not asked to be registered; register first"),
            Self::System(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for AuthError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Identity(error) => Some(&**error),
            Self::NotTheService(error) => Some(error),
            _ => None,
        }
    }
}

/// It may be anybody's on the way.
impl From<Clear> for AuthError {
    fn from(clear: Clear) -> Self {
        let readable = |text: &str| plain(text).into_owned();
        Self::Rejected { code: readable(&clear.code), detail: readable(&clear.detail) }
    }
}

impl From<DocumentError> for AuthError {
    fn from(error: DocumentError) -> Self {
        Self::Answer(error.to_string())
    }
}
