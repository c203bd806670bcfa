//! Minting: a batch of tokens with one scope, one issue time and one expiry.
//!
//! What the tokens of a batch have in common is written once; each token is a copy of it with its own few fields put
//! in, sealed where it lies.

use core::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::aead;
use crate::delegation::{self, SCOPE_CEILING_EXCEEDED, Widening, check_attenuation};
use crate::envelope::{Header, Jti, PartsMut, audience_hash};
use crate::keys::{Nonces, SessionMaterial};
use crate::schnorr::{self, Draft};
use crate::scope::{Scope, ScopeError};
use crate::secret::ResponseKey;
use crate::text::to_hex;
use crate::tlv;

/// Why nothing was minted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MintError {
    /// The scope breaks a rule of its own.
    Scope(ScopeError),
    /// `max_calls` is not 1: a token is for one call.
    MaxCalls,
    /// `approval_digest` is not what a human approved, going by the scope itself.
    ApprovalDigest,
    /// `intent_hash` is not the hash of `user_raw_intent`.
    IntentHash,
    /// A delegated scope allows more than its parent (`ScopeCeilingExceeded`).
    Widening(Widening),
    /// `parent_token_hash` names another parent than the one given.
    Parent,
    /// `exp` lies before `iat`.
    Validity,
    /// The AEAD refused; it does so only for messages far above the limit on scopes.
    Encryption,
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(error) => write!(f, "cannot mint: {error}"),
            Self::MaxCalls => f.write_str("cannot mint: max_calls must be 1, a token is for one call"),
            Self::ApprovalDigest => f.write_str("cannot mint: approval_digest is not that of this scope"),
            Self::IntentHash => f.write_str("cannot mint: intent_hash is not the hash of user_raw_intent"),
            Self::Widening(widening) => write!(f, "{SCOPE_CEILING_EXCEEDED}: {widening}"),
            Self::Parent => f.write_str("cannot mint: parent_token_hash names another parent"),
            Self::Validity => f.write_str("cannot mint: the token would end before it is issued"),
            Self::Encryption => f.write_str("cannot mint: encryption failed"),
        }
    }
}

impl core::error::Error for MintError {}

impl From<ScopeError> for MintError {
    fn from(error: ScopeError) -> Self {
        Self::Scope(error)
    }
}

/// When a token lives, both in Unix seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Issue time, `iat`.
    pub issued_at: u64,
    /// End, `exp`.
    pub expires_at: u64,
}

/// What makes one token different from its neighbours in a batch.
pub struct TokenSeed {
    /// The token's name; 16 fresh random bytes.
    pub jti: Jti,
    /// AEAD nonce, unique for the session: a 4-byte instance prefix and a 64-bit counter.
    pub iv: [u8; 12],
    /// Seed of the channel keys; 32 fresh random bytes.
    pub response_key: ResponseKey,
    /// 64 bytes the Schnorr nonce is reduced from, or `None` for the deterministic nonce, which needs no
    /// randomness and cannot repeat for different tokens. Only test vectors have a reason to set it, and a session of
    /// [`Nonces::Derived`] ignores it.
    pub nonce: Option<Zeroizing<[u8; 64]>>,
}

impl fmt::Debug for TokenSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSeed").field("jti", &self.jti).finish_non_exhaustive()
    }
}

/// Mints tokens of one scope in one session at one policy epoch. What the tokens have in common is computed
/// once.
pub struct Minter<'a> {
    session: &'a SessionMaterial,
    policy_epoch: u64,
    /// What the tokens name their audience by.
    audience_hash: [u8; 32],
    /// The body's plaintext, with nothing where the response key goes.
    body: Zeroizing<Vec<u8>>,
    /// Where in the body the response key goes.
    response_key_at: usize,
}

impl fmt::Debug for Minter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter")
            .field("session", &self.session)
            .field("policy_epoch", &self.policy_epoch)
            .finish_non_exhaustive()
    }
}

