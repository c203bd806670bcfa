//! The client's side: an agent, or a resource server.

use obol_token::Suite;
use zeroize::Zeroizing;

use crate::error::HandshakeError;
use crate::header::{Header, Prologue};
use crate::kem::{CIPHERTEXT_BYTES, KemKey};
use crate::keys::{AuthorityKey, IdentityKey, Random};
use crate::message;
use crate::pattern::{self, DH_BYTES, TAG_BYTES};
use crate::schedule::{Established, HandshakeHash, Role, establish};
use crate::symmetric::{Opening, Symmetric};

/// Where a client begins.
#[derive(Debug)]
pub struct Initiator;

impl Initiator {
    /// Gives message A: the header, and `e, es` (in suite 4 `e, es, e1`) with an empty payload.
    ///
    /// # Errors
    ///
    /// If the service's key is of low order, or not the one that the header names.
    pub fn start(
        prologue: &Prologue,
        authority: &AuthorityKey,
        rng: &mut dyn Random,
    ) -> Result<(AwaitsReply, Vec<u8>), HandshakeError> {
        let header = *prologue.header();
        if authority.id() != header.authority_key {
            return Err(HandshakeError::UnknownAuthorityKey);
        }
        let ephemeral = IdentityKey::generate(rng);
        let public = ephemeral.public().0;

        let mut opening = Opening::new(header.suite);
        opening.mix_hash(&prologue.to_bytes());
        opening.mix_hash(&authority.0);
        opening.mix_hash(&public);
        let mut state = opening.mix_key(ephemeral.agree(&authority.0)?.expose());

        let mut hello = Vec::with_capacity(pattern::hello_bytes(header.suite));
        hello.extend_from_slice(&header.to_bytes());
        hello.extend_from_slice(&public);
        let kem = pattern::is_hybrid(header.suite).then(|| KemKey::generate(rng));
        if let Some(kem) = &kem {
            hello.extend_from_slice(&state.encrypt_and_hash(&kem.public())?);
        }
        hello.extend_from_slice(&state.encrypt_and_hash(&[])?);
        Ok((AwaitsReply { header, state, ephemeral, kem }, hello))
    }
}

/// Message A was sent.
pub struct AwaitsReply {
    header: Header,
    state: Symmetric,
    ephemeral: IdentityKey,
    kem: Option<KemKey>,
}

impl AwaitsReply {
    /// Reads message B and gives its payload, which the service has authenticated.
    ///
    /// # Errors
    ///
    /// If it is not an answer of the service whose key was named, to the message that was sent.
    pub fn read(mut self, reply: &[u8]) -> Result<(ReadyToProve, Zeroizing<Vec<u8>>), HandshakeError> {
        let (cookie, message) = message::split(reply)?;
        let (peer, mut rest) = message.split_first_chunk::<DH_BYTES>().ok_or(HandshakeError::Length)?;
        self.state.mix_hash(peer);
        self.state.mix_key(self.ephemeral.agree(peer)?.expose());
        if let Some(kem) = &self.kem {
            let (sealed, behind) =
                rest.split_at_checked(CIPHERTEXT_BYTES + TAG_BYTES).ok_or(HandshakeError::Length)?;
            let ciphertext = self.state.decrypt_and_hash(sealed)?;
            self.state.mix_key(&*kem.decapsulate(&ciphertext)?);
            rest = behind;
        }
        let payload = self.state.decrypt_and_hash(rest)?;
        let ready =
            ReadyToProve { header: self.header, state: self.state, peer: *peer, cookie: cookie.to_vec() };
        Ok((ready, payload))
    }
}

/// The service has answered and is authenticated; the client has yet to prove who it is.
pub struct ReadyToProve {
    header: Header,
    state: Symmetric,
    peer: [u8; 32],
    cookie: Vec<u8>,
}

impl ReadyToProve {
    /// The transcript so far, for proofs inside the payload (see [`crate::SekKey::prove`]).
    pub fn hash(&self) -> HandshakeHash {
        HandshakeHash(*self.state.hash())
    }

    /// The suite of this handshake.
    pub fn suite(&self) -> Suite {
        self.header.suite
    }

    /// Gives message C: `s, se` with the payload.
    ///
    /// # Errors
    ///
    /// If the message would be longer than [`crate::MAX_MESSAGE_BYTES`], or the service's key is of low order.
    pub fn prove(
        mut self,
        own: &IdentityKey,
        payload: &[u8],
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        let mut proof = self.state.encrypt_and_hash(&own.public().0)?;
        self.state.mix_key(own.agree(&self.peer)?.expose());
        proof.extend_from_slice(&self.state.encrypt_and_hash(payload)?);
        let message = message::join(&self.cookie, &proof)?;
        Ok((establish(self.header.suite, &self.state, Role::Initiator), message))
    }
}

impl core::fmt::Debug for AwaitsReply {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AwaitsReply").field("header", &self.header).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for ReadyToProve {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReadyToProve").field("header", &self.header).finish_non_exhaustive()
    }
}
