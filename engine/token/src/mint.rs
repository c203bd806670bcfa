//! Minting: a batch of tokens with one scope, one issue time and one expiry.
//!
//! What the tokens of a batch have in common is written once; each token is a copy of it with its own few fields put
//! in, sealed where it lies.

use core::fmt;
use zeroize::Zeroizing;

use crate::aead;
use crate::envelope::{Audience, Header, Jti, PartsMut};
use crate::keys::SessionMaterial;
use crate::schnorr::{self, Draft};
use crate::scope::{Scope, ScopeError};
use crate::secret::ResponseKey;
use crate::tlv;

/// Why nothing was minted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MintError {
    /// The scope breaks a rule of its own.
    Scope(ScopeError),
    /// `exp` lies before `iat`.
    Validity,
    /// The AEAD refused; it does so only for messages far above the limit on scopes.
    Encryption,
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(error) => write!(f, "cannot mint: {error}"),
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
    /// randomness and cannot repeat for different tokens. Only test vectors have a reason to set it.
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
    audience: Audience,
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
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl<'a> Minter<'a> {
    /// Checks the scope and prepares to mint it.
    pub fn new(session: &'a SessionMaterial, scope: &Scope, policy_epoch: u64) -> Result<Self, MintError> {
        const FIELDS_BESIDE_THE_SCOPE: usize = 4 * (2 + 32);
        let scope_tlv = scope.to_tlv()?;
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
        let audience = Audience::new(scope.aud.as_str());
        Ok(Self { session, policy_epoch, audience, body, response_key_at })
    }

    /// Mints one token for each seed, in their order.
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
        Draft::new(token, &keys, seed.nonce.as_deref()).ok_or(MintError::Encryption)
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
            audience_hash: self.audience.hash(),
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
