//! HKDF-SHA-256 (RFC 5869) as every suite uses it.

use hkdf::Hkdf;
use sha2::Sha256;

const ZERO_SALT: [u8; 32] = [0; 32];

/// HKDF-Expand for outputs far below its limit of 8,160 bytes, which is why it cannot fail here.
#[inline]
pub(crate) fn expand(expander: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    let done = expander.expand_multi_info(info, out);
    debug_assert!(done.is_ok(), "HKDF output over 8,160 bytes");
}

/// HKDF-SHA-256 with the zero salt, for keys that hang on a single secret.
#[inline]
pub(crate) fn hkdf_zero_salt(ikm: &[u8; 32]) -> Hkdf<Sha256> {
    Hkdf::new(Some(&ZERO_SALT), ikm)
}

/// HKDF-Expand under a key that is an HKDF output already.
#[expect(clippy::expect_used, reason = "refused are keys shorter than the hash; this one is as long")]
#[inline]
pub(crate) fn hkdf_of_root(root: &[u8; 32]) -> Hkdf<Sha256> {
    Hkdf::from_prk(root).expect("a root is as long as the hash")
}
