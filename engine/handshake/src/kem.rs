//! ML-KEM-768 (FIPS 203), raw: the Diffie-Hellman exchanges beside it are the classical half.

use ml_kem::kem::{Decapsulate as _, KeyExport as _, TryKeyInit as _};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use zeroize::Zeroizing;

use crate::error::HandshakeError;
use crate::keys::Random;

/// An encapsulation key, in bytes.
pub(crate) const PUBLIC_BYTES: usize = 1184;
/// A ciphertext, in bytes.
pub(crate) const CIPHERTEXT_BYTES: usize = 1088;

/// A key pair for one handshake. Wiped when dropped.
pub(crate) struct KemKey(Box<DecapsulationKey>);

impl KemKey {
    pub(crate) fn generate(rng: &mut dyn Random) -> Self {
        let mut seed = Zeroizing::new([0; 64]);
        rng.fill(&mut *seed);
        Self(Box::new(DecapsulationKey::from_seed((*seed).into())))
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        self.0.encapsulation_key().to_bytes().to_vec()
    }

    /// The shared secret in `ciphertext`. One that was made for another key gives another secret (FIPS 203, 6.3): the
    /// next tag tells.
    pub(crate) fn decapsulate(&self, ciphertext: &[u8]) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
        let secret = self.0.decapsulate_slice(ciphertext).map_err(|_| HandshakeError::Length)?;
        Ok(Zeroizing::new(secret.into()))
    }
}

/// A fresh secret for whoever has the other half of `public`, and the ciphertext that carries it.
///
/// # Errors
///
/// If `public` is not an encapsulation key: its length, or a coefficient that is not reduced (FIPS 203, 7.2).
pub(crate) fn encapsulate(
    public: &[u8],
    rng: &mut dyn Random,
) -> Result<(Vec<u8>, Zeroizing<[u8; 32]>), HandshakeError> {
    let key = EncapsulationKey::new_from_slice(public).map_err(|_| HandshakeError::KemKey)?;
    let mut message = Zeroizing::new([0; 32]);
    rng.fill(&mut *message);
    let (ciphertext, secret) = key.encapsulate_deterministic(&(*message).into());
    Ok((ciphertext.to_vec(), Zeroizing::new(secret.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::Counting;

    #[test]
    fn both_sides_get_the_same_secret_and_sizes_are_those_of_the_standard() {
        let mut rng = Counting::default();
        let key = KemKey::generate(&mut rng);
        assert_eq!(key.public().len(), PUBLIC_BYTES);
        let (ciphertext, secret) = encapsulate(&key.public(), &mut rng).unwrap();
        assert_eq!(ciphertext.len(), CIPHERTEXT_BYTES);
        assert_eq!(*key.decapsulate(&ciphertext).unwrap(), *secret);
        assert_eq!(key.decapsulate(&ciphertext[1..]).unwrap_err(), HandshakeError::Length);
    }

    #[test]
    fn a_key_whose_coefficients_are_not_reduced_is_refused() {
        let mut rng = Counting::default();
        let mut public = KemKey::generate(&mut rng).public();
        public[..3].copy_from_slice(&[0xFF; 3]); // 4095: above q = 3329
        assert_eq!(encapsulate(&public, &mut rng).unwrap_err(), HandshakeError::KemKey);
        assert_eq!(encapsulate(&public[1..], &mut rng).unwrap_err(), HandshakeError::KemKey);
    }
}
