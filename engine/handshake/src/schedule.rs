//! What a finished handshake leaves: the session secret, the chain value, and the two transport keys.

use core::fmt;

use obol_token::{SessionSecret, Suite};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::symmetric::{Symmetric, hmac, noise_hkdf};
use crate::transport::{Opener, Sealer};

/// The transcript: every key, every byte and every payload that was exchanged. Public. The service consumes the final
/// one once, so that a repeated third message is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HandshakeHash(pub [u8; 32]);

/// What the next session of the same identity must present. An old value says that the identity key has a copy.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ChainSecret([u8; 32]);

impl ChainSecret {
    /// The bytes, for sealing at rest and for the next handshake's third payload.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChainSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainSecret([redacted])")
    }
}

/// A finished handshake, on either side.
#[derive(Debug)]
pub struct Established {
    /// The final transcript.
    pub hash: HandshakeHash,
    /// What the session's keys are derived from, for each audience. Drop it once they are.
    pub secret: SessionSecret,
    /// What the next session presents.
    pub chain: ChainSecret,
    /// Seals what goes to the peer.
    pub send: Sealer,
    /// Opens what comes from the peer.
    pub receive: Opener,
}

/// Which end of the handshake this is.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Ends a handshake.
///
/// `(k1, k2, x)` are the three outputs of the Noise HKDF over the chaining key: the first two are those of the
/// specification's Split, and `x` is for
///
/// ```text
/// exporter      = HKDF-Extract(salt = h, IKM = x)
/// SessionSecret = HKDF-Expand(exporter, "obol-sN-session-v1", 32)        N: the suite's number
/// chain         = HKDF-Expand(exporter, "obol-sN-chain-v1", 32)
/// ```
pub(crate) fn establish(suite: Suite, state: &Symmetric, role: Role) -> Established {
    let [to_responder, to_initiator, extra] = noise_hkdf(state.chaining(), &[]);
    let exporter = hmac(state.hash(), &[&*extra]);
    let expand = |name: &[u8]| expand(&exporter, suite, name);
    let (send, receive) = match role {
        Role::Initiator => (to_responder, to_initiator),
        Role::Responder => (to_initiator, to_responder),
    };
    Established {
        hash: HandshakeHash(*state.hash()),
        secret: SessionSecret::from_bytes(*expand(b"session")),
        chain: ChainSecret(*expand(b"chain")),
        send: Sealer::new(suite, send),
        receive: Opener::new(suite, receive),
    }
}

/// The first block of HKDF-Expand under the label `obol-sN-NAME-v1`.
fn expand(exporter: &[u8; 32], suite: Suite, name: &[u8]) -> Zeroizing<[u8; 32]> {
    let digit = [b'0' + suite.number()];
    hmac(exporter, &[b"obol-s", &digit, b"-", name, b"-v1", &[1]])
}
