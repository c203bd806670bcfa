//! X25519 keys: an agent's identity, the service's static key, and who may use the latter.

use core::fmt;

use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::error::HandshakeError;

/// Where random bytes come from: the operating system, or a fixed sequence in tests.
pub trait Random {
    /// Fills `bytes`. Whoever implements this for real use never returns predictable bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The result of one Diffie-Hellman exchange. Wiped when dropped.
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// Takes the 32 bytes of a result over, from a device or a process that holds the key.
    ///
    /// # Errors
    ///
    /// If they are all zero: the peer's key was of low order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, HandshakeError> {
        let bytes = Zeroizing::new(bytes);
        let any = bytes.iter().fold(0, |any, byte| any | byte);
        if any == 0 { Err(HandshakeError::WeakKey) } else { Ok(Self(bytes)) }
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret([redacted])")
    }
}

/// An X25519 pair: the agent's (or resource server's) long-lived identity, or the ephemeral of one handshake.
pub struct IdentityKey(StaticSecret);

impl IdentityKey {
    /// Makes a new pair.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill(&mut *bytes);
        Self::from_bytes(&bytes)
    }

    /// The pair with this private half, as [`IdentityKey::expose`] gave it.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The private half, for sealing at rest.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic(PublicKey::from(&self.0).to_bytes())
    }

    pub(crate) fn agree(&self, peer: &[u8; 32]) -> Result<SharedSecret, HandshakeError> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*peer));
        if shared.was_contributory() {
            SharedSecret::from_bytes(shared.to_bytes())
        } else {
            Err(HandshakeError::WeakKey)
        }
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey([redacted])")
    }
}

/// The public half of an identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdentityPublic(pub [u8; 32]);

impl IdentityPublic {
    /// The subject that tokens of this identity name (TBAC r41): `IK:` and the first 32 hex digits of
    /// SHA-256(`obol-ik-v1` ‖ public half).
    pub fn subject(&self) -> String {
        let digest = Sha256::new().chain_update(b"obol-ik-v1").chain_update(self.0).finalize();
        digest.iter().take(16).fold(String::from("IK:"), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        })
    }

    /// The key in words that people can say and compare, 80 bits of SHA-256(`obol-words-v1` ‖ public half): five proquints
    /// (Wilkerson, arXiv:0901.4016), such as `lusab-babad-gutih-tugad-bisog`.
    pub fn words(&self) -> String {
        const BYTES: usize = 10;
        let digest = Sha256::new().chain_update(b"obol-words-v1").chain_update(self.0).finalize();
        words(digest.first_chunk::<BYTES>().map_or(&[], |bytes| &bytes[..]))
    }
}

/// Bytes in words that people can say and type, two in each: proquints.
pub fn words(bytes: &[u8]) -> String {
    const CONSONANTS: [char; 16] =
        ['b', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z'];
    const VOWELS: [char; 4] = ['a', 'i', 'o', 'u'];
    let word = |pair: &[u8; 2]| {
        let bits = u16::from_be_bytes(*pair);
        let consonant = |shift: u16| CONSONANTS.get(usize::from((bits >> shift) & 15)).copied();
        let vowel = |shift: u16| VOWELS.get(usize::from((bits >> shift) & 3)).copied();
        let letters = [consonant(12), vowel(10), consonant(6), vowel(4), consonant(0)];
        letters.into_iter().flatten().collect::<String>()
    };
    bytes.as_chunks::<2>().0.iter().map(word).collect::<Vec<_>>().join("-")
}

/// The name of one of the service's static keys: the first 8 bytes of SHA-256 over its public half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub [u8; 8]);

/// The public half of the service's static key, which a client has pinned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AuthorityKey(pub [u8; 32]);

impl AuthorityKey {
    /// Its name.
    pub fn id(&self) -> KeyId {
        let digest: [u8; 32] = Sha256::digest(self.0).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        KeyId([a, b, c, d, e, f, g, h])
    }
}

/// Whoever can do the one operation that the handshake needs of the service's static keys: this process, another one,
/// or a device.
pub trait StaticAgreement {
    /// The public half of the key that `id` names, if there is such a key.
    fn public(&self, id: KeyId) -> Option<AuthorityKey>;

    /// Diffie-Hellman of that key and `peer`.
    ///
    /// # Errors
    ///
    /// If there is no such key, it cannot be used, or `peer` is of low order.
    fn agree(&self, id: KeyId, peer: &[u8; 32]) -> Result<SharedSecret, HandshakeError>;
}

/// One static key of the service, held in this process. Its public half and its name are computed once.
pub struct AuthoritySecret {
    secret: IdentityKey,
    public: AuthorityKey,
    id: KeyId,
}

impl AuthoritySecret {
    /// The key with this private half.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self::of(IdentityKey::from_bytes(bytes))
    }

    /// Makes a new key.
    pub fn generate(rng: &mut dyn Random) -> Self {
        Self::of(IdentityKey::generate(rng))
    }

    fn of(secret: IdentityKey) -> Self {
        let public = AuthorityKey(secret.public().0);
        Self { id: public.id(), secret, public }
    }

    /// The public half, for clients to pin.
    pub fn key(&self) -> AuthorityKey {
        self.public
    }
}

