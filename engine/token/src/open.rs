//! Opening: the signature first, then decryption, never the other way round.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use core::fmt;
use curve25519_dalek::{RistrettoPoint, Scalar};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::envelope::{Envelope, Parts};
use crate::keys::{ResponseKey, SessionMaterial, TokenKeys};
use crate::scope::{Scope, ScopeError};
use crate::tlv::{OrderedReader, TlvError};

pub(crate) const TAG_SCOPE: u8 = 0x01;
pub(crate) const TAG_PRIV_SIG: u8 = 0x02;
pub(crate) const TAG_RESPONSE_KEY: u8 = 0x03;
pub(crate) const TAG_MUTUAL_AUTH: u8 = 0x04;
pub(crate) const TAG_VERIFIER_SECRET: u8 = 0x05;

/// Why a token could not be opened, in the order in which it is found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The token names another suite than its session negotiated.
    Suite,
    /// The Schnorr signature does not hold (`INVALID_SIGNATURE`).
    Signature,
    /// The AEAD tag does not hold (`DECRYPTION_FAILED`).
    Decryption,
    /// The body is not the five required fields in canonical form (`MALFORMED_TOKEN`).
    Body,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suite => "the token's suite is not its session's",
            Self::Signature => "the signature does not hold",
            Self::Decryption => "the body cannot be decrypted",
            Self::Body => "the body is malformed",
        })
    }
}

impl core::error::Error for OpenError {}

/// A decrypted body. Its existence proves that the signature and the AEAD tag held.
pub struct Body {
    plaintext: Zeroizing<Vec<u8>>,
    scope: core::ops::Range<usize>,
    privilege_signature: [u8; 32],
    response_key: ResponseKey,
    mutual_auth: Zeroizing<[u8; 32]>,
    verifier_secret: Zeroizing<[u8; 32]>,
}

impl Body {
    /// The scope's canonical bytes, as sealed.
    pub fn scope_tlv(&self) -> &[u8] {
        self.plaintext.get(self.scope.clone()).unwrap_or_default()
    }

    /// The scope (cascade step 9b).
    pub fn scope(&self) -> Result<Scope, ScopeError> {
        Scope::from_tlv(self.scope_tlv())
    }

    /// The seed of this token's channel keys.
    pub fn response_key(&self) -> &ResponseKey {
        &self.response_key
    }

    /// Whether the body repeats the session's `mutual_auth` (cascade step 8); constant time.
    pub fn mutual_auth_matches(&self, session: &SessionMaterial) -> bool {
        session.mutual_auth().matches(&self.mutual_auth)
    }

    /// Whether the body repeats the session's `verifier_secret` (cascade step 9); constant time.
    pub fn verifier_secret_matches(&self, session: &SessionMaterial) -> bool {
        session.verifier_secret().matches(&self.verifier_secret)
    }

    /// Whether `priv_sig` covers the sealed scope at this policy epoch (cascade step 12); constant time.
    pub fn privilege_signature_holds(&self, session: &SessionMaterial, policy_epoch: u64) -> bool {
        let expected = session.privilege_signature(policy_epoch, self.scope_tlv());
        expected.ct_eq(&self.privilege_signature).into()
    }

    fn parse(plaintext: Zeroizing<Vec<u8>>) -> Option<Self> {
        let fields = BodyFields::read(&plaintext).ok()??;
        let scope = fields.scope;
        let [privilege_signature, response_key, mutual_auth, verifier_secret] = fields.secrets;
        Some(Self {
            scope,
            privilege_signature: *privilege_signature,
            response_key: ResponseKey::from_bytes(*response_key),
            mutual_auth,
            verifier_secret,
            plaintext,
        })
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body([redacted])")
    }
}

struct BodyFields {
    scope: core::ops::Range<usize>,
    secrets: [Zeroizing<[u8; 32]>; 4],
}

impl BodyFields {
    /// All five fields, or `None` where one is missing, unknown or of the wrong length.
    fn read(plaintext: &[u8]) -> Result<Option<Self>, TlvError> {
        let mut reader = OrderedReader::new(plaintext, None);
        let Some(scope) = reader.next_field()?.filter(|field| field.tag == TAG_SCOPE) else {
            return Ok(None);
        };
        // The scope is the first field (vendor tags sort behind it), so its place follows from its length.
        let start = if scope.value.len() < 0x80 { 2 } else { 3 };
        let scope = start..start + scope.value.len();
        let mut secrets: [Zeroizing<[u8; 32]>; 4] = Default::default();
        for (secret, tag) in
            secrets.iter_mut().zip([TAG_PRIV_SIG, TAG_RESPONSE_KEY, TAG_MUTUAL_AUTH, TAG_VERIFIER_SECRET])
        {
            let Some(field) = reader.next_field()?.filter(|field| field.tag == tag) else { return Ok(None) };
            let Ok(value) = <&[u8; 32]>::try_from(field.value) else { return Ok(None) };
            secret.copy_from_slice(value);
        }
        Ok(reader.next_field()?.is_none().then_some(Self { scope, secrets }))
    }
}

impl SessionMaterial {
    /// Checks the signature, then decrypts the body (cascade steps 5 to 7).
    pub fn open(&self, envelope: &Envelope<'_>) -> Result<Body, OpenError> {
        if envelope.suite() != self.suite() {
            return Err(OpenError::Suite);
        }
        let keys = self.token_keys(&envelope.jti());
        if !self.signature_holds(&keys, envelope) {
            return Err(OpenError::Signature);
        }
        let mut body = Zeroizing::new(envelope.parts().ciphertext.to_vec());
        Aes256Gcm::new(keys.encryption().into())
            .decrypt_inout_detached(
                &envelope.iv().into(),
                envelope.parts().aad,
                body.as_mut_slice().into(),
                envelope.parts().tag.into(),
            )
            .map_err(|_| OpenError::Decryption)?;
        Body::parse(body).ok_or(OpenError::Body)
    }

    /// σ·G = R + h·TQS_PK, checked as compress((σ − h·tqs_sk)·G) = R: the verifier knows the signing scalar, so
    /// it needs no decompression, and R is canonical because it equals a compressed point.
    fn signature_holds(&self, keys: &TokenKeys, envelope: &Envelope<'_>) -> bool {
        const IDENTITY: [u8; 32] = [0; 32];
        let parts = envelope.parts();
        let Some(signature) = Option::<Scalar>::from(Scalar::from_canonical_bytes(*parts.signature)) else {
            return false;
        };
        let signing = keys.signing_scalar();
        let public = RistrettoPoint::mul_base(&signing).compress();
        let challenge = self.challenge(public.as_bytes(), parts);
        let nonce_point = RistrettoPoint::mul_base(&(signature - challenge * *signing)).compress();
        nonce_point.as_bytes() == parts.nonce_point && *parts.nonce_point != IDENTITY
    }

    /// h = wide-reduce(SHA-512(R ‖ TQS_PK ‖ SEK_PK ‖ verifier_secret ‖ GCM_tag ‖ CT_body ‖ AAD)).
    pub(crate) fn challenge(&self, public: &[u8; 32], parts: &Parts<'_>) -> Scalar {
        let wide: [u8; 64] = Sha512::new()
            .chain_update(parts.nonce_point)
            .chain_update(public)
            .chain_update(self.sek_public())
            .chain_update(self.verifier_secret().expose())
            .chain_update(parts.tag)
            .chain_update(parts.ciphertext)
            .chain_update(parts.aad)
            .finalize()
            .into();
        Scalar::from_bytes_mod_order_wide(&wide)
    }
}
