//! Sessions, as the resource server knows them (TBAC r41, sections 3.0.2 and 4.1.1).

use core::fmt;
use ed25519_dalek::VerifyingKey;
use obol_session::{AgentIdentity, DocumentError, ResourceHalf, Window};
use obol_token::{Audience, Scope, SessionId, SessionMaterial};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use subtle::ConstantTimeEq as _;

use crate::grants::Grants;
use crate::known_scope::KnownScopes;
use crate::session_store::SessionStoreError;

/// The most sessions a [`MemorySessionTable`] holds unless told otherwise. A session takes about a kibibyte, another
/// half for each grant, and up to four times three more while it is used.
pub const MAX_SESSIONS: usize = 100_000;

/// The 32 bytes are no Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidPopKey;

impl fmt::Display for InvalidPopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ed25519 public key")
    }
}

impl std::error::Error for InvalidPopKey {}

/// One session at one resource server.
#[derive(Debug)]
pub struct Session {
    material: SessionMaterial,
    audience: Audience,
    org_id: String,
    window: Option<Window>,
    pop_key: Option<VerifyingKey>,
    agent: Option<AgentIdentity>,
    standing: Arc<Standing>,
    grants: Option<Grants>,
    known_scopes: KnownScopes,
}

/// What may change about a session while somebody holds it. Shared by all that were ever known under one number, so that
/// a token which is being verified with an older one is refused as well.
#[derive(Debug, Default)]
struct Standing {
    revoked: AtomicBool,
    policy_epoch: AtomicU64,
}

impl Session {
    /// An active session: its keys, the resource server they were made for, and the organisation that owns it.
    pub fn new(material: SessionMaterial, audience: Audience, org_id: impl Into<String>) -> Self {
        Self {
            material,
            audience,
            org_id: org_id.into(),
            window: None,
            pop_key: None,
            agent: None,
            standing: Arc::default(),
            grants: None,
            known_scopes: KnownScopes::default(),
        }
    }

    /// The session that this half describes.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] where the half was made by hand and breaks a rule that a half which was read keeps.
    pub fn from_half(half: &ResourceHalf) -> Result<Self, DocumentError> {
        half.check()?;
        let material = half.keys.material(half.session_id, half.suite).with_nonces(half.nonces);
        // The check has found it usable.
        let pop_key = half.pop_pub.as_ref().and_then(|public| VerifyingKey::from_bytes(public).ok());
        let session = Self {
            window: Some(half.window),
            pop_key,
            agent: half.agent.clone(),
            grants: half.agent.as_ref().zip(half.grants.as_ref()).map(|(agent, grants)| {
                Grants::new(grants.iter().map(|grant| grant.scope(agent, &half.org_id)))
            }),
            ..Self::new(material, Audience::new(half.keys.aud.as_str()), half.org_id.as_str())
        };
        session.raise_policy_epoch(half.policy_epoch);
        if half.revoked {
            session.revoke();
        }
        Ok(session)
    }

    /// Limits when tokens may be issued and accepted. Without it only the tokens' own times count.
    #[must_use]
    pub fn with_window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// Sets what was granted, as the widest scope for each tool. No token of the session may allow more, whatever the
    /// verifier's templates say; without it the templates alone decide. An empty list allows nothing.
    #[must_use]
    pub fn with_grants(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.grants = Some(Grants::new(scopes));
        self
    }

    /// Refuses tokens minted under an older policy than this one.
    #[must_use]
    pub fn with_policy_epoch(self, epoch: u64) -> Self {
        self.raise_policy_epoch(epoch);
        self
    }

    /// Sets the Ed25519 public key that proofs of possession are checked with.
    pub fn with_pop_key(mut self, public: &[u8; 32]) -> Result<Self, InvalidPopKey> {
        let key = VerifyingKey::from_bytes(public).map_err(|_| InvalidPopKey)?;
        // Under a key of small order some signature fits every message.
        if key.is_weak() {
            return Err(InvalidPopKey);
        }
        self.pop_key = Some(key);
        Ok(self)
    }

    /// The session's number.
    pub fn session_id(&self) -> SessionId {
        self.material.session_id()
    }

    /// The keys.
    pub fn material(&self) -> &SessionMaterial {
        &self.material
    }

    /// The resource server the keys were made for.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The organisation that owns the session.
    pub fn org_id(&self) -> &str {
        &self.org_id
    }

    /// When tokens may be issued and accepted, where that is limited.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Who may use the session's tokens, where the half that it was made from says so.
    pub fn agent(&self) -> Option<&AgentIdentity> {
        self.agent.as_ref()
    }

    /// The oldest policy epoch that is accepted.
    pub fn policy_epoch(&self) -> u64 {
        self.standing.policy_epoch.load(Ordering::SeqCst)
    }

    /// Refuses from now on what was minted under an older policy. Never lowers the epoch.
    pub fn raise_policy_epoch(&self, epoch: u64) {
        self.standing.policy_epoch.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Whether the session still counts.
    pub fn is_active(&self) -> bool {
        !self.standing.revoked.load(Ordering::SeqCst)
    }

    /// Ends the session at once and for good, also for tokens that are being verified at this moment.
    pub fn revoke(&self) {
        self.standing.revoked.store(true, Ordering::SeqCst);
    }

    /// Takes the place of a session of the same number: what is known of either counts for both from now on.
    fn in_place_of(mut self, known: &Self) -> Self {
        known.raise_policy_epoch(self.policy_epoch());
        if !self.is_active() {
            known.revoke();
        }
        self.standing = Arc::clone(&known.standing);
        self
    }

    pub(crate) fn grants(&self) -> Option<&Grants> {
        self.grants.as_ref()
    }

    /// Whether it is known what was granted.
    pub fn has_grants(&self) -> bool {
        self.grants.is_some()
    }

    pub(crate) fn known_scopes(&self) -> &KnownScopes {
        &self.known_scopes
    }

    pub(crate) fn pop_key(&self) -> Option<&VerifyingKey> {
        self.pop_key.as_ref()
    }

    /// Whether a scope's organisation is this session's. Constant time, as section 3.2 asks.
    pub(crate) fn org_id_matches(&self, org_id: &str) -> bool {
        self.org_id.as_bytes().ct_eq(org_id.as_bytes()).into()
    }
}

/// The session table could not be asked. Nothing is accepted meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionTableUnavailable(pub String);

impl fmt::Display for SessionTableUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session table cannot be reached: {}", self.0)
    }
}

