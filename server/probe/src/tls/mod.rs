//! The cryptography of TLS: ring, and in front of it the hybrid key exchange X25519MLKEM768, which ring lacks.
//!
//! The classical half is ring's X25519; the other is ML-KEM-768 (FIPS 203) of the crate `ml-kem`, which the handshake of the
//! Authentication Service uses too. The layout is that of draft-ietf-tls-ecdhe-mlkem: the client's share is the encapsulation
//! key ‖ its X25519 share, the server's is the ciphertext ‖ its X25519 share, and the secret is ML-KEM's ‖ X25519's. If one
//! half breaks, the other still holds. A peer that does not know the group uses X25519 alone.

mod certificate;
#[cfg(feature = "roots")]
mod roots;

use ml_kem::kem::{Decapsulate as _, KeyExport as _, TryKeyInit as _};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use rustls::crypto::ring::{default_provider, kx_group::X25519};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

pub(crate) use self::certificate::greet;
pub use self::certificate::{
    Certificate, CertificateError, Greeted, HTTP1, HTTP2_AND_1, Protocols, TLS12_AND_13, TLS13, Versions,
};
#[cfg(feature = "roots")]
pub use self::roots::system_roots;

/// Bytes of an encapsulation key.
const PUBLIC_BYTES: usize = 1_184;
/// Bytes of a ciphertext.
const CIPHERTEXT_BYTES: usize = 1_088;
const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// What servers and clients of Obol do TLS with: X25519MLKEM768 first, then what every peer speaks.
pub fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.kx_groups.insert(0, &X25519MlKem768);
    provider
}

#[derive(Debug)]
struct X25519MlKem768;

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *seed).map_err(|_| GetRandomFailed)?;
        let kem = Box::new(DecapsulationKey::from_seed((*seed).into()));
        let classical = X25519.start()?;
        let share = [kem.encapsulation_key().to_bytes().as_slice(), classical.pub_key()].concat();
        Ok(Box::new(Started { kem, classical, share }))
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (public, peer) = peer.split_at_checked(PUBLIC_BYTES).ok_or(INVALID)?;
        let public = EncapsulationKey::new_from_slice(public).map_err(|_| INVALID)?;
        let classical = X25519.start_and_complete(peer)?;
        let mut message = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *message).map_err(|_| GetRandomFailed)?;
        let (ciphertext, secret) = public.encapsulate_deterministic(&(*message).into());
        let secret = Zeroizing::new(<[u8; 32]>::from(secret));
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_slice(), &classical.pub_key].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// ML-KEM's secret, then X25519's.
fn joined(kem: &[u8; 32], classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([&kem[..], classical.secret_bytes()].concat())
}

/// The client's side, between its share and the server's.
struct Started {
    kem: Box<DecapsulationKey>,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, peer) = peer.split_at_checked(CIPHERTEXT_BYTES).ok_or(INVALID)?;
        let secret = self.kem.decapsulate_slice(ciphertext).map_err(|_| INVALID)?;
        let secret = Zeroizing::new(<[u8; 32]>::from(secret));
        Ok(joined(&secret, &self.classical.complete(peer)?))
    }

    /// A server that knows X25519 alone answers this half, without asking again.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(peer)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_reach_one_secret_and_shares_have_the_sizes_of_the_draft() {
        let client = X25519MlKem768.start().unwrap();
        assert_eq!(client.pub_key().len(), 1_216);
        let server = X25519MlKem768.start_and_complete(client.pub_key()).unwrap();
        assert_eq!((server.pub_key.len(), server.secret.secret_bytes().len()), (1_120, 64));
        let secret = client.complete(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    }

    #[test]
    fn each_half_counts() {
        for changed in [0, CIPHERTEXT_BYTES] {
            let client = X25519MlKem768.start().unwrap();
            let server = X25519MlKem768.start_and_complete(client.pub_key()).unwrap();
            let mut share = server.pub_key.clone();
            share[changed] ^= 1;
            let secret = client.complete(&share).unwrap();
            assert_ne!(secret.secret_bytes(), server.secret.secret_bytes(), "byte {changed}");
        }
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        let client = || X25519MlKem768.start().unwrap();
        let share = client().pub_key().to_vec();
        for length in [0, 32, PUBLIC_BYTES, 1_215] {
            assert!(X25519MlKem768.start_and_complete(&share[..length]).is_err(), "{length}");
            assert!(client().complete(&share[..length.min(1_119)]).is_err(), "{length}");
        }
        let mut unreduced = share.clone();
        unreduced[..3].copy_from_slice(&[0xFF; 3]);
        assert!(X25519MlKem768.start_and_complete(&unreduced).is_err());
        let mut low_order = share;
        low_order[PUBLIC_BYTES..].fill(0);
        assert!(X25519MlKem768.start_and_complete(&low_order).is_err());
    }

    #[test]
    fn a_peer_without_the_group_gets_x25519_alone() {
        let client = X25519MlKem768.start().unwrap();
        let (group, share) = client.hybrid_component().unwrap();
        assert_eq!((group, share.len()), (NamedGroup::X25519, 32));
        let server = X25519.start_and_complete(share).unwrap();
        let secret = client.complete_hybrid_component(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    }
}
