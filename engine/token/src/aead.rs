//! The AEAD of each suite, in place, with the tag apart.
//!
//! Keys are 32 bytes, nonces 12, tags 16. Whoever calls this never uses a pair of key and nonce twice. A token's key
//! is used for one message, and its nonce is unique for the session as well, so a repeated `jti` alone, or a repeated
//! counter alone, does not repeat a pair. The handshake counts its nonces.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::suite::Suite;

/// GCM needs the cipher in one direction only; the schedule for the other would be work for nothing.
type Aes256Gcm = AesGcm<aes_gcm::aes::Aes256Enc, U12>;

/// What was sealed, or could not be opened. Says nothing more on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AeadError;

/// Encrypts `text` where it lies and gives the tag.
///
/// # Errors
///
/// If `text` or `aad` is longer than the algorithm allows: 64 GiB.
pub fn seal(
    suite: Suite,
    key: &[u8; 32],
    iv: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> Result<[u8; 16], AeadError> {
    let sealed = match suite {
        Suite::Tbac | Suite::AesGcm | Suite::HybridAesGcm => {
            Aes256Gcm::new(key.into()).encrypt_inout_detached(iv.into(), aad, text.into())
        }
        Suite::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(iv.into(), aad, text.into())
        }
    };
    sealed.map(Into::into).map_err(|_| AeadError)
}

/// Checks the tag, then decrypts `text` where it lies. Where the tag does not hold, nothing is decrypted.
///
/// # Errors
///
/// If the tag does not hold.
pub fn open(
    suite: Suite,
    key: &[u8; 32],
    iv: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; 16],
) -> Result<(), AeadError> {
    let opened = match suite {
        Suite::Tbac | Suite::AesGcm | Suite::HybridAesGcm => {
            Aes256Gcm::new(key.into()).decrypt_inout_detached(iv.into(), aad, text.into(), tag.into())
        }
        Suite::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).decrypt_inout_detached(iv.into(), aad, text.into(), tag.into())
        }
    };
    opened.map_err(|_| AeadError)
}
