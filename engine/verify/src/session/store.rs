//! Tables of sessions that can be written: in memory, in a file, or shared over the network.

use std::sync::Arc;

use obol_session::{Cursor, ResourceHalf};
use obol_token::SessionId;

use crate::session::Session;
use crate::session::error::SessionStoreError;
use crate::session::table::{MemorySessionTable, SessionTable};

/// What became of a session, as the service says that opened it.
#[derive(Debug)]
pub enum SessionChange {
    /// It was opened.
    Open(Box<ResourceHalf>),
    /// It was ended.
    End(SessionId),
}

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

    /// Carries out what a service says, in order, and keeps with it how far that was, where that is said: both or neither. The
    /// answer names the sessions that the table does not take, each for a reason of its own or because it is full.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`] where the changes are not kept; what was ended counts in this process all the same. The same
    /// changes can be carried out again.
    fn follow(
        &self,
        changes: &[SessionChange],
        cursor: Option<Cursor>,
        now: u64,
    ) -> Result<Vec<(SessionId, SessionStoreError)>, SessionStoreError> {
        // A table that forgets everything at its end has no use for the cursor.
        let _ = cursor;
        let mut refused = Vec::new();
        for change in changes {
            match change {
                SessionChange::End(id) => drop(self.revoke(*id, now)?),
                SessionChange::Open(half) => match self.add(half, now) {
                    Ok(()) => {}
                    Err(error) if error.leaves_others() => refused.push((half.session_id, error)),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(refused)
    }

    /// How far this table has come with what a service says; `None` where it does not know, and has to be told everything.
    fn cursor(&self) -> Option<Cursor> {
        None
    }

    /// Forgets sessions whose window ended before this time, in Unix seconds: nobody can use them any more. The answer is how
    /// many there were.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`] where that is not kept.
    fn forget_ended(&self, before: u64) -> Result<usize, SessionStoreError>;

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

    fn forget_ended(&self, before: u64) -> Result<usize, SessionStoreError> {
        Ok(self.forget(before).len())
    }

    fn list(&self) -> Vec<Arc<Session>> {
        self.all()
    }
}
