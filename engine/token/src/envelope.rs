//! The clear part of a token, whose offsets are fixed by TBAC r41, section 3.0: 184 bytes in suite 1. The suites
//! without a signature have the same layout without R and σ: 120 bytes.

use core::fmt;

use sha2::{Digest, Sha256};

use crate::names::{Audience, SessionId};
use crate::suite::{AAD_BYTES, Suite};
use crate::tlv::MAX_VALUE_BYTES;

/// Token format version.
const VERSION: u8 = 0x03;
/// `msg_type` of the enterprise profile, the only one accepted.
const MSG_ENTERPRISE: u8 = 0x03;
/// `request_format`: the request travels beside the token.
const FORMAT_DIRECT: u8 = 0x00;
/// `request_format`: the request is enveloped in the token; outside base conformance.
const FORMAT_ENVELOPED: u8 = 0x01;

/// The longest body: a scope of 32,767 bytes, four 32-byte fields, and their headers.
pub const MAX_BODY_BYTES: usize = (3 + MAX_VALUE_BYTES) + 4 * (2 + 32);
/// The longest token of any suite, in bytes.
pub const MAX_TOKEN_BYTES: usize = Suite::Tbac.header_bytes() + MAX_BODY_BYTES;
/// The longest token as text, in characters: base64url without padding of [`MAX_TOKEN_BYTES`].
pub const MAX_TOKEN_TEXT: usize = MAX_TOKEN_BYTES.div_ceil(3) * 4;

const fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_digit()
        | byte.is_ascii_uppercase()
        | byte.is_ascii_lowercase()
        | (byte == b'-')
        | (byte == b'_')
}

/// A token's unique name inside its session: 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jti([u8; 22]);

impl Jti {
    /// The name made of 16 random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut text = [0; 22];
        // 16 bytes are 22 characters; the slice cannot be too short.
        let _written = obol_secret::text::write_base64url(&random, &mut text);
        Self(text)
    }

    /// Reads 22 characters of the base64url alphabet.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: [u8; 22] = text.try_into().ok()?;
        // All of them, without a branch for each: the bytes stand in a row and there are few.
        let sound = text.iter().fold(true, |sound, c| sound & is_base64url(*c));
        sound.then_some(Self(text))
    }

    /// The 22 characters as bytes.
    pub fn as_bytes(&self) -> &[u8; 22] {
        &self.0
    }

    /// The 22 characters as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jti({self})")
    }
}

impl Audience {
    /// SHA-256 of the identifier, under which a token names it. Computed anew each time.
    pub fn hash(&self) -> [u8; 32] {
        audience_hash(self.as_str())
    }
}

/// What a token names an audience by.
pub(crate) fn audience_hash(audience: &str) -> [u8; 32] {
    Sha256::digest(audience.as_bytes()).into()
}

/// Why bytes are not a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramingError {
    /// Shorter than the suite's fixed header, or longer than that and [`MAX_BODY_BYTES`].
    Length,
    /// Not format version 3.
    Version,
    /// An `alg_id` that names no suite.
    Algorithm,
    /// A `msg_type` other than enterprise.
    MessageType,
    /// `request_format` 0x01, which is outside base conformance (`NON_JSON_POP_NOT_SUPPORTED`).
    Enveloped,
    /// A `request_format` that does not exist.
    RequestFormat,
    /// `jti` holds a byte outside the base64url alphabet.
    Jti,
    /// `jti_pad` is not zero.
    Padding,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the token is shorter than its header or longer than the limit",
            Self::Version => "unknown token version",
            Self::Algorithm => "unknown alg_id",
            Self::MessageType => "msg_type is not enterprise (0x03)",
            Self::Enveloped => "request_format 0x01 is not supported",
            Self::RequestFormat => "unknown request_format",
            Self::Jti => "jti is not base64url",
            Self::Padding => "jti_pad is not zero",
        })
    }
}

impl core::error::Error for FramingError {}

/// Where the parts of a token lie: `aad ‖ tag ‖ ciphertext`, in suite 1 `aad ‖ R ‖ tag ‖ σ ‖ ciphertext`.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) aad: &'a [u8; AAD_BYTES],
    /// R_tok and σ_tok, where the suite has a signature.
    pub(crate) signature: Option<Signature<'a>>,
    pub(crate) tag: &'a [u8; 16],
    pub(crate) ciphertext: &'a [u8],
}

