//! Where the cascade looks sessions up, and the table in memory.

use core::fmt;
use std::collections::HashMap;
use std::sync::Arc;

use obol_token::SessionId;
use parking_lot::RwLock;

use crate::session::Session;
use crate::session::error::SessionStoreError;

/// The most sessions a [`MemorySessionTable`] holds unless told otherwise. A session takes about a kibibyte, another
/// half for each grant, and up to four times three more while it is used.
pub(crate) const MAX_SESSIONS: usize = 100_000;

/// The session table could not be asked. Nothing is accepted meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionTableUnavailable(pub String);

impl fmt::Display for SessionTableUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session table cannot be reached: {}", self.0)
    }
}

impl core::error::Error for SessionTableUnavailable {}

/// Where the cascade looks sessions up (step 2). Called for every token, also for forged ones: it must answer from
/// memory and must not grow.
pub trait SessionTable: Send + Sync + fmt::Debug {
    /// The session with this number, revoked ones included.
    ///
    /// # Errors
    ///
    /// [`SessionTableUnavailable`].
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable>;

    /// Whether the table can tell which sessions there are. A server whose table cannot is not ready.
    ///
    /// # Errors
    ///
    /// [`SessionTableUnavailable`].
    fn health(&self) -> Result<(), SessionTableUnavailable> {
        Ok(())
    }
}

/// Sessions in memory, bounded in number.
pub struct MemorySessionTable {
    sessions: RwLock<HashMap<SessionId, Arc<Session>>>,
    max_sessions: usize,
}

impl MemorySessionTable {
    /// An empty table for up to 100,000 sessions.
    pub fn new() -> Self {
        Self::with_max_sessions(MAX_SESSIONS)
    }

    /// An empty table for up to `max_sessions`.
    pub fn with_max_sessions(max_sessions: usize) -> Self {
        Self { sessions: RwLock::default(), max_sessions }
    }

    /// Adds a session, or replaces the active one of the same number. Its policy epoch does not get lower by that.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError::Revoked`], [`SessionStoreError::Full`].
    pub fn add(&self, session: Session) -> Result<(), SessionStoreError> {
        let mut sessions = self.sessions.write();
        let session = match sessions.get(&session.session_id()) {
            Some(known) if !known.is_active() => return Err(SessionStoreError::Revoked),
            Some(known) => session.in_place_of(known),
            None if sessions.len() >= self.max_sessions => return Err(SessionStoreError::Full),
            None => session,
        };
        sessions.insert(session.session_id(), Arc::new(session));
        Ok(())
    }

    /// Revokes a session: its tokens are refused from now on, those in flight included. It stays in the table, so
    /// that it cannot come back. `false` if there is no such session.
    pub fn revoke(&self, id: SessionId) -> bool {
        self.sessions.read().get(&id).map(|session| session.revoke()).is_some()
    }

    /// Revokes every session; the answer is how many there are.
    pub fn revoke_all(&self) -> usize {
        let sessions = self.sessions.read();
        sessions.values().for_each(|session| session.revoke());
        sessions.len()
    }

    /// Revokes a session and forgets it. `false` if there was no such session.
    pub fn remove(&self, id: SessionId) -> bool {
        self.sessions.write().remove(&id).map(|session| session.revoke()).is_some()
    }

    /// Makes the table hold exactly these sessions, as after reading the session file again. Sessions that are no
    /// longer listed are revoked; those that were revoked here stay revoked, and policy epochs that were raised here
    /// stay raised, whatever the list says.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError::Full`]; the table is as it was then.
    pub fn replace_all(&self, listed: Vec<Session>) -> Result<(), SessionStoreError> {
        if listed.len() > self.max_sessions {
            return Err(SessionStoreError::Full);
        }
        let mut sessions = self.sessions.write();
        let mut next: HashMap<SessionId, Arc<Session>> = HashMap::with_capacity(listed.len());
        for session in listed {
            let id = session.session_id();
            let session = match sessions.remove(&id).or_else(|| next.remove(&id)) {
                Some(known) => session.in_place_of(&known),
                None => session,
            };
            next.insert(id, Arc::new(session));
        }
        sessions.values().for_each(|gone| gone.revoke());
        *sessions = next;
        Ok(())
    }

    /// Revokes and forgets sessions whose window ended before this time, and says which.
    pub(crate) fn forget(&self, before: u64) -> Vec<SessionId> {
        let is_over = |session: &Session| session.window().is_some_and(|window| window.end < before);
        // Most of the time there is nothing to do, and nobody who verifies should wait for that.
        if !self.sessions.read().values().any(|session| is_over(session)) {
            return Vec::new();
        }
        let mut sessions = self.sessions.write();
        let over: Vec<_> = sessions.extract_if(|_, session| is_over(session)).collect();
        over.iter().for_each(|(_, session)| session.revoke());
        over.into_iter().map(|(id, _)| id).collect()
    }

