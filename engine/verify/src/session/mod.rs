//! Sessions, as the resource server knows them (TBAC r41, sections 3.0.2 and 4.1.1).
//!
//! `table` is where the cascade looks them up, `store` what writes them; in memory, or with `redb` in a file, sealed by
//! `seal`. `grants` and `known_scope` belong to one session: what it may, and what it has shown.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod grants;
pub(crate) mod known_scope;
#[cfg(feature = "redb")]
pub(crate) mod redb;
#[cfg(feature = "sealed")]
pub(crate) mod seal;
pub(crate) mod store;
pub(crate) mod table;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use obol_session::{AgentIdentity, DocumentError, ResourceHalf, Window};
use obol_token::{Audience, Scope, SessionId, SessionMaterial};
use subtle::ConstantTimeEq as _;

use self::grants::Grants;
use self::known_scope::KnownScopes;
use crate::denial::{Code, Denial, FailedCheck};

/// The 32 bytes are no Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidPopKey;

impl fmt::Display for InvalidPopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ed25519 public key")
    }
}

impl core::error::Error for InvalidPopKey {}

/// One session at one resource server.
#[derive(Debug)]
pub struct Session {
    material: SessionMaterial,
    audience: Audience,
    audience_hash: [u8; 32],
    org_id: String,
    window: Option<Window>,
    pop_key: Option<VerifyingKey>,
    agent: Option<AgentIdentity>,
    live: Arc<LiveState>,
    grants: Option<Grants>,
    known_scopes: KnownScopes,
}

/// What may change about a session while somebody holds it. Shared by all that were ever known under one number, so that
/// a token which is being verified with an older one is refused as well.
#[derive(Debug, Default)]
struct LiveState {
    revoked: AtomicBool,
    policy_epoch: AtomicU64,
}

impl Session {
    /// An active session: its keys, the resource server they were made for, and the organisation that owns it.
    pub fn new(material: SessionMaterial, audience: Audience, org_id: impl Into<String>) -> Self {
        Self {
            material,
            audience_hash: audience.hash(),
            audience,
            org_id: org_id.into(),
            window: None,
            pop_key: None,
            agent: None,
            live: Arc::default(),
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
            grants: half
                .agent
                .as_ref()
                .zip(half.grants.as_ref())
                .map(|(agent, grants)| Grants::of(grants, agent, &half.org_id)),
            ..Self::new(material, half.keys.audience()?, half.org_id.as_str())
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
    ///
    /// # Errors
    ///
    /// [`InvalidPopKey`].
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

    /// What its tokens name that resource server by.
    pub(crate) fn audience_hash(&self) -> &[u8; 32] {
        &self.audience_hash
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
        self.live.policy_epoch.load(Ordering::SeqCst)
    }

    /// Refuses from now on what was minted under an older policy. Never lowers the epoch.
    pub fn raise_policy_epoch(&self, epoch: u64) {
        self.live.policy_epoch.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Whether the session was granted a tool; true where it says nothing of grants.
    pub fn may_use(&self, tool: &str) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.names(tool))
    }

    /// Whether the session still counts.
    pub fn is_active(&self) -> bool {
        !self.live.revoked.load(Ordering::SeqCst)
    }

    /// Asked when the session is looked up, when its token is spent, and when that is done.
    pub(crate) fn check_active(&self) -> Result<(), Denial> {
        if self.is_active() {
            return Ok(());
        }
        Err(Denial::new(Code::SessionExpired, FailedCheck::SessionValidity, "the session is revoked"))
    }

    /// Ends the session at once and for good, also for tokens that are being verified at this moment.
    pub fn revoke(&self) {
        self.live.revoked.store(true, Ordering::SeqCst);
    }

    /// Takes the place of a session of the same number: what is known of either counts for both from now on.
    fn in_place_of(mut self, known: &Self) -> Self {
        known.raise_policy_epoch(self.policy_epoch());
        if !self.is_active() {
            known.revoke();
        }
        self.live = Arc::clone(&known.live);
        self
    }

    pub(crate) fn grants(&self) -> Option<&Grants> {
        self.grants.as_ref()
    }

    /// Whether it is known what was granted.
    pub(crate) fn has_grants(&self) -> bool {
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
