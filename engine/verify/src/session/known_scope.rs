//! Scopes that a session has shown before.
//!
//! The tokens of a batch repeat one scope byte for byte, so its parsed form and its `priv_sig` are kept instead of
//! computed for every token. A scope gets here only after its token's AEAD tag and `priv_sig` held: whoever has no keys
//! can neither fill this memory nor push anything out of it.

use std::sync::{Arc, OnceLock};

use obol_token::{Body, Scope, ScopeError, SessionMaterial};
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::session::grants::{Excess, Grants};

/// Scopes that a session keeps: a few tools in turns.
const MAX_SCOPES: usize = 4;
/// The longest scope worth keeping, in bytes. Parsed it takes about three times as much.
const MAX_SCOPE_BYTES: usize = 1 << 10;

/// A parsed scope, with what its `priv_sig` must be at one policy epoch.
#[derive(Debug)]
pub(crate) struct KnownScope {
    pub(crate) scope: Scope,
    tlv: Zeroizing<Box<[u8]>>,
    policy_epoch: u64,
    privilege_signature: Zeroizing<[u8; 32]>,
    /// Whether the session's grants allow it, once somebody asked: they do not change while the session lasts.
    granted: OnceLock<Result<(), Excess>>,
}

impl KnownScope {
    /// Whether the body carries this scope's `priv_sig`; constant time.
    pub(crate) fn is_signed_in(&self, body: &Body) -> bool {
        body.privilege_signature_matches(&self.privilege_signature)
    }

    /// Whether the grants of the session allow this scope; worked out once.
    pub(crate) fn check_granted(&self, grants: &Grants) -> Result<(), Excess> {
        *self.granted.get_or_init(|| grants.check(&self.scope))
    }

    /// One human's approval of one call, or one transaction's, comes once.
    fn may_come_again(&self) -> bool {
        let Scope { txn_id, approval_digest, user_raw_intent, .. } = &self.scope;
        self.tlv.len() <= MAX_SCOPE_BYTES
            && txn_id.is_none()
            && approval_digest.is_none()
            && user_raw_intent.is_none()
    }
}

/// What one session keeps. Never waits: who meets another thread here computes.
#[derive(Debug, Default)]
pub(crate) struct KnownScopes {
    ring: RwLock<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    scopes: [Option<Arc<KnownScope>>; MAX_SCOPES],
    /// Where the next one goes.
    next: usize,
}

impl KnownScopes {
    /// The body's scope at this policy epoch, from memory or computed.
    pub(crate) fn find_or_read(
        &self,
        body: &Body,
        material: &SessionMaterial,
        policy_epoch: u64,
    ) -> Result<Arc<KnownScope>, ScopeError> {
        let tlv = body.scope_tlv();
        if let Some(known) = self.find(tlv, policy_epoch) {
            return Ok(known);
        }
        Ok(Arc::new(KnownScope {
            scope: body.scope()?,
            tlv: Zeroizing::new(tlv.into()),
            policy_epoch,
            privilege_signature: Zeroizing::new(material.privilege_signature(policy_epoch, tlv)),
            granted: OnceLock::new(),
        }))
    }

    fn find(&self, tlv: &[u8], policy_epoch: u64) -> Option<Arc<KnownScope>> {
        let ring = self.ring.try_read()?;
        let is_it = |known: &&Arc<KnownScope>| known.policy_epoch == policy_epoch && **known.tlv == *tlv;
        ring.scopes.iter().flatten().find(is_it).cloned()
    }

    /// Keeps a scope whose `priv_sig` held.
    pub(crate) fn keep(&self, known: &Arc<KnownScope>) {
        // Somebody else holds it: it is one that was found.
        if Arc::strong_count(known) > 1 || !known.may_come_again() {
            return;
        }
        let Some(mut ring) = self.ring.try_write() else { return };
        let next = ring.next;
        ring.next = (next + 1) % MAX_SCOPES;
        if let Some(place) = ring.scopes.get_mut(next) {
            *place = Some(Arc::clone(known));
        }
    }
}