/// The Schnorr block.
#[derive(Clone, Copy)]
pub(crate) struct Signature<'a> {
    /// R_tok.
    pub(crate) nonce_point: &'a [u8; 32],
    /// σ_tok.
    pub(crate) scalar: &'a [u8; 32],
}

impl<'a> Parts<'a> {
    pub(crate) fn split(suite: Suite, token: &'a [u8]) -> Option<Self> {
        let (aad, rest) = token.split_first_chunk()?;
        if !suite.is_signed() {
            let (tag, ciphertext) = rest.split_first_chunk()?;
            return Some(Self { aad, signature: None, tag, ciphertext });
        }
        let (nonce_point, rest) = rest.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (scalar, ciphertext) = rest.split_first_chunk()?;
        Some(Self { aad, signature: Some(Signature { nonce_point, scalar }), tag, ciphertext })
    }
}

/// The same places, to write to.
pub(crate) struct PartsMut<'a> {
    pub(crate) aad: &'a mut [u8; AAD_BYTES],
    /// R_tok and σ_tok.
    pub(crate) signature: Option<(&'a mut [u8; 32], &'a mut [u8; 32])>,
    pub(crate) tag: &'a mut [u8; 16],
    pub(crate) ciphertext: &'a mut [u8],
}

impl<'a> PartsMut<'a> {
    pub(crate) fn split(suite: Suite, token: &'a mut [u8]) -> Option<Self> {
        let (aad, rest) = token.split_first_chunk_mut()?;
        if !suite.is_signed() {
            let (tag, ciphertext) = rest.split_first_chunk_mut()?;
            return Some(Self { aad, signature: None, tag, ciphertext });
        }
        let (nonce_point, rest) = rest.split_first_chunk_mut()?;
        let (tag, rest) = rest.split_first_chunk_mut()?;
        let (scalar, ciphertext) = rest.split_first_chunk_mut()?;
        Some(Self { aad, signature: Some((nonce_point, scalar)), tag, ciphertext })
    }
}

/// A token whose framing is sound. Nothing in it is authenticated yet.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    suite: Suite,
    jti: Jti,
    parts: Parts<'a>,
}

impl<'a> Envelope<'a> {
    /// Checks the framing (cascade step 1).
    ///
    /// # Errors
    ///
    /// [`FramingError`] names the first field that is not as the format says.
    pub fn parse(token: &'a [u8]) -> Result<Self, FramingError> {
        let aad = token.first_chunk::<AAD_BYTES>().ok_or(FramingError::Length)?;
        let [_, alg_id, ..] = *aad;
        let known = Suite::from_alg_id(alg_id);
        // Bytes of no known suite are measured by the specification's.
        let suite = known.unwrap_or(Suite::Tbac);
        let parts = Parts::split(suite, token).ok_or(FramingError::Length)?;
        if parts.ciphertext.len() > MAX_BODY_BYTES {
            return Err(FramingError::Length);
        }
        check_first_bytes(aad, known)?;
        if field::<2>(aad, 102) != [0, 0] {
            return Err(FramingError::Padding);
        }
        let jti = Jti::parse(&field::<22>(aad, 80)).ok_or(FramingError::Jti)?;
        Ok(Self { suite, jti, parts })
    }

    /// The suite the token claims; it must equal its session's.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The session the token claims to belong to.
    pub fn session_id(&self) -> SessionId {
        SessionId::from_u64(self.u64_at(4))
    }

    /// The AEAD nonce: a 4-byte minting instance prefix and a 64-bit counter.
    pub fn iv(&self) -> [u8; 12] {
        field(self.parts.aad, 12)
    }

    /// When the token was issued, in Unix seconds.
    pub fn issued_at(&self) -> u64 {
        self.u64_at(24)
    }

    /// When the token ends, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.u64_at(32)
    }

    /// The policy epoch the token was minted under.
    pub fn policy_epoch(&self) -> u64 {
        self.u64_at(40)
    }

    /// SHA-256 of the audience the token is for.
    pub fn audience_hash(&self) -> [u8; 32] {
        field(self.parts.aad, 48)
    }

    /// The token's unique name inside its session.
    pub fn jti(&self) -> Jti {
        self.jti
    }

    pub(crate) fn parts(&self) -> &Parts<'a> {
        &self.parts
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_be_bytes(field(self.parts.aad, offset))
    }
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("suite", &self.suite)
            .field("session_id", &self.session_id())
            .field("issued_at", &self.issued_at())
            .field("expires_at", &self.expires_at())
            .field("policy_epoch", &self.policy_epoch())
            .finish_non_exhaustive()
    }
}