impl fmt::Debug for AuthoritySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthoritySecret([redacted])")
    }
}

impl StaticAgreement for AuthoritySecret {
    fn public(&self, id: KeyId) -> Option<AuthorityKey> {
        (id == self.id).then_some(self.public)
    }

    fn agree(&self, id: KeyId, peer: &[u8; 32]) -> Result<SharedSecret, HandshakeError> {
        self.public(id).ok_or(HandshakeError::UnknownAuthorityKey)?;
        self.secret.agree(peer)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes that count up: different in every call, the same in every run.
    #[derive(Default)]
    pub(crate) struct Counting(u64);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(32) {
                self.0 += 1;
                let digest = Sha256::digest(self.0.to_be_bytes());
                chunk.copy_from_slice(&digest[..chunk.len()]);
            }
        }
    }

    /// Points of low order on curve25519 and its twist, as far as X25519 tells them apart.
    const LOW_ORDER: [[u8; 32]; 3] = [
        [0; 32],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
    ];

    #[test]
    fn keys_of_low_order_are_refused() {
        let key = IdentityKey::generate(&mut Counting::default());
        for point in LOW_ORDER {
            assert_eq!(key.agree(&point).unwrap_err(), HandshakeError::WeakKey);
        }
        let other = IdentityKey::generate(&mut Counting(7));
        let (one, two) = (key.agree(&other.public().0).unwrap(), other.agree(&key.public().0).unwrap());
        assert_eq!(one.expose(), two.expose());
    }

    #[test]
    fn a_static_key_keeps_the_public_half_and_the_name_of_its_private_half() {
        let mut rng = Counting::default();
        for _ in 0..64 {
            let secret = IdentityKey::generate(&mut rng);
            let key = AuthoritySecret::from_bytes(secret.expose());
            let public = AuthorityKey(secret.public().0);
            assert_eq!((key.key(), key.public(public.id())), (public, Some(public)));
            let other = KeyId(public.id().0.map(|byte| !byte));
            assert_eq!(key.public(other), None);
            let peer = IdentityKey::generate(&mut rng).public().0;
            let (kept, anew) = (key.agree(public.id(), &peer).unwrap(), secret.agree(&peer).unwrap());
            assert_eq!(kept.expose(), anew.expose());
            assert_eq!(key.agree(other, &peer).unwrap_err(), HandshakeError::UnknownAuthorityKey);
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let key = IdentityKey::from_bytes(&[0xAB; 32]);
        assert_eq!(format!("{key:?}"), "IdentityKey([redacted])");
        assert!(!format!("{:?}", AuthoritySecret::from_bytes(&[0xAB; 32])).contains("171"));
    }

    #[test]
    fn a_subject_names_the_key() {
        let subject = IdentityPublic([3; 32]).subject();
        assert!(subject.starts_with("IK:") && subject.len() == 3 + 32, "{subject}");
        assert_ne!(subject, IdentityPublic([4; 32]).subject());
        let words = IdentityPublic([3; 32]).words();
        assert_eq!(words.split('-').map(str::len).collect::<Vec<_>>(), [5; 5], "{words}");
        assert_ne!(words, IdentityPublic([4; 32]).words());
    }
}
