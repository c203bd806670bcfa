//! `SEK`: the ristretto255 pair that TBAC r41 binds tokens to, and the proof that whoever opens a session holds its
//! private half. The proof is made over the transcript, so it is good for one handshake.

use core::fmt;

use curve25519_dalek::ristretto::CompressedRistretto;
use curve25519_dalek::traits::IsIdentity as _;
use curve25519_dalek::{RistrettoPoint, Scalar};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::keys::Random;
use crate::schedule::HandshakeHash;

/// Bytes of a proof: R, then s.
pub const SEK_PROOF_BYTES: usize = 64;

const LABEL: &[u8] = b"obol-sek-proof-v1";

/// The public half: a compressed ristretto255 point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SekPublic(pub [u8; 32]);

/// The pair. Wiped when dropped.
pub struct SekKey(Zeroizing<Scalar>);

impl SekKey {
    /// Makes a new pair.
    pub fn generate(rng: &mut dyn Random) -> Self {
        Self(scalar(rng))
    }

    /// The pair with this private half: 32 bytes, little-endian, reduced. `None` if they are not, or all zero.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let scalar = Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes))?;
        (scalar != Scalar::ZERO).then(|| Self(Zeroizing::new(scalar)))
    }

    /// The private half, for sealing at rest.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> SekPublic {
        SekPublic(RistrettoPoint::mul_base(&self.0).compress().to_bytes())
    }

    /// Proves possession, for the handshake with this transcript.
    pub fn prove(&self, hash: &HandshakeHash, rng: &mut dyn Random) -> [u8; SEK_PROOF_BYTES] {
        let nonce = scalar(rng);
        let commitment = RistrettoPoint::mul_base(&nonce).compress().to_bytes();
        let challenge = challenge(hash, &self.public(), &commitment);
        let response = Zeroizing::new(*nonce + challenge * *self.0);
        let mut proof = [0; SEK_PROOF_BYTES];
        let (first, second) = proof.split_at_mut(32);
        first.copy_from_slice(&commitment);
        second.copy_from_slice(response.as_bytes());
        proof
    }
}

impl fmt::Debug for SekKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SekKey([redacted])")
    }
}

/// Whether `proof` shows possession of the private half of `public`, in the handshake with this transcript.
pub fn verify_sek_proof(public: &SekPublic, hash: &HandshakeHash, proof: &[u8; SEK_PROOF_BYTES]) -> bool {
    let ([commitment, response], []) = proof.as_chunks::<32>() else { return false };
    let point = CompressedRistretto(public.0).decompress().filter(|point| !point.is_identity());
    let response = Option::<Scalar>::from(Scalar::from_canonical_bytes(*response));
    let (Some(point), Some(response)) = (point, response) else { return false };
    let challenge = challenge(hash, public, commitment);
    let again = RistrettoPoint::vartime_double_scalar_mul_basepoint(&-challenge, &point, &response);
    // The compressed form is unique, so comparing it also refuses a commitment that is not canonical.
    again.compress().as_bytes() == commitment
}

/// SHA-512(`obol-sek-proof-v1` ‖ h ‖ SEK_PK ‖ R), wide-reduced.
fn challenge(hash: &HandshakeHash, public: &SekPublic, commitment: &[u8; 32]) -> Scalar {
    let wide: [u8; 64] = Sha512::new()
        .chain_update(LABEL)
        .chain_update(hash.0)
        .chain_update(public.0)
        .chain_update(commitment)
        .finalize()
        .into();
    Scalar::from_bytes_mod_order_wide(&wide)
}

fn scalar(rng: &mut dyn Random) -> Zeroizing<Scalar> {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill(&mut *wide);
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::Counting;

    const HASH: HandshakeHash = HandshakeHash([4; 32]);

    #[test]
    fn a_proof_holds_for_its_key_and_its_transcript_only() {
        let mut rng = Counting::default();
        let (key, other) = (SekKey::generate(&mut rng), SekKey::generate(&mut rng));
        let proof = key.prove(&HASH, &mut rng);
        assert!(verify_sek_proof(&key.public(), &HASH, &proof));
        assert!(!verify_sek_proof(&other.public(), &HASH, &proof));
        assert!(!verify_sek_proof(&key.public(), &HandshakeHash([5; 32]), &proof));
        assert!(!verify_sek_proof(&SekPublic([0; 32]), &HASH, &proof), "the identity is not a key");
        assert!(!verify_sek_proof(&SekPublic([0xFF; 32]), &HASH, &proof), "not a point");
    }

    #[test]
    fn every_bit_of_a_proof_counts() {
        let mut rng = Counting::default();
        let key = SekKey::generate(&mut rng);
        let proof = key.prove(&HASH, &mut rng);
        for bit in 0..SEK_PROOF_BYTES * 8 {
            let mut other = proof;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify_sek_proof(&key.public(), &HASH, &other), "bit {bit}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_kept() {
        let key = SekKey::generate(&mut Counting::default());
        assert_eq!(SekKey::from_bytes(key.expose()).unwrap().public(), key.public());
        assert!(SekKey::from_bytes(&[0; 32]).is_none());
        assert!(SekKey::from_bytes(&[0xFF; 32]).is_none(), "not reduced");
    }
}
