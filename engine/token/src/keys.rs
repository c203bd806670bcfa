//! The key schedule: from a session's keys to a token's.
//!
//! Every key is HKDF-SHA-256. In suite 1 it is that of TBAC r41. Suites 2 to 4 first derive a root that binds suite,
//! session number and `SEK_PK`, and every other key from that root; the table is in `docs/protocol.md`. In every
//! suite a token's keys hang on the token's own `jti`, so no two tokens share one.

use core::fmt;
use std::sync::{PoisonError, RwLock};

use curve25519_dalek::Scalar;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::channel::ChannelKeys;
use crate::envelope::Jti;
use crate::kdf::{expand, hkdf_of_root, hkdf_zero_salt};
use crate::names::SessionId;
use crate::secret::{MutualAuth, ResponseKey, SessionKey, VerifierSecret};
use crate::suite::Suite;

const LABEL_TOKEN_ENC: &[u8] = b"tbac-token-enc-v1";
const LABEL_TOKEN_SIGN: &[u8] = b"tbac-token-sign-v1";
const LABEL_PRIV_SIG: &[u8] = b"io.modelcontextprotocol/tbac:priv-sig:v1";

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// How a session's minter chooses the nonces of its Schnorr signatures. Without meaning in suites that do not sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Nonces {
    /// Chosen freely: any valid signature is accepted. What TBAC r41 asks of a verifier.
    #[default]
    Any,
    /// Derived, always, as Obol's minter does. A token then has one signature, which whoever has the session's keys
    /// can compute: the verifier compares it in constant time, at half the cost, and accepts no other.
    Derived,
}

/// All that a minter and a resource server share about one session: what mints and what verifies.
///
/// The derived state that does not depend on the token is computed once, here.
pub struct SessionMaterial {
    session_id: SessionId,
    suite: Suite,
    session_key: SessionKey,
    verifier_secret: VerifierSecret,
    mutual_auth: MutualAuth,
    sek_public: [u8; 32],
    nonces: Nonces,
    /// What a token's keys are expanded from: in suite 1 the extract of the session key, in the others the root.
    expander: Hkdf<Sha256>,
    /// The privilege key of the latest policy epoch asked for; those of older ones are derived each time.
    privilege: RwLock<Option<(u64, HmacSha256)>>,
}

impl SessionMaterial {
    /// Puts a session together. `sek_public` is `SEK_PK`, in suite 1 a compressed ristretto255 point; it is bound as
    /// it is into every signature of suite 1 and every key of the others.
    pub fn new(
        session_id: SessionId,
        suite: Suite,
        session_key: SessionKey,
        verifier_secret: VerifierSecret,
        mutual_auth: MutualAuth,
        sek_public: [u8; 32],
    ) -> Self {
        let extracted = hkdf_zero_salt(session_key.expose());
        let expander = match suite {
            Suite::Tbac => extracted,
            Suite::AesGcm | Suite::ChaCha20Poly1305 | Suite::HybridAesGcm => {
                let mut root = Zeroizing::new([0; 32]);
                let info = [suite.labels().root, &session_id.as_u64().to_be_bytes(), &sek_public];
                expand(&extracted, &info, &mut *root);
                hkdf_of_root(&root)
            }
        };
        Self {
            session_id,
            suite,
            session_key,
            verifier_secret,
            mutual_auth,
            sek_public,
            nonces: Nonces::default(),
            expander,
            privilege: RwLock::new(None),
        }
    }

    /// Holds the session to one way of choosing Schnorr nonces.
    #[must_use]
    pub fn with_nonces(mut self, nonces: Nonces) -> Self {
        self.nonces = nonces;
        self
    }

    /// How the session's minter chooses Schnorr nonces.
    pub fn nonces(&self) -> Nonces {
        self.nonces
    }

    /// The session's number.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The session's negotiated suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The secret that a token's body must repeat (cascade step 9).
    pub fn verifier_secret(&self) -> &VerifierSecret {
        &self.verifier_secret
    }

    /// The proof that a token's body must repeat (cascade step 8).
    pub fn mutual_auth(&self) -> &MutualAuth {
        &self.mutual_auth
    }

    pub(crate) fn sek_public(&self) -> &[u8; 32] {
        &self.sek_public
    }

    /// The keys of one token.
    pub fn token_keys(&self, jti: &Jti) -> TokenKeys {
        let mut keys = TokenKeys { encryption: [0; 32], signing: [0; 64] };
        match self.suite {
            Suite::Tbac => {
                self.expand(&[LABEL_TOKEN_ENC, jti.as_bytes()], &mut keys.encryption);
                self.expand(&[LABEL_TOKEN_SIGN, jti.as_bytes()], &mut keys.signing);
            }
            suite => self.expand(&[suite.labels().token, jti.as_bytes()], &mut keys.encryption),
        }
        keys
    }

    /// The channel keys of one token.
    pub fn channel_keys(&self, jti: &Jti, response_key: &ResponseKey) -> ChannelKeys {
        ChannelKeys::of_suite(self.suite, self.session_id, jti, response_key)
    }