fn check_first_bytes(aad: &[u8; AAD_BYTES], suite: Option<Suite>) -> Result<(), FramingError> {
    let [version, _, msg_type, request_format] = field::<4>(aad, 0);
    if version != VERSION {
        return Err(FramingError::Version);
    }
    if suite.is_none() {
        return Err(FramingError::Algorithm);
    }
    if msg_type != MSG_ENTERPRISE {
        return Err(FramingError::MessageType);
    }
    match request_format {
        FORMAT_DIRECT => Ok(()),
        FORMAT_ENVELOPED => Err(FramingError::Enveloped),
        _ => Err(FramingError::RequestFormat),
    }
}

/// `N` bytes at a constant offset inside the clear header.
fn field<const N: usize>(aad: &[u8; AAD_BYTES], offset: usize) -> [u8; N] {
    aad.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// What the clear header says, for minting.
pub(crate) struct Header<'a> {
    pub(crate) suite: Suite,
    pub(crate) session_id: SessionId,
    pub(crate) iv: [u8; 12],
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) audience_hash: &'a [u8; 32],
    pub(crate) jti: Jti,
}

impl Header<'_> {
    /// Appends the 104 bytes of additional data.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.suite.alg_id(), MSG_ENTERPRISE, FORMAT_DIRECT]);
        out.extend_from_slice(&self.session_id.as_u64().to_be_bytes());
        out.extend_from_slice(&self.iv);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        out.extend_from_slice(&self.policy_epoch.to_be_bytes());
        out.extend_from_slice(self.audience_hash);
        out.extend_from_slice(self.jti.as_bytes());
        out.extend_from_slice(&[0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(suite: Suite) -> Vec<u8> {
        let mut token = Vec::new();
        Header {
            suite,
            session_id: SessionId::from_u64(0xDEAD),
            iv: [9; 12],
            issued_at: 1,
            expires_at: 2,
            policy_epoch: 3,
            audience_hash: &[4; 32],
            jti: Jti::from_random([5; 16]),
        }
        .write(&mut token);
        token.resize(suite.header_bytes(), 0);
        token
    }

    #[test]
    fn the_header_reads_back_as_written() {
        for suite in Suite::ALL {
            let token = framed(suite);
            let envelope = Envelope::parse(&token).unwrap();
            assert_eq!(envelope.suite(), suite);
            assert_eq!(envelope.session_id(), SessionId::from_u64(0xDEAD));
            assert_eq!((envelope.issued_at(), envelope.expires_at(), envelope.policy_epoch()), (1, 2, 3));
            assert_eq!(envelope.iv(), [9; 12]);
            assert_eq!(envelope.audience_hash(), [4; 32]);
            assert_eq!(envelope.jti(), Jti::from_random([5; 16]));
        }
    }

    #[test]
    fn each_wrong_framing_byte_is_named() {
        let cases = [
            (0, 0x02, FramingError::Version),
            (1, 0x00, FramingError::Algorithm),
            (2, 0x08, FramingError::MessageType),
            (2, 0x09, FramingError::MessageType),
            (3, 0x01, FramingError::Enveloped),
            (3, 0x02, FramingError::RequestFormat),
            (80, b'+', FramingError::Jti),
            (102, 1, FramingError::Padding),
            (103, 1, FramingError::Padding),
        ];
        for (offset, byte, error) in cases {
            for suite in Suite::ALL {
                let mut token = framed(suite);
                token.resize(Suite::Tbac.header_bytes(), 0);
                token[offset] = byte;
                assert_eq!(Envelope::parse(&token).unwrap_err(), error, "offset {offset}, suite {suite}");
            }
        }
    }

    #[test]
    fn every_length_below_the_header_and_above_the_limit_is_refused() {
        for suite in Suite::ALL {
            let mut token = framed(suite);
            for cut in 0..suite.header_bytes() {
                assert_eq!(Envelope::parse(&token[..cut]).unwrap_err(), FramingError::Length);
            }
            token.resize(suite.header_bytes() + MAX_BODY_BYTES, 0);
            assert!(Envelope::parse(&token).is_ok());
            token.push(0);
            assert_eq!(Envelope::parse(&token).unwrap_err(), FramingError::Length);
        }
    }
}
