//! Which Noise pattern a suite runs, and how long its messages are.

use obol_token::Suite;

use crate::header::Header;
use crate::kem;

/// A Diffie-Hellman public key, in bytes.
pub(crate) const DH_BYTES: usize = 32;
/// The tag behind everything that is encrypted, in bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// The name that is hashed into the transcript first. The suite's own number is in the prologue.
pub(crate) const fn name(suite: Suite) -> &'static [u8] {
    match suite {
        Suite::Tbac | Suite::AesGcm => b"Noise_XK_25519_AESGCM_SHA256",
        Suite::ChaCha20Poly1305 => b"Noise_XK_25519_ChaChaPoly_SHA256",
        Suite::HybridAesGcm => b"Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256",
    }
}

/// Whether an ML-KEM-768 exchange is mixed in.
pub(crate) const fn is_hybrid(suite: Suite) -> bool {
    matches!(suite, Suite::HybridAesGcm)
}

/// Bytes of message A: header, e, in suite 4 the sealed ML-KEM key, and the tag of the empty payload. 60 or 1,260.
pub const fn hello_bytes(suite: Suite) -> usize {
    let kem = if is_hybrid(suite) { kem::PUBLIC_BYTES + TAG_BYTES } else { 0 };
    Header::BYTES + DH_BYTES + kem + TAG_BYTES
}

/// Bytes of the second Noise message beyond its payload: e, in suite 4 the sealed ML-KEM ciphertext, a tag.
pub const fn reply_overhead_bytes(suite: Suite) -> usize {
    let kem = if is_hybrid(suite) { kem::CIPHERTEXT_BYTES + TAG_BYTES } else { 0 };
    DH_BYTES + kem + TAG_BYTES
}

/// Bytes of the third Noise message beyond its payload: the sealed static key and a tag.
pub(crate) const PROOF_OVERHEAD_BYTES: usize = DH_BYTES + TAG_BYTES + TAG_BYTES;
