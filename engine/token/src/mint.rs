//! Minting: a batch of tokens with one scope, one issue time and one expiry.
//!
//! Suite 1 costs two fixed-base multiplications a token. Compressing a ristretto255 point needs an inverse
//! square root; a batch shares one inversion among all its points by multiplying with halved scalars and
//! compressing the doubled results together.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use core::fmt;
use curve25519_dalek::{RistrettoPoint, Scalar};
use hmac::{Hmac, Mac};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::envelope::{Audience, HEADER_BYTES, Header, Jti, Parts, PartsMut};
use crate::keys::{ResponseKey, SessionMaterial, TokenKeys};
use crate::scope::{Scope, ScopeError};
use crate::tlv;

/// Label of the deterministic Schnorr nonce.
const LABEL_NONCE: &[u8] = b"tbac-schnorr-nonce-v1";

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
#[derive(Debug)]
pub struct Minter<'a> {
    session: &'a SessionMaterial,
    policy_epoch: u64,
    audience: Audience,
    scope_tlv: Vec<u8>,
    privilege_signature: [u8; 32],
}

impl<'a> Minter<'a> {
    /// Checks the scope and prepares to mint it.
    pub fn new(session: &'a SessionMaterial, scope: &Scope, policy_epoch: u64) -> Result<Self, MintError> {
        let scope_tlv = scope.to_tlv()?;
        let privilege_signature = session.privilege_signature(policy_epoch, &scope_tlv);
        let audience = Audience::new(scope.aud.as_str());
        Ok(Self { session, policy_epoch, audience, scope_tlv, privilege_signature })
    }

    /// Mints one token for each seed, in their order.
    pub fn mint(&self, validity: Validity, seeds: &[TokenSeed]) -> Result<Vec<Vec<u8>>, MintError> {
        if validity.expires_at < validity.issued_at {
            return Err(MintError::Validity);
        }
        let drafts = seeds.iter().map(|seed| self.draft(validity, seed)).collect::<Result<Vec<_>, _>>()?;
        let points: Vec<RistrettoPoint> = drafts.iter().flat_map(Draft::half_points).collect();
        let compressed = RistrettoPoint::double_and_compress_batch(&points);
        let (pairs, _) = compressed.as_chunks::<2>();
        Ok(drafts
            .into_iter()
            .zip(pairs)
            .map(|(draft, [nonce, public])| draft.sign(self.session, nonce.as_bytes(), public.as_bytes()))
            .collect())
    }

    /// Seals the body and chooses the nonce; all but the signature.
    fn draft(&self, validity: Validity, seed: &TokenSeed) -> Result<Draft, MintError> {
        let keys = self.session.token_keys(&seed.jti);
        let mut token = Vec::with_capacity(HEADER_BYTES + self.scope_tlv.len() + 3 + 4 * 34);
        Header {
            suite: self.session.suite(),
            session_id: self.session.session_id(),
            iv: seed.iv,
            issued_at: validity.issued_at,
            expires_at: validity.expires_at,
            policy_epoch: self.policy_epoch,
            audience_hash: self.audience.hash(),
            jti: seed.jti,
        }
        .write(&mut token);
        token.resize(HEADER_BYTES, 0);
        self.write_body(&mut token, seed)?;

        let parts = PartsMut::split(&mut token).ok_or(MintError::Encryption)?;
        *parts.tag = Aes256Gcm::new(keys.encryption().into())
            .encrypt_inout_detached(&seed.iv.into(), parts.aad, parts.ciphertext.into())
            .map_err(|_| MintError::Encryption)?
            .into();

        let signing = keys.signing_scalar();
        let nonce = match &seed.nonce {
            Some(wide) => Zeroizing::new(Scalar::from_bytes_mod_order_wide(wide)),
            None => deterministic_nonce(&keys, &Parts::split(&token).ok_or(MintError::Encryption)?),
        };
        Ok(Draft { token, signing, nonce })
    }

    fn write_body(&self, token: &mut Vec<u8>, seed: &TokenSeed) -> Result<(), MintError> {
        let fields: [(u8, &[u8]); 5] = [
            (crate::open::TAG_SCOPE, &self.scope_tlv),
            (crate::open::TAG_PRIV_SIG, &self.privilege_signature),
            (crate::open::TAG_RESPONSE_KEY, seed.response_key.expose()),
            (crate::open::TAG_MUTUAL_AUTH, self.session.mutual_auth().expose()),
            (crate::open::TAG_VERIFIER_SECRET, self.session.verifier_secret().expose()),
        ];
        for (tag, value) in fields {
            tlv::put(token, tag, value).map_err(|_| MintError::Scope(ScopeError::TooLong))?;
        }
        Ok(())
    }
}

/// r = HMAC-SHA-512 over all that is signed, under the seed of the signing key.
#[allow(clippy::expect_used)] // HMAC takes keys of every length; the error type has no value.
fn deterministic_nonce(keys: &TokenKeys, parts: &Parts<'_>) -> Zeroizing<Scalar> {
    let mac = <Hmac<Sha512> as KeyInit>::new_from_slice(keys.signing_seed())
        .expect("HMAC accepts keys of any length");
    let wide = Zeroizing::new(<[u8; 64]>::from(
        mac.chain_update(LABEL_NONCE)
            .chain_update(parts.aad)
            .chain_update(parts.tag)
            .chain_update(parts.ciphertext)
            .finalize()
            .into_bytes(),
    ));
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
}

/// A token that lacks only its signature.
struct Draft {
    token: Vec<u8>,
    signing: Zeroizing<Scalar>,
    nonce: Zeroizing<Scalar>,
}

impl Draft {
    /// Half of R and half of TQS_PK, ready to be doubled and compressed together with the whole batch.
    fn half_points(&self) -> [RistrettoPoint; 2] {
        [&self.nonce, &self.signing].map(|scalar| RistrettoPoint::mul_base(&scalar.div_by_2()))
    }

    /// σ = r + h·tqs_sk.
    fn sign(mut self, session: &SessionMaterial, nonce_point: &[u8; 32], public: &[u8; 32]) -> Vec<u8> {
        if let Some(parts) = PartsMut::split(&mut self.token) {
            *parts.nonce_point = *nonce_point;
        }
        let challenge = Parts::split(&self.token).map(|parts| session.challenge(public, &parts));
        if let (Some(challenge), Some(parts)) = (challenge, PartsMut::split(&mut self.token)) {
            *parts.signature = (*self.nonce + challenge * *self.signing).to_bytes();
        }
        self.token
    }
}