    /// `priv_sig` of a scope's canonical bytes: HMAC-SHA-256 under `K_priv` of this policy epoch.
    pub fn privilege_signature(&self, policy_epoch: u64, scope_tlv: &[u8]) -> [u8; 32] {
        self.privilege_mac(policy_epoch).chain_update(scope_tlv).finalize().into_bytes().into()
    }

    /// `K_priv` of one policy epoch, as the published test vectors show it.
    pub fn privilege_key(&self, policy_epoch: u64) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let epoch = policy_epoch.to_be_bytes();
        match self.suite {
            Suite::Tbac => {
                let expander = Hkdf::<Sha256>::new(Some(&epoch), self.session_key.expose());
                expand(&expander, &[LABEL_PRIV_SIG, &self.session_id.as_u64().to_be_bytes()], &mut *key);
            }
            suite => self.expand(&[suite.labels().privilege, &epoch], &mut *key),
        }
        key
    }

    /// The keyed MAC, cached for the latest epoch: policy moves rarely, and never back.
    fn privilege_mac(&self, policy_epoch: u64) -> HmacSha256 {
        let cached = self.privilege.read().unwrap_or_else(PoisonError::into_inner);
        let newest = match &*cached {
            Some((epoch, mac)) if *epoch == policy_epoch => return mac.clone(),
            Some((epoch, _)) => *epoch < policy_epoch,
            None => true,
        };
        drop(cached);
        let mac = hmac_sha256(self.privilege_key(policy_epoch).as_slice());
        if newest {
            let mut cached = self.privilege.write().unwrap_or_else(PoisonError::into_inner);
            *cached = Some((policy_epoch, mac.clone()));
        }
        mac
    }

    fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        expand(&self.expander, info, out);
    }
}

impl fmt::Debug for SessionMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMaterial")
            .field("session_id", &self.session_id)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// One token's keys.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TokenKeys {
    encryption: [u8; 32],
    signing: [u8; 64],
}

impl TokenKeys {
    /// `K_tok_enc`, the AEAD key.
    pub fn encryption(&self) -> &[u8; 32] {
        &self.encryption
    }

    /// `tqs_sk`, the Schnorr signing scalar.
    pub(crate) fn signing_scalar(&self) -> Zeroizing<Scalar> {
        Zeroizing::new(Scalar::from_bytes_mod_order_wide(&self.signing))
    }

    /// `tqs_sk` reduced, little-endian, as the published test vectors show it (there in big-endian). Zero in suites
    /// that do not sign.
    pub fn signing_scalar_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing_scalar().to_bytes())
    }

    /// The 64 bytes that the signing scalar is reduced from; seed of deterministic nonces.
    pub(crate) fn signing_seed(&self) -> &[u8; 64] {
        &self.signing
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys([redacted])")
    }
}

/// HMAC-SHA-256 keyed with any number of bytes.
#[expect(clippy::expect_used, reason = "HMAC takes keys of every length; the error type has no value")]
pub(crate) fn hmac_sha256(key: &[u8]) -> HmacSha256 {
    <HmacSha256 as KeyInit>::new_from_slice(key).expect("HMAC accepts keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn material(suite: Suite, session: u64, sek_public: u8) -> SessionMaterial {
        SessionMaterial::new(
            SessionId::from_u64(session),
            suite,
            SessionKey::from_bytes([1; 32]),
            VerifierSecret::from_bytes([2; 32]),
            MutualAuth::from_bytes([3; 32]),
            [sek_public; 32],
        )
    }

    #[test]
    fn keys_of_one_suite_are_never_keys_of_another() {
        let jti = Jti::from_random([5; 16]);
        let mut seen = BTreeSet::new();
        for suite in Suite::ALL {
            let session = material(suite, 7, 4);
            let channel = session.channel_keys(&jti, &ResponseKey::from_bytes([6; 32]));
            assert!(seen.insert(*session.token_keys(&jti).encryption()));
            assert!(seen.insert(*session.privilege_key(1)));
            assert!(seen.insert(*channel.request_key()));
            assert!(seen.insert(*channel.response_key()));
        }
        assert_eq!(seen.len(), 16);
    }

    #[test]
    fn without_a_signature_keys_bind_the_session_and_its_handshake() {
        let jti = Jti::from_random([5; 16]);
        let key = |session: SessionMaterial| *session.token_keys(&jti).encryption();
        for suite in Suite::ALL.into_iter().filter(|suite| !suite.is_signed()) {
            let own = key(material(suite, 7, 4));
            assert_ne!(own, key(material(suite, 8, 4)));
            assert_ne!(own, key(material(suite, 7, 5)));
        }
    }

    #[test]
    fn the_privilege_key_follows_the_epoch_asked_for_in_any_order() {
        for suite in Suite::ALL {
            let fresh = |epoch| material(suite, 7, 4).privilege_signature(epoch, b"scope");
            let session = material(suite, 7, 4);
            for epoch in [3, 3, 5, 3, 5, 4, 6, 3] {
                assert_eq!(session.privilege_signature(epoch, b"scope"), fresh(epoch));
            }
        }
    }
}
