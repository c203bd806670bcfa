//! Opening: the signature first, where the suite has one, then the AEAD, never the other way round.

use core::fmt;
use zeroize::Zeroizing;

use crate::aead;
use crate::envelope::Envelope;
use crate::keys::SessionMaterial;
use crate::schnorr;
use crate::scope::{Scope, ScopeError};
use crate::secret::{ResponseKey, ct_eq_32};
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
    /// The Schnorr signature does not hold (`INVALID_SIGNATURE`). Only in suite 1.
    Signature,
    /// The AEAD tag does not hold (`DECRYPTION_FAILED`).
    Decryption,
    /// The body is not the five required fields in canonical form (`MALFORMED_TOKEN`).
    Body,
}

impl OpenError {
    /// The error in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suite => "the token's suite is not its session's",
            Self::Signature => "the signature does not hold",
            Self::Decryption => "the body cannot be decrypted",
            Self::Body => "the body is malformed",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for OpenError {}

/// A decrypted body. Its existence proves that the signature, where there is one, and the AEAD tag held.
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
        ct_eq_32(&expected, &self.privilege_signature)
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
    /// Checks the signature, where the suite has one, then the AEAD's tag, then decrypts the body (cascade steps 5
    /// to 7).
    pub fn open(&self, envelope: &Envelope<'_>) -> Result<Body, OpenError> {
        if envelope.suite() != self.suite() {
            return Err(OpenError::Suite);
        }
        let parts = envelope.parts();
        let keys = self.token_keys(&envelope.jti());
        // A suite that signs has the block in its layout, so a signature cannot be left out.
        if let Some(signature) = parts.signature
            && !schnorr::holds(self, &keys, parts, signature)
        {
            return Err(OpenError::Signature);
        }
        let mut body = Zeroizing::new(parts.ciphertext.to_vec());
        aead::open(self.suite(), keys.encryption(), &envelope.iv(), parts.aad, &mut body, parts.tag)
            .map_err(|_| OpenError::Decryption)?;
        Body::parse(body).ok_or(OpenError::Body)
    }
}
