//! Tables of sessions that can be written: in memory, in a file, or shared over the network.

use core::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use obol_secret::file::PrivateFileError;
use obol_session::{DocumentError, ResourceHalf};
use obol_token::SessionId;

use crate::session::{MemorySessionTable, Session, SessionTable};

/// A table of sessions that can be written. What a call changes is as durable as the table is when the call returns.
pub trait SessionStore: SessionTable {
    /// Adds a session, or replaces the active one of the same number, whose policy epoch does not get lower by that. A
    /// half that says so is revoked. `now` in Unix seconds, for the record.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`]; the table is as it was then.
    fn add(&self, half: &ResourceHalf, now: u64) -> Result<(), SessionStoreError>;

    /// Takes over a list. A table in memory then holds exactly these, and what is not listed any more is revoked. A table
    /// that is kept adds them, and what is not listed stays. The answer names those that the table does not take, each
    /// for a reason of its own.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`] where the table takes no more; some of the list may have been taken then.
    fn replace_all(
        &self,
        halves: &[ResourceHalf],
        now: u64,
    ) -> Result<Vec<(SessionId, SessionStoreError)>, SessionStoreError> {
        let mut refused = Vec::new();
        for half in halves {
            match self.add(half, now) {
                Ok(()) => {}
                Err(error) if error.is_about_the_session() => refused.push((half.session_id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Revokes a session for good: its tokens are refused from the moment of the call, those in flight included. The answer
    /// is whether the session was known here; a table that is kept notes it in either case.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`] where the revocation counts in this process and is not kept.
    fn revoke(&self, id: SessionId, now: u64) -> Result<bool, SessionStoreError>;

    /// Whether a session was revoked, as far back as the table remembers.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`] where the table cannot tell.
    fn was_revoked(&self, id: SessionId) -> Result<bool, SessionStoreError> {
        let known = self.look_up(id).map_err(|error| SessionStoreError::Unavailable(error.0))?;
        Ok(known.is_some_and(|session| !session.is_active()))
    }

    /// The sessions that are known, in the order of their numbers; those among them that were revoked since the start.
    fn list(&self) -> Vec<Arc<Session>>;
}

/// Why a table of sessions was not opened or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionStoreError {
    /// The file is not one of ours alone, or cannot be opened or created.
    File(PrivateFileError),
    /// The file is damaged, or belongs to something else, or has another format.
    NotOurs(PathBuf, String),
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
    /// Whether the reason is the session's own, so that the table may take others.
    pub fn is_about_the_session(&self) -> bool {
        matches!(self, Self::Revoked | Self::Fenced(_) | Self::Half(_))
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
impl From<crate::session_seal::SealError> for SessionStoreError {
    fn from(error: crate::session_seal::SealError) -> Self {
        match error {
            crate::session_seal::SealError::DoesNotOpen => Self::DoesNotOpen,
            crate::session_seal::SealError::Randomness => Self::Randomness,
        }
    }
}

impl SessionStore for MemorySessionTable {
    fn add(&self, half: &ResourceHalf, _now: u64) -> Result<(), SessionStoreError> {
        if half.revoked && Self::revoke(self, half.session_id) {
            return Ok(());
        }
        Self::add(self, Session::from_half(half)?)
    }

    fn replace_all(
        &self,
        halves: &[ResourceHalf],
        _now: u64,
    ) -> Result<Vec<(SessionId, SessionStoreError)>, SessionStoreError> {
        let sessions = halves.iter().map(Session::from_half).collect::<Result<_, _>>()?;
        Self::replace_all(self, sessions)?;
        Ok(Vec::new())
    }

    fn revoke(&self, id: SessionId, _now: u64) -> Result<bool, SessionStoreError> {
        Ok(Self::revoke(self, id))
    }

    fn list(&self) -> Vec<Arc<Session>> {
        self.all()
    }
}