    /// All sessions, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.sessions.read().values().cloned().collect();
        sessions.sort_unstable_by_key(|session| session.session_id());
        sessions
    }

    /// How many sessions the table holds.
    pub fn len(&self) -> usize {
        self.sessions.read().len()
    }

    /// Whether the table is empty: nothing can be verified then.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemorySessionTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySessionTable").field("sessions", &self.len()).finish_non_exhaustive()
    }
}

impl SessionTable for MemorySessionTable {
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        Ok(self.sessions.read().get(&id).cloned())
    }
}

#[cfg(test)]
mod tests {
    use obol_token::{Audience, MutualAuth, SessionKey, SessionMaterial, Suite, VerifierSecret};

    use super::*;
    use crate::session::InvalidPopKey;

    fn session(id: u64) -> Session {
        let material = SessionMaterial::new(
            SessionId::from_u64(id),
            Suite::Tbac,
            SessionKey::from_bytes([1; 32]),
            VerifierSecret::from_bytes([2; 32]),
            MutualAuth::from_bytes([3; 32]),
            [4; 32],
        );
        Session::new(material, Audience::new("https://rs").unwrap(), "org")
    }

    fn active(table: &MemorySessionTable, id: u64) -> Option<bool> {
        table.look_up(SessionId::from_u64(id)).unwrap().map(|session| session.is_active())
    }

    #[test]
    fn revocation_reaches_those_who_already_hold_the_session() {
        let table = MemorySessionTable::new();
        table.add(session(1)).unwrap();
        table.add(session(2)).unwrap();
        let held = table.look_up(SessionId::from_u64(1)).unwrap().unwrap();
        let removed = table.look_up(SessionId::from_u64(2)).unwrap().unwrap();
        assert!(table.revoke(SessionId::from_u64(1)) && table.remove(SessionId::from_u64(2)));
        assert!(!held.is_active() && !removed.is_active());
        assert_eq!((active(&table, 1), active(&table, 2)), (Some(false), None));
        assert!(!table.revoke(SessionId::from_u64(3)) && !table.remove(SessionId::from_u64(3)));
    }

    #[test]
    fn whoever_holds_a_session_that_was_replaced_hears_what_happens_to_it() {
        let table = MemorySessionTable::new();
        let held = |id| table.look_up(SessionId::from_u64(id)).unwrap().unwrap();
        (1..=4).for_each(|id| table.add(session(id)).unwrap());
        let before: Vec<_> = (1..=4).map(held).collect();
        let ended = session(2);
        ended.revoke();
        table.add(session(1)).unwrap();
        table.replace_all(vec![session(1), ended, session(3), session(4).with_policy_epoch(5)]).unwrap();
        table.revoke(SessionId::from_u64(1));
        table.replace_all(vec![session(4)]).unwrap();
        assert_eq!(
            before.iter().map(|session| session.is_active()).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert_eq!(before[3].policy_epoch(), 5);
        held(4).raise_policy_epoch(6);
        assert_eq!(before[3].policy_epoch(), 6);
    }

    #[test]
    fn a_revoked_session_never_comes_back() {
        let table = MemorySessionTable::new();
        table.add(session(1)).unwrap();
        table.revoke(SessionId::from_u64(1));
        assert!(matches!(table.add(session(1)), Err(SessionStoreError::Revoked)));
        table.replace_all(vec![session(1), session(2), session(1)]).unwrap();
        assert_eq!((active(&table, 1), active(&table, 2)), (Some(false), Some(true)));
    }

    #[test]
    fn replacing_a_session_does_not_lower_its_policy_epoch() {
        let table = MemorySessionTable::new();
        let epoch = || table.look_up(SessionId::from_u64(1)).unwrap().unwrap().policy_epoch();
        table.add(session(1)).unwrap();
        table.look_up(SessionId::from_u64(1)).unwrap().unwrap().raise_policy_epoch(7);
        table.add(session(1)).unwrap();
        assert_eq!(epoch(), 7);
        table.replace_all(vec![session(1).with_policy_epoch(5)]).unwrap();
        assert_eq!(epoch(), 7);
        table.replace_all(vec![session(1).with_policy_epoch(9)]).unwrap();
        assert_eq!(epoch(), 9);
    }

    #[test]
    fn sessions_that_are_no_longer_listed_are_revoked() {
        let table = MemorySessionTable::new();
        table.add(session(1)).unwrap();
        let held = table.look_up(SessionId::from_u64(1)).unwrap().unwrap();
        table.replace_all(vec![session(2)]).unwrap();
        assert!(!held.is_active());
        assert_eq!(active(&table, 1), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let table = MemorySessionTable::with_max_sessions(1);
        table.add(session(1)).unwrap();
        table.add(session(1)).unwrap();
        assert!(matches!(table.add(session(2)), Err(SessionStoreError::Full)));
        let two = vec![session(1), session(2)];
        assert!(matches!(table.replace_all(two), Err(SessionStoreError::Full)));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_weak_pop_key_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(session(1).with_pop_key(&identity).unwrap_err(), InvalidPopKey);
    }

    #[test]
    fn the_policy_epoch_only_rises() {
        let session = session(1).with_policy_epoch(5);
        session.raise_policy_epoch(3);
        assert_eq!(session.policy_epoch(), 5);
    }
}
