//! Why a table of sessions was not opened or changed: one error for every table.

use core::fmt;
#[cfg(feature = "redb")]
use std::path::Path;
use std::path::PathBuf;

use obol_secret::file::PrivateFileError;
use obol_session::DocumentError;

#[cfg(feature = "redb")]
use crate::redb_file::Problem;
#[cfg(feature = "sealed")]
use crate::session::seal::SessionSealError;

/// Why a table of sessions was not opened or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionStoreError {
    /// The file is not one of ours alone, or cannot be opened or created.
    File(PrivateFileError),
    /// The file is damaged, or belongs to something else.
    NotOurs(PathBuf, String),
    /// The file cannot be read now, or not by this build; what is in it may be sound.
    Unreadable(PathBuf, String),
    /// The half is not one of a session.
    Half(DocumentError),
    /// The table holds as many sessions as it may.
    Full,
    /// A session of this number was revoked. Session numbers are never used again (section 4.1.1).
    Revoked,
    /// The session began at or before the fence (Unix seconds), so it may have been revoked before the table lost what it
    /// had.
    Fenced(u64),
    /// A session in the table was sealed under another key, or it is damaged.
    DoesNotOpen,
    /// The system's random number generator failed.
    Randomness,
    /// The table cannot be changed, now or until a restart. A revocation counts in this process all the same, and in no
    /// other.
    Unavailable(String),
}

impl SessionStoreError {
    #[cfg(feature = "redb")]
    pub(crate) fn at(path: &Path, problem: &Problem) -> Self {
        let error = if problem.is_final() { Self::NotOurs } else { Self::Unreadable };
        error(path.to_owned(), problem.to_string())
    }

    /// Whether the reason is the session's own, so that the table may take others.
    pub(crate) fn is_about_the_session(&self) -> bool {
        matches!(self, Self::Revoked | Self::Fenced(_) | Self::Half(_))
    }

    /// Whether the table is sound all the same, so that others can be changed in it.
    pub fn leaves_others(&self) -> bool {
        self.is_about_the_session() || matches!(self, Self::Full)
    }
}

impl fmt::Display for SessionStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "session table: {error}"),
            Self::NotOurs(path, why) => write!(
                f,
                "session table {}: {why}; move it away to start over, but then sessions that were revoked in it count as \
                 unknown",
                path.display()
            ),
            Self::Unreadable(path, why) => write!(f, "session table {}: {why}", path.display()),
            Self::Half(error) => error.fmt(f),
            Self::Full => f.write_str("the session table is full"),
            Self::Revoked => f.write_str("the session was revoked, which is final"),
            Self::Fenced(fence) => write!(
                f,
                "the session began at or before {fence} (Unix seconds); the table lost what it knew until then, and it may \
                 have been revoked. Begin a new session"
            ),
            Self::DoesNotOpen => f.write_str(
                "a session does not open with this key: the key file is another, or it is damaged",
            ),
            Self::Randomness => f.write_str("the system's random number generator failed"),
            Self::Unavailable(why) => write!(f, "the session table cannot be changed: {why}"),
        }
    }
}

impl core::error::Error for SessionStoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Half(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DocumentError> for SessionStoreError {
    fn from(error: DocumentError) -> Self {
        Self::Half(error)
    }
}

#[cfg(feature = "sealed")]
impl From<SessionSealError> for SessionStoreError {
    fn from(error: SessionSealError) -> Self {
        match error {
            SessionSealError::DoesNotOpen => Self::DoesNotOpen,
            SessionSealError::Randomness => Self::Randomness,
        }
    }
}
