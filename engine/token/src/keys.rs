//! Secrets as types, and the key schedule of TBAC r41.
//!
//! Every key below is HKDF-SHA-256 with a salt of 32 zero bytes unless said. All of a token's keys hang on the
//! session key and the token's own `jti`, so no two tokens share one.

use core::fmt;
use curve25519_dalek::Scalar;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::OnceLock;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::envelope::{Jti, SessionId};
use crate::suite::Suite;

const LABEL_TOKEN_ENC: &[u8] = b"tbac-token-enc-v1";
const LABEL_TOKEN_SIGN: &[u8] = b"tbac-token-sign-v1";
const LABEL_PRIV_SIG: &[u8] = b"io.modelcontextprotocol/tbac:priv-sig:v1";
const ZERO_SALT: [u8; 32] = [0; 32];

pub(crate) type HmacSha256 = Hmac<Sha256>;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes over. The caller wipes its own copy.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes themselves, for sealing at rest and for handing to a peer that must share them.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// Compares in constant time.
            pub fn matches(&self, other: &[u8; 32]) -> bool {
                self.0.ct_eq(other).into()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                crate::text::hex_array::deserialize(from).map(Self)
            }
        }
    };
}

secret! {
    /// `K_session`: the key that one session shares with one resource server. Whoever has it can mint.
    SessionKey
}
secret! {
    /// `verifier_secret`: proves to the resource server that the minter knows what the handshake gave it.
    VerifierSecret
}
secret! {
    /// `mutual_auth`: proves that the minter took part in the handshake.
    MutualAuth
}
secret! {
    /// `response_key`: seed of one token's channel keys. Travels only inside the sealed body.
    ResponseKey
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
    expander: Hkdf<Sha256>,
    /// The privilege key of the first policy epoch asked for; others are derived each time.
    privilege: OnceLock<(u64, HmacSha256)>,
}

impl SessionMaterial {
    /// Puts a session together. `sek_public` is the compressed ristretto255 point `SEK_PK`; it is bound into
    /// every signature as it is.
    pub fn new(
        session_id: SessionId,
        suite: Suite,
        session_key: SessionKey,
        verifier_secret: VerifierSecret,
        mutual_auth: MutualAuth,
        sek_public: [u8; 32],
    ) -> Self {
        let expander = Hkdf::new(Some(&ZERO_SALT), session_key.expose());
        Self {
            session_id,
            suite,
            session_key,
            verifier_secret,
            mutual_auth,
            sek_public,
            expander,
            privilege: OnceLock::new(),
        }
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
        self.expand(&[LABEL_TOKEN_ENC, jti.as_bytes()], &mut keys.encryption);
        self.expand(&[LABEL_TOKEN_SIGN, jti.as_bytes()], &mut keys.signing);
        keys
    }

    /// `priv_sig` of a scope's canonical bytes: HMAC-SHA-256 under `K_priv` of this policy epoch.
    pub fn privilege_signature(&self, policy_epoch: u64, scope_tlv: &[u8]) -> [u8; 32] {
        let (epoch, mac) =
            self.privilege.get_or_init(|| (policy_epoch, self.derive_privilege_mac(policy_epoch)));
        let mac = if *epoch == policy_epoch { mac.clone() } else { self.derive_privilege_mac(policy_epoch) };
        mac.chain_update(scope_tlv).finalize().into_bytes().into()
    }

    /// `K_priv` of one policy epoch, as the published test vectors show it.
    pub fn privilege_key(&self, policy_epoch: u64) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let expander = Hkdf::<Sha256>::new(Some(&policy_epoch.to_be_bytes()), self.session_key.expose());
        expand(&expander, &[LABEL_PRIV_SIG, &self.session_id.0.to_be_bytes()], &mut *key);
        key
    }

    fn derive_privilege_mac(&self, policy_epoch: u64) -> HmacSha256 {
        hmac_sha256(self.privilege_key(policy_epoch).as_slice())
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

    /// `tqs_sk` reduced, little-endian, as the published test vectors show it (there in big-endian).
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

/// HKDF-Expand for outputs far below its limit of 8,160 bytes, which is why it cannot fail here.
pub(crate) fn expand(expander: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    let done = expander.expand_multi_info(info, out);
    debug_assert!(done.is_ok(), "HKDF output over 8,160 bytes");
}

/// HKDF-SHA-256 with the zero salt, for keys that hang on a single secret.
pub(crate) fn hkdf_zero_salt(ikm: &[u8; 32]) -> Hkdf<Sha256> {
    Hkdf::new(Some(&ZERO_SALT), ikm)
}

/// HMAC-SHA-256 keyed with any number of bytes.
#[allow(clippy::expect_used)] // HMAC takes keys of every length; the error type has no value.
pub(crate) fn hmac_sha256(key: &[u8]) -> HmacSha256 {
    <HmacSha256 as KeyInit>::new_from_slice(key).expect("HMAC accepts keys of any length")
}
