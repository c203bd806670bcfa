//! Sealing at rest: AES-256-GCM under a fresh random nonce. The sealed form is nonce ‖ ciphertext ‖ tag.
//!
//! The context is what the sealed bytes are, and where they belong: opened in another context, they do not open.

use core::ops::Range;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, KeyInit as _};
use zeroize::Zeroizing;

/// GCM needs the cipher in one direction only; the schedule for the other would be work for nothing.
type Aes256Gcm = AesGcm<aes_gcm::aes::Aes256Enc, U12>;

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

/// A key that seals and opens many times: what the cipher makes of it is made once. Wiped when dropped.
pub struct Sealing(Aes256Gcm);

impl Sealing {
    /// With this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// As [`seal`].
    ///
    /// # Errors
    ///
    /// [`NoRandomness`].
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&[0; NONCE_BYTES]);
        sealed.extend_from_slice(plain);
        self.seal_in_place(context, &mut sealed, 0)?;
        Ok(sealed)
    }

    /// As [`open`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(sealed.to_vec());
        let body = self.open_in_place(context, &mut plain)?;
        plain.truncate(body.end);
        plain.drain(..body.start);
        Some(plain)
    }

    fn seal_in_place(&self, context: &[u8], buffer: &mut Vec<u8>, start: usize) -> Result<(), NoRandomness> {
        let (_, rest) = buffer.split_at_mut_checked(start).ok_or(NoRandomness)?;
        let (nonce, body) = rest.split_first_chunk_mut::<NONCE_BYTES>().ok_or(NoRandomness)?;
        getrandom::fill(nonce).map_err(|_| NoRandomness)?;
        let tag = self
            .0
            .encrypt_inout_detached(&(*nonce).into(), context, body.into())
            // AES-GCM refuses only messages above 64 GiB.
            .map_err(|_| NoRandomness)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    fn open_in_place(&self, context: &[u8], sealed: &mut [u8]) -> Option<Range<usize>> {
        let end = sealed.len().checked_sub(TAG_BYTES)?;
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
        self.0.decrypt_inout_detached((&*nonce).into(), context, body.into(), (&*tag).into()).ok()?;
        Some(NONCE_BYTES..end)
    }
}

impl core::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sealing([redacted])")
    }
}

/// Seals under a fresh random nonce.
///
/// # Errors
///
/// [`NoRandomness`].
pub fn seal(key: &[u8; 32], context: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    Sealing::new(key).seal(context, plain)
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
    Sealing::new(key).seal_in_place(context, buffer, start)
}

/// Opens what [`seal`] made in the same context; `None` where anything differs.
pub fn open(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    Sealing::new(key).open(context, sealed)
}

/// As [`open`], where it stands; gives back where in it the plain bytes are.
pub fn open_in_place(key: &[u8; 32], context: &[u8], sealed: &mut [u8]) -> Option<Range<usize>> {
    Sealing::new(key).open_in_place(context, sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        let kept = Sealing::new(&[3; 32]);
        assert_ne!(kept.seal(b"", b"x").unwrap(), kept.seal(b"", b"x").unwrap());
    }

    /// AES-256-GCM as the library has it, for comparison.
    fn plainly(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut body = body.to_vec();
        let inout = body.as_mut_slice().into();
        let cipher = aes_gcm::Aes256Gcm::new(key.into());
        cipher.decrypt_inout_detached(nonce.into(), context, inout, tag.into()).ok()?;
        Some(body)
    }

    proptest! {
        #[test]
        fn a_key_that_is_kept_seals_and_opens_what_one_for_once_does(
            key: [u8; 32],
            contexts: [Vec<u8>; 3],
            plain in proptest::collection::vec(any::<u8>(), 0..300),
            flip: proptest::sample::Index,
        ) {
            let kept = Sealing::new(&key);
            for context in &contexts {
                let sealed = [kept.seal(context, &plain).unwrap(), seal(&key, context, &plain).unwrap()];
                for sealed in sealed {
                    let opened = [
                        plainly(&key, context, &sealed).map(Zeroizing::new),
                        kept.open(context, &sealed),
                        open(&key, context, &sealed),
                    ];
                    for opened in opened {
                        prop_assert_eq!(opened.as_deref(), Some(&plain));
                    }
                    let mut damaged = sealed;
                    let at = flip.index(damaged.len());
                    damaged[at] ^= 1;
                    prop_assert!(kept.open(context, &damaged).is_none());
                    prop_assert!(open(&key, context, &damaged).is_none());
                }
            }
        }
    }
}