impl<'a> Minter<'a> {
    /// Checks the scope and prepares to mint it: its own rules, and every limit that a verifier will hold it to and that
    /// the scope alone shows to be broken. A scope that names a parent belongs to [`Minter::delegated`]; here the parent
    /// is the caller's to check.
    ///
    /// # Errors
    ///
    /// [`MintError`] if the scope breaks a rule, or a limit that every verifier would refuse it for.
    pub fn new(session: &'a SessionMaterial, scope: &Scope, policy_epoch: u64) -> Result<Self, MintError> {
        const FIELDS_BESIDE_THE_SCOPE: usize = 4 * (2 + 32);
        let scope_tlv = scope.to_tlv()?;
        check_limits(scope)?;
        let privilege_signature = session.privilege_signature(policy_epoch, &scope_tlv);
        let mut body = Zeroizing::new(Vec::with_capacity(3 + scope_tlv.len() + FIELDS_BESIDE_THE_SCOPE));
        let mut field = |tag, value: &[u8]| {
            tlv::put(&mut body, tag, value).map_err(|_| MintError::Scope(ScopeError::TooLong))?;
            Ok::<usize, MintError>(body.len() - value.len())
        };
        field(crate::open::TAG_SCOPE, &scope_tlv)?;
        field(crate::open::TAG_PRIV_SIG, &privilege_signature)?;
        let response_key_at = field(crate::open::TAG_RESPONSE_KEY, &[0; 32])?;
        field(crate::open::TAG_MUTUAL_AUTH, session.mutual_auth().expose())?;
        field(crate::open::TAG_VERIFIER_SECRET, session.verifier_secret().expose())?;
        let audience_hash = audience_hash(&scope.aud);
        Ok(Self { session, policy_epoch, audience_hash, body, response_key_at })
    }

    /// As [`Minter::new`] for a scope that is delegated from `parent`: it must name that parent and allow no more
    /// (TBAC r41, section 8.1). The verifier checks the same again, against the parent that was spent there.
    ///
    /// # Errors
    ///
    /// As [`Minter::new`]; [`MintError::Parent`] if the scope names another parent, [`MintError::Widening`] if it allows more.
    pub fn delegated(
        session: &'a SessionMaterial,
        scope: &Scope,
        parent: &Scope,
        policy_epoch: u64,
    ) -> Result<Self, MintError> {
        if scope.parent_token_hash != Some(delegation::hash_of(parent)?) {
            return Err(MintError::Parent);
        }
        check_attenuation(scope, parent).map_err(MintError::Widening)?;
        Self::new(session, scope, policy_epoch)
    }

    /// Mints one token for each seed, in their order.
    ///
    /// # Errors
    ///
    /// [`MintError::Validity`] if the tokens would end before they are issued.
    pub fn mint(&self, validity: Validity, seeds: &[TokenSeed]) -> Result<Vec<Vec<u8>>, MintError> {
        if validity.expires_at < validity.issued_at {
            return Err(MintError::Validity);
        }
        if !self.session.suite().is_signed() {
            return seeds.iter().map(|seed| self.sealed(validity, seed)).collect();
        }
        let drafts = seeds.iter().map(|seed| self.draft(validity, seed)).collect::<Result<Vec<_>, _>>()?;
        Ok(schnorr::sign(self.session, drafts))
    }

    fn sealed(&self, validity: Validity, seed: &TokenSeed) -> Result<Vec<u8>, MintError> {
        self.seal(validity, seed, self.session.token_keys(&seed.jti).encryption())
    }

    fn draft(&self, validity: Validity, seed: &TokenSeed) -> Result<Draft, MintError> {
        let keys = self.session.token_keys(&seed.jti);
        let token = self.seal(validity, seed, keys.encryption())?;
        let nonce = seed.nonce.as_deref().filter(|_| self.session.nonces() == Nonces::Any);
        Draft::new(token, &keys, nonce).ok_or(MintError::Encryption)
    }

    /// Header and sealed body; all but the signature, which stays zero where the suite has one.
    fn seal(&self, validity: Validity, seed: &TokenSeed, key: &[u8; 32]) -> Result<Vec<u8>, MintError> {
        let suite = self.session.suite();
        let mut token = Vec::with_capacity(suite.header_bytes() + self.body.len());
        Header {
            suite,
            session_id: self.session.session_id(),
            iv: seed.iv,
            issued_at: validity.issued_at,
            expires_at: validity.expires_at,
            policy_epoch: self.policy_epoch,
            audience_hash: &self.audience_hash,
            jti: seed.jti,
        }
        .write(&mut token);
        token.resize(suite.header_bytes(), 0);
        token.extend_from_slice(&self.body);
        let parts = PartsMut::split(suite, &mut token).ok_or(MintError::Encryption)?;
        let response_key = parts
            .ciphertext
            .get_mut(self.response_key_at..)
            .and_then(|rest| rest.first_chunk_mut::<32>())
            .ok_or(MintError::Encryption)?;
        *response_key = *seed.response_key.expose();
        *parts.tag = aead::seal(suite, key, &seed.iv, parts.aad, parts.ciphertext)
            .map_err(|_| MintError::Encryption)?;
        Ok(token)
    }
}

