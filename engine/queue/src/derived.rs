//! What others may have of the queue's secrets: keys derived for one purpose, and a token's public name.

use hkdf::Hkdf;
use obol_token::{Envelope, Jti};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::batch::Token;
use crate::master_key::MasterKey;

/// Sets these keys apart from those the queue itself derives, which have a store's identity as their salt.
const SALT: &[u8] = b"obol-derived-v1";

impl MasterKey {
    /// A key for one purpose outside the queue. It tells nothing about the master key nor about other purposes' keys.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let done =
            Hkdf::<Sha256>::new(Some(SALT), self.expose()).expand(purpose.as_bytes(), key.as_mut_slice());
        debug_assert!(done.is_ok(), "HKDF output over 8,160 bytes");
        key
    }
}

impl Token {
    /// The token's name, which is in its clear header; `None` for a token of another format.
    pub fn jti(&self) -> Option<Jti> {
        Envelope::parse(self.as_bytes()).ok().map(|envelope| envelope.jti())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac`: another key here would leave every audit log without its seal.
    #[test]
    fn a_derived_key_is_the_one_it_always_was() {
        let master = MasterKey::from_bytes(core::array::from_fn(|place| u8::try_from(place).unwrap()));
        for (purpose, expected) in [
            ("obol audit log", "d3f00ba7e757897e75b4d6df5ca77700bc45b28de0a2ab9a8b58507b2e026dcb"),
            ("some purpose", "0e1a6a2b5fe4f34ffa576fbdbd275d11a691fd64e1eae246aee95677f9f63fcc"),
        ] {
            assert_eq!(obol_secret::text::to_hex(&*master.derive(purpose)), expected, "{purpose}");
        }
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let key = |byte, purpose| MasterKey::from_bytes([byte; 32]).derive(purpose);
        assert_eq!(*key(1, "a"), *key(1, "a"));
        assert_ne!(*key(1, "a"), *key(1, "b"));
        assert_ne!(*key(1, "a"), *key(2, "a"));
        assert_ne!(*key(1, "a"), [1; 32]);
    }
}