impl std::error::Error for SessionTableUnavailable {}

/// Where the cascade looks sessions up (step 2). Called for every token, also for forged ones: it must answer from
/// memory and must not grow.
pub trait SessionTable: Send + Sync + fmt::Debug {
    /// The session with this number, revoked ones included.
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable>;

    /// Whether the table can tell which sessions there are. A server whose table cannot is not ready.
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
    /// An empty table for up to [`MAX_SESSIONS`].
    pub fn new() -> Self {
        Self::with_max_sessions(MAX_SESSIONS)
    }

    /// An empty table for up to `max_sessions`.
    pub fn with_max_sessions(max_sessions: usize) -> Self {
        Self { sessions: RwLock::default(), max_sessions }
    }

    /// Adds a session, or replaces the active one of the same number. Its policy epoch does not get lower by that.
    pub fn add(&self, session: Session) -> Result<(), SessionStoreError> {
        let mut sessions = self.write();
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
        self.read().get(&id).map(|session| session.revoke()).is_some()
    }

    /// Revokes every session; the answer is how many there are.
    pub fn revoke_all(&self) -> usize {
        let sessions = self.read();
        sessions.values().for_each(|session| session.revoke());
        sessions.len()
    }

    /// Revokes a session and forgets it. `false` if there was no such session.
    pub fn remove(&self, id: SessionId) -> bool {
        self.write().remove(&id).map(|session| session.revoke()).is_some()
    }

    /// Makes the table hold exactly these sessions, as after reading the session file again. Sessions that are no
    /// longer listed are revoked; those that were revoked here stay revoked, and policy epochs that were raised here
    /// stay raised, whatever the list says.
    pub fn replace_all(&self, listed: Vec<Session>) -> Result<(), SessionStoreError> {
        if listed.len() > self.max_sessions {
            return Err(SessionStoreError::Full);
        }
        let mut sessions = self.write();
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

    /// All sessions, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.read().values().cloned().collect();
        sessions.sort_unstable_by_key(|session| session.session_id());
        sessions
    }

    /// How many sessions the table holds.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether the table is empty: nothing can be verified then.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // No code panics while it holds the lock, and every single change is complete in itself.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner)
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
        Ok(self.read().get(&id).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_token::{MutualAuth, SessionKey, Suite, VerifierSecret};

    fn session(id: u64) -> Session {
        let material = SessionMaterial::new(
            SessionId(id),
            Suite::Tbac,
            SessionKey::from_bytes([1; 32]),
            VerifierSecret::from_bytes([2; 32]),
            MutualAuth::from_bytes([3; 32]),
            [4; 32],
        );
        Session::new(material, Audience::new("https://rs"), "org")
    }

    fn active(table: &MemorySessionTable, id: u64) -> Option<bool> {
        table.look_up(SessionId(id)).unwrap().map(|session| session.is_active())
    }

    #[test]
    fn revocation_reaches_those_who_already_hold_the_session() {
        let table = MemorySessionTable::new();
        table.add(session(1)).unwrap();
        table.add(session(2)).unwrap();
        let held = table.look_up(SessionId(1)).unwrap().unwrap();
        let removed = table.look_up(SessionId(2)).unwrap().unwrap();
        assert!(table.revoke(SessionId(1)) && table.remove(SessionId(2)));
        assert!(!held.is_active() && !removed.is_active());
        assert_eq!((active(&table, 1), active(&table, 2)), (Some(false), None));
        assert!(!table.revoke(SessionId(3)) && !table.remove(SessionId(3)));
    }

    #[test]
    fn whoever_holds_a_session_that_was_replaced_hears_what_happens_to_it() {
        let table = MemorySessionTable::new();
        let held = |id| table.look_up(SessionId(id)).unwrap().unwrap();
        (1..=4).for_each(|id| table.add(session(id)).unwrap());
        let before: Vec<_> = (1..=4).map(held).collect();
        let ended = session(2);
        ended.revoke();
        table.add(session(1)).unwrap();
        table.replace_all(vec![session(1), ended, session(3), session(4).with_policy_epoch(5)]).unwrap();
        table.revoke(SessionId(1));
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
        table.revoke(SessionId(1));
        assert!(matches!(table.add(session(1)), Err(SessionStoreError::Revoked)));
        table.replace_all(vec![session(1), session(2), session(1)]).unwrap();
        assert_eq!((active(&table, 1), active(&table, 2)), (Some(false), Some(true)));
    }

    #[test]
    fn replacing_a_session_does_not_lower_its_policy_epoch() {
        let table = MemorySessionTable::new();
        let epoch = || table.look_up(SessionId(1)).unwrap().unwrap().policy_epoch();
        table.add(session(1)).unwrap();
        table.look_up(SessionId(1)).unwrap().unwrap().raise_policy_epoch(7);
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
        let held = table.look_up(SessionId(1)).unwrap().unwrap();
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
