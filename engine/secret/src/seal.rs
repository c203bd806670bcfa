//! Sealing at rest: AES-256-GCM under a fresh random nonce. The sealed form is nonce ‖ ciphertext ‖ tag.
//!
//! The context is what the sealed bytes are, and where they belong: opened in another context, they do not open.

use core::ops::Range;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use zeroize::Zeroizing;

/// Bytes of the nonce, in front.
pub const NONCE_BYTES: usize = 12;
/// Bytes of the tag, at the end.
pub const TAG_BYTES: usize = 16;
/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The system's random number generator failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRandomness;

impl core::fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the system's random number generator failed")
    }
}

impl core::error::Error for NoRandomness {}

/// Seals under a fresh random nonce.
///
/// # Errors
///
/// [`NoRandomness`].
pub fn seal(key: &[u8; 32], context: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
    sealed.extend_from_slice(&[0; NONCE_BYTES]);
    sealed.extend_from_slice(plain);
    seal_in_place(key, context, &mut sealed, 0)?;
    Ok(sealed)
}

/// Seals what stands in `buffer` from `start` on, which begins with room for a nonce, and appends the tag.
///
/// # Errors
///
/// [`NoRandomness`].
pub fn seal_in_place(
    key: &[u8; 32],
    context: &[u8],
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<(), NoRandomness> {
    let (_, rest) = buffer.split_at_mut_checked(start).ok_or(NoRandomness)?;
    let (nonce, body) = rest.split_first_chunk_mut::<NONCE_BYTES>().ok_or(NoRandomness)?;
    getrandom::fill(nonce).map_err(|_| NoRandomness)?;
    let tag = Aes256Gcm::new(key.into())
        .encrypt_inout_detached(&(*nonce).into(), context, body.into())
        // AES-GCM refuses only messages above 64 GiB.
        .map_err(|_| NoRandomness)?;
    buffer.extend_from_slice(&tag);
    Ok(())
}

/// Opens what [`seal`] made in the same context; `None` where anything differs.
pub fn open(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(sealed.to_vec());
    let body = open_in_place(key, context, &mut plain)?;
    plain.truncate(body.end);
    plain.drain(..body.start);
    Some(plain)
}

/// As [`open`], where it stands; gives back where in it the plain bytes are.
pub fn open_in_place(key: &[u8; 32], context: &[u8], sealed: &mut [u8]) -> Option<Range<usize>> {
    let end = sealed.len().checked_sub(TAG_BYTES)?;
    let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_BYTES>()?;
    let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
    Aes256Gcm::new(key.into())
        .decrypt_inout_detached((&*nonce).into(), context, body.into(), (&*tag).into())
        .ok()?;
    Some(NONCE_BYTES..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_context_and_bytes_open() {
        let sealed = seal(&[3; 32], b"row", b"tokens").unwrap();
        assert_eq!(open(&[3; 32], b"row", &sealed).unwrap().as_slice(), b"tokens");
        assert!(open(&[4; 32], b"row", &sealed).is_none());
        assert!(open(&[3; 32], b"other row", &sealed).is_none());
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(open(&[3; 32], b"row", &damaged).is_none(), "bit flip at {position}");
            assert!(open(&[3; 32], b"row", &sealed[..position]).is_none(), "cut at {position}");
        }
    }

    #[test]
    fn what_is_sealed_twice_differs() {
        assert_ne!(seal(&[3; 32], b"", b"x").unwrap(), seal(&[3; 32], b"", b"x").unwrap());
    }
}