/// What cascade step 13 would refuse whoever presents the token.
fn check_limits(scope: &Scope) -> Result<(), MintError> {
    const SINGLE_USE: u64 = 1;
    let max_calls = scope.constraints.as_ref().and_then(|constraints| constraints.max_calls);
    if max_calls.is_some_and(|calls| calls != SINGLE_USE) {
        return Err(MintError::MaxCalls);
    }
    if let Some(approved) = &scope.approval_digest
        && scope.compute_approval_digest()? != *approved
    {
        return Err(MintError::ApprovalDigest);
    }
    if let (Some(intent), Some(hash)) = (&scope.user_raw_intent, &scope.intent_hash)
        && to_hex(&Sha256::digest(intent)) != *hash
    {
        return Err(MintError::IntentHash);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MutualAuth, SessionId, SessionKey, Suite, VerifierSecret};
    use serde_json::{Value, json};

    fn refusal(fields: Value, parent: Option<Value>) -> Option<MintError> {
        let with = |fields: Value| -> Scope {
            let mut scope = json!({
                "iss": "as", "sub": "s", "agent_instance_id": "a", "tool": "t", "action": "r", "resource": "docs/*",
                "delegation_depth": 0, "aud": "https://rs", "org_id": "org", "trust_level": 0, "human_confirmed_at": 0
            });
            scope.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value(scope).unwrap()
        };
        let session = SessionMaterial::new(
            SessionId::from_u64(1),
            Suite::AesGcm,
            SessionKey::from_bytes([1; 32]),
            VerifierSecret::from_bytes([2; 32]),
            MutualAuth::from_bytes([3; 32]),
            [4; 32],
        );
        match parent {
            None => Minter::new(&session, &with(fields), 1).err(),
            Some(parent) => {
                let (mut child, parent) = (with(fields), with(parent));
                child.parent_token_hash = child.parent_token_hash.or(delegation::hash_of(&parent).ok());
                Minter::delegated(&session, &child, &parent, 1).err()
            }
        }
    }

    #[test]
    fn limits_that_every_verifier_keeps_are_kept_before_sealing() {
        assert_eq!(refusal(json!({"constraints": {"max_calls": 1}}), None), None);
        for calls in [0, 2, u64::MAX] {
            assert_eq!(
                refusal(json!({"constraints": {"max_calls": calls}}), None),
                Some(MintError::MaxCalls)
            );
        }
        let approved = json!({"trust_level": 3, "human_confirmed_at": 5, "approval_digest": "00".repeat(32)});
        assert_eq!(refusal(approved, None), Some(MintError::ApprovalDigest));
        let intent = json!({"user_raw_intent": "pay", "intent_hash": "00".repeat(32)});
        assert_eq!(refusal(intent, None), Some(MintError::IntentHash));
        let intent = json!({"user_raw_intent": "pay", "intent_hash": to_hex(&Sha256::digest("pay"))});
        assert_eq!(refusal(intent, None), None);
    }

    #[test]
    fn a_delegated_scope_never_exceeds_its_parent() {
        let parent = json!({"delegation_depth": 2, "resource": "public/*"});
        let child = |resource: &str| {
            refusal(json!({"delegation_depth": 1, "resource": resource}), Some(parent.clone()))
        };
        assert_eq!(child("public/a"), None);
        for resource in ["*", "**", "public/**", "private/a"] {
            assert_eq!(child(resource), Some(MintError::Widening(Widening::Resource)), "{resource}");
        }
        let elsewhere =
            json!({"delegation_depth": 1, "resource": "public/a", "parent_token_hash": "A".repeat(43)});
        assert_eq!(refusal(elsewhere, Some(parent)), Some(MintError::Parent));
    }
}
