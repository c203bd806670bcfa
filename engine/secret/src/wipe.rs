//! Memory that is wiped, as fast as it can be.
//!
//! `zeroize` writes zeros byte by byte, which for a token takes longer than all the rest of carrying it. Here they are
//! written as a whole, and `zeroize` only keeps the compiler from leaving that out.

use core::fmt;
use core::ops::{Deref, DerefMut};

pub use zeroize::ZeroizeOnDrop;

/// The least that is allocated, in bytes: a token and its envelope fit without growing.
const FIRST_BYTES: usize = 1_024;

/// Overwrites with zeros.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

/// Bytes that are wiped when they are cut off, when their memory is given up for a larger piece, and when dropped. So
/// spare capacity never holds any of them.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Takes bytes over.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A text's bytes.
    pub fn text(text: String) -> Self {
        let mut bytes = text.into_bytes();
        let length = bytes.len();
        // What a longer text may have left behind the end.
        bytes.resize(bytes.capacity(), 0);
        let mut bytes = Self(bytes);
        bytes.truncate(length);
        bytes
    }

    /// Adds bytes at the end.
    #[inline]
    pub fn append(&mut self, piece: &[u8]) {
        if piece.len() > self.0.capacity() - self.0.len() {
            self.grow(piece.len());
        }
        self.0.extend_from_slice(piece);
    }

    /// `Vec` would free the old memory as it is.
    #[cold]
    fn grow(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        let mut larger = Vec::with_capacity(needed.max(self.0.capacity().saturating_mul(2)).max(FIRST_BYTES));
        larger.extend_from_slice(&self.0);
        *self = Self(larger);
    }

    /// Cuts off what is behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        if let Some(cut_off) = self.0.get_mut(length..) {
            wipe(cut_off);
        }
        self.0.truncate(length);
    }
}

impl std::io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl ZeroizeOnDrop for Wiped {}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wiped({} bytes)", self.0.len())
    }
}

/// Text that is wiped when dropped.
#[derive(Default)]
pub struct WipedText(String);

impl fmt::Debug for WipedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WipedText({} bytes)", self.0.len())
    }
}

impl WipedText {
    /// Takes a text over.
    pub const fn new(text: String) -> Self {
        Self(text)
    }
}

impl Drop for WipedText {
    fn drop(&mut self) {
        drop(Wiped::text(core::mem::take(&mut self.0)));
    }
}

impl ZeroizeOnDrop for WipedText {}

impl Deref for WipedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_gone_and_the_rest_stays() {
        let mut bytes = Wiped::default();
        bytes.append(b"kept");
        bytes.append(b"secret");
        bytes.truncate(4);
        bytes.truncate(100);
        assert_eq!(&*bytes, b"kept");
    }

    #[test]
    fn it_grows_by_the_double_and_keeps_what_is_in_it() {
        let mut bytes = Wiped::default();
        let (mut expected, mut moves, mut capacity) = (Vec::new(), 0, 0);
        for number in 0..200_u8 {
            bytes.append(&[number; 100]);
            expected.extend_from_slice(&[number; 100]);
            moves += usize::from(core::mem::replace(&mut capacity, bytes.0.capacity()) != bytes.0.capacity());
        }
        assert_eq!(&*bytes, expected);
        assert!(moves < 12, "{moves}");
    }

    #[test]
    fn wiping_leaves_zeros() {
        let mut bytes = *b"secret";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 6]);
    }
}
