//! Opening: the signature first, where the suite has one, then the AEAD, never the other way round.

use core::fmt;

use obol_secret::compare::ct_eq_32;
use zeroize::Zeroizing;

use crate::aead;
use crate::envelope::Envelope;
use crate::keys::SessionMaterial;
use crate::schnorr;
use crate::scope::{Scope, ScopeError};
use crate::secret::ResponseKey;
use crate::tlv::OrderedReader;

pub(crate) const TAG_SCOPE: u8 = 0x01;
pub(crate) const TAG_PRIV_SIG: u8 = 0x02;
pub(crate) const TAG_RESPONSE_KEY: u8 = 0x03;
pub(crate) const TAG_MUTUAL_AUTH: u8 = 0x04;
pub(crate) const TAG_VERIFIER_SECRET: u8 = 0x05;

/// Why a token could not be opened, in the order in which it is found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyOpenError {
    /// The token names another suite than its session negotiated.
    Suite,
    /// The Schnorr signature does not hold (`INVALID_SIGNATURE`). Only in suite 1.
    Signature,
    /// The AEAD tag does not hold (`DECRYPTION_FAILED`).
    Decryption,
    /// The body is not the required fields in canonical form (`MALFORMED_TOKEN`).
    Body,
}

impl BodyOpenError {
    /// The error in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suite => "the token's suite is not its session's",
            Self::Signature => "the signature is not valid",
            Self::Decryption => "the body cannot be decrypted",
            Self::Body => "the body is malformed",
        }
    }
}

impl fmt::Display for BodyOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for BodyOpenError {}

/// A decrypted body. Its existence proves that the signature, where there is one, and the AEAD tag held.
pub struct Body {
    /// The scope first, then the four secrets, which are read where they were decrypted: every copy would have to be
    /// wiped.
    plaintext: Zeroizing<Vec<u8>>,
    scope: core::ops::Range<usize>,
}

/// A body's fields behind the scope: a tag, a length and 32 bytes each.
const SECRETS: [u8; 4] = [TAG_PRIV_SIG, TAG_RESPONSE_KEY, TAG_MUTUAL_AUTH, TAG_VERIFIER_SECRET];
/// Fields that only the consumer profile fills: in a token of the enterprise profile they are left out or all zeros, of
/// this many bytes (TBAC r41, section 3.0.2).
const CONSUMER_FIELDS: [(u8, usize); 3] = [(0x06, 64), (0x07, 32), (0x08, 8)];
const FIELD_HEADER_BYTES: usize = 2;
const SECRET_BYTES: usize = 32;

impl Body {
    /// The scope's canonical bytes, as sealed.
    pub fn scope_tlv(&self) -> &[u8] {
        self.plaintext.get(self.scope.clone()).unwrap_or_default()
    }

    /// The scope (cascade step 9b).
    ///
    /// # Errors
    ///
    /// [`ScopeError`] if the bytes are not canonical, or the scope breaks a rule.
    pub fn scope(&self) -> Result<Scope, ScopeError> {
        Scope::from_tlv(self.scope_tlv())
    }

    /// The seed of this token's channel keys.
    pub fn response_key(&self) -> ResponseKey {
        ResponseKey::from_bytes(*self.secret(TAG_RESPONSE_KEY))
    }

    /// Whether the body repeats the session's `mutual_auth` (cascade step 8); constant time.
    pub fn mutual_auth_matches(&self, session: &SessionMaterial) -> bool {
        session.mutual_auth().matches(self.secret(TAG_MUTUAL_AUTH))
    }

    /// Whether the body repeats the session's `verifier_secret` (cascade step 9); constant time.
    pub fn verifier_secret_matches(&self, session: &SessionMaterial) -> bool {
        session.verifier_secret().matches(self.secret(TAG_VERIFIER_SECRET))
    }

    /// Whether `priv_sig` is this one (cascade step 12); constant time. What it must be for the sealed scope is
    /// [`SessionMaterial::privilege_signature`] of [`Self::scope_tlv`].
    pub fn privilege_signature_matches(&self, expected: &[u8; 32]) -> bool {
        ct_eq_32(expected, self.secret(TAG_PRIV_SIG))
    }

    /// Takes a body whose fields are all there, none besides but empty ones of a consumer's, in their order and of their
    /// length.
    fn parse(plaintext: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut reader = OrderedReader::new(&plaintext, None);
        let scope = reader.next_field().ok()??;
        if scope.tag != TAG_SCOPE {
            return None;
        }
        // The scope is the first field (vendor tags sort behind it), so its place follows from its length.
        let start = if scope.value.len() < 0x80 { 2 } else { 3 };
        let scope = start..start + scope.value.len();
        for tag in SECRETS {
            let field = reader.next_field().ok()??;
            if field.tag != tag || field.value.len() != SECRET_BYTES {
                return None;
            }
        }
        while let Some(field) = reader.next_field().ok()? {
            if !CONSUMER_FIELDS.contains(&(field.tag, field.value.len()))
                || field.value.iter().any(|byte| *byte != 0)
            {
                return None;
            }
        }
        Some(Self { scope, plaintext })
    }

    /// One of the four secrets, all of which [`Self::parse`] has seen.
    fn secret(&self, tag: u8) -> &[u8; SECRET_BYTES] {
        let place = usize::from(tag - TAG_PRIV_SIG) * (FIELD_HEADER_BYTES + SECRET_BYTES);
        let value = self.plaintext.get(self.scope.end + place + FIELD_HEADER_BYTES..);
        value.and_then(<[u8]>::first_chunk).unwrap_or(&[0; SECRET_BYTES])
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body([redacted])")
    }
}

impl SessionMaterial {
    /// Checks the signature, where the suite has one, then the AEAD's tag, then decrypts the body (cascade steps 5
    /// to 7).
    ///
    /// # Errors
    ///
    /// [`BodyOpenError`] says which step failed. Nothing was decrypted before the signature and the tag held.
    pub fn open(&self, envelope: &Envelope<'_>) -> Result<Body, BodyOpenError> {
        if envelope.suite() != self.suite() {
            return Err(BodyOpenError::Suite);
        }
        let parts = envelope.parts();
        let keys = self.token_keys(&envelope.jti());
        // A suite that signs has the block in its layout, so a signature cannot be left out.
        if let Some(signature) = parts.signature
            && !schnorr::holds(self, &keys, parts, signature)
        {
            return Err(BodyOpenError::Signature);
        }
        let mut body = Zeroizing::new(parts.ciphertext.to_vec());
        aead::open(self.suite(), keys.encryption(), &envelope.iv(), parts.aad, &mut body, parts.tag)
            .map_err(|_| BodyOpenError::Decryption)?;
        Body::parse(body).ok_or(BodyOpenError::Body)
    }
}
