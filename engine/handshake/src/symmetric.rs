//! The symmetric state of a Noise handshake (Noise specification, revision 34, section 5.2): chaining key, transcript
//! hash, and the cipher keyed by the last result that was mixed in.

use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_token::{Suite, aead};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::HandshakeError;
use crate::pattern::{self, TAG_BYTES};

/// Before the first key: the name, the prologue and public keys are hashed in.
pub(crate) struct Opening {
    suite: Suite,
    chaining: [u8; 32],
    hash: [u8; 32],
}

impl Opening {
    /// Starts with the pattern's name, padded if it is at most 32 bytes long, hashed if it is longer.
    pub(crate) fn new(suite: Suite) -> Self {
        let name = pattern::name(suite);
        let mut hash = [0; 32];
        match hash.get_mut(..name.len()) {
            Some(place) => place.copy_from_slice(name),
            None => hash = Sha256::digest(name).into(),
        }
        Self { suite, chaining: hash, hash }
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = mixed(&self.hash, data);
    }

    /// Mixes the first secret in; from here on things are encrypted.
    pub(crate) fn mix_key(self, secret: &[u8; 32]) -> Symmetric {
        let [chaining, key] = noise_hkdf(&self.chaining, secret);
        Symmetric { suite: self.suite, chaining, hash: self.hash, key, nonce: 0 }
    }
}

/// With a key: what is sent is encrypted, with the transcript so far as associated data, and hashed in.
pub(crate) struct Symmetric {
    suite: Suite,
    chaining: Zeroizing<[u8; 32]>,
    hash: [u8; 32],
    key: Zeroizing<[u8; 32]>,
    nonce: u64,
}

/// Everything of a [`Symmetric`] state, for the cookie. No state is made of it but the one it was taken from.
pub(crate) struct Parts {
    pub(crate) chaining: Zeroizing<[u8; 32]>,
    pub(crate) hash: [u8; 32],
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) nonce: u64,
}

impl Symmetric {
    pub(crate) fn from_parts(suite: Suite, parts: Parts) -> Self {
        let Parts { chaining, hash, key, nonce } = parts;
        Self { suite, chaining, hash, key, nonce }
    }

    pub(crate) fn into_parts(self) -> Parts {
        Parts { chaining: self.chaining, hash: self.hash, key: self.key, nonce: self.nonce }
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    pub(crate) fn chaining(&self) -> &[u8; 32] {
        &self.chaining
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = mixed(&self.hash, data);
    }

    pub(crate) fn mix_key(&mut self, secret: &[u8; 32]) {
        let [chaining, key] = noise_hkdf(&self.chaining, secret);
        (self.chaining, self.key, self.nonce) = (chaining, key, 0);
    }

    /// Ciphertext and tag of `plain`.
    pub(crate) fn encrypt_and_hash(&mut self, plain: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let sealed = seal(self.suite, &self.key, self.nonce, &self.hash, plain)?;
        self.nonce += 1;
        self.mix_hash(&sealed);
        Ok(sealed)
    }

    /// The plaintext of `sealed`.
    pub(crate) fn decrypt_and_hash(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HandshakeError> {
        let plain = open(self.suite, &self.key, self.nonce, &self.hash, sealed)?;
        self.nonce += 1;
        self.mix_hash(sealed);
        Ok(plain)
    }
}

fn mixed(hash: &[u8; 32], data: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(hash).chain_update(data).finalize().into()
}

/// HMAC-SHA-256 over the parts, one behind the other.
#[expect(clippy::expect_used, reason = "HMAC takes keys of every length; the error type has no value")]
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC accepts keys of any length");
    let mac = parts.iter().fold(mac, hmac::Mac::chain_update);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The HKDF of the Noise specification (section 4.3) with as many outputs as are asked for, at most 255.
pub(crate) fn noise_hkdf<const OUTPUTS: usize>(
    chaining: &[u8; 32],
    secret: &[u8],
) -> [Zeroizing<[u8; 32]>; OUTPUTS] {
    let temporary = hmac(chaining, &[secret]);
    let mut last: Option<Zeroizing<[u8; 32]>> = None;
    core::array::from_fn(|place| {
        let counter = [u8::try_from(place + 1).unwrap_or(u8::MAX)];
        let before = last.as_ref().map_or(&[][..], |last| last.as_slice());
        let output = hmac(&*temporary, &[before, &counter]);
        last = Some(output.clone());
        output
    })
}

/// Noise nonces: 32 zero bits, then the counter, big-endian for AES-GCM and little-endian for ChaCha20-Poly1305
/// (Noise specification, sections 12.3 and 12.4).
fn iv(suite: Suite, nonce: u64) -> [u8; 12] {
    let counter = match suite {
        Suite::ChaCha20Poly1305 => nonce.to_le_bytes(),
        Suite::Tbac | Suite::AesGcm | Suite::HybridAesGcm => nonce.to_be_bytes(),
    };
    let [a, b, c, d, e, f, g, h] = counter;
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// Ciphertext and tag, one behind the other.
pub(crate) fn seal(
    suite: Suite,
    key: &[u8; 32],
    nonce: u64,
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, HandshakeError> {
    let mut sealed = Vec::with_capacity(plain.len() + TAG_BYTES);
    sealed.extend_from_slice(plain);
    let tag =
        aead::seal(suite, key, &iv(suite, nonce), aad, &mut sealed).map_err(|_| HandshakeError::Length)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The plaintext, once the tag has been checked.
pub(crate) fn open(
    suite: Suite,
    key: &[u8; 32],
    nonce: u64,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HandshakeError> {
    let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(HandshakeError::Length)?;
    let mut plain = Zeroizing::new(text.to_vec());
    aead::open(suite, key, &iv(suite, nonce), aad, &mut plain, tag).map_err(|_| HandshakeError::Tag)?;
    Ok(plain)
}
