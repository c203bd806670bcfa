//! Why a security event token is not confirmed: because it is wrong, or because it cannot be taken now.

use core::fmt;
use core::time::Duration;

/// What is wrong with a token, by the code of RFC 8935, section 2.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// It is not a token, or says what cannot be.
    Request,
    /// Its key is not one of its issuer's, or not one that is taken.
    Key,
    /// Nobody listens to its issuer.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// Its signature does not hold.
    Authentication,
}

impl Wrong {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Request => "invalid_request",
            Self::Key => "invalid_key",
            Self::Issuer => "invalid_issuer",
            Self::Audience => "invalid_audience",
            Self::Authentication => "authentication_failed",
        }
    }

    pub(crate) fn because(self, why: impl Into<String>) -> Refusal {
        Refusal::Wrong(self, why.into())
    }
}

/// Why a token is not confirmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is wrong, and stays so.
    Wrong(Wrong, String),
    /// It cannot be taken now; send it again after this long.
    Later(Duration, &'static str),
}

impl Refusal {
    pub(super) fn too_late(max_age_secs: u64) -> Self {
        Wrong::Request.because(format!("`iat` is more than {max_age_secs} s ago, or `exp` is over"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong, why) => write!(f, "{}: {why}", wrong.code()),
            Self::Later(wait, why) => write!(f, "{why}; send it again in {} s", wait.as_secs().max(1)),
        }
    }
}
