//! The service's side.

use zeroize::Zeroizing;

use crate::cookie::{CookieError, CookieRing, STATE_BYTES};
use crate::error::HandshakeError;
use crate::header::{Header, Prologue, Purpose};
use crate::kem;
use crate::keys::{IdentityKey, IdentityPublic, Random, StaticAgreement};
use crate::pattern::{self, DH_BYTES, PROOF_OVERHEAD_BYTES, TAG_BYTES};
use crate::schedule::{Established, HandshakeHash, Role, establish};
use crate::symmetric::{Opening, Parts, Symmetric};

/// Where the service begins.
#[derive(Debug)]
pub struct Responder;

impl Responder {
    /// Reads message A and gives the second Noise message: `e, ee` (in suite 4 `e, ee, ekem1`) with `payload`.
    ///
    /// `origin` is the service's own; the client's is not in the message, only in the transcript. The length is
    /// checked before anything is computed. Nothing about the client is known yet.
    ///
    /// # Errors
    ///
    /// If the message is not the first of a handshake with one of `keys`, at this origin.
    pub fn accept(
        origin: &str,
        keys: &dyn StaticAgreement,
        hello: &[u8],
        payload: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(Pending, Vec<u8>), HandshakeError> {
        let (header, message) =
            hello.split_first_chunk::<{ Header::BYTES }>().ok_or(HandshakeError::Length)?;
        let header = Header::read(header)?;
        if hello.len() != pattern::hello_bytes(header.suite) {
            return Err(HandshakeError::Length);
        }
        let prologue = Prologue::new(header, origin)?;
        let authority = keys.public(header.authority_key).ok_or(HandshakeError::UnknownAuthorityKey)?;
        let (peer, rest) = message.split_first_chunk::<DH_BYTES>().ok_or(HandshakeError::Length)?;

        let mut opening = Opening::new(header.suite);
        opening.mix_hash(&prologue.to_bytes());
        opening.mix_hash(&authority.0);
        opening.mix_hash(peer);
        let mut state = opening.mix_key(keys.agree(header.authority_key, peer)?.expose());

        let (sealed_kem, sealed_payload) = rest.split_at(rest.len().saturating_sub(TAG_BYTES));
        let kem_public = match pattern::is_hybrid(header.suite) {
            true => Some(state.decrypt_and_hash(sealed_kem)?),
            false => None,
        };
        state.decrypt_and_hash(sealed_payload)?;

        let ephemeral = IdentityKey::generate(rng);
        let public = ephemeral.public().0;
        let mut reply = Vec::with_capacity(pattern::reply_overhead_bytes(header.suite) + payload.len());
        reply.extend_from_slice(&public);
        state.mix_hash(&public);
        state.mix_key(ephemeral.agree(peer)?.expose());
        if let Some(kem_public) = kem_public {
            let (ciphertext, secret) = kem::encapsulate(&kem_public, rng)?;
            reply.extend_from_slice(&state.encrypt_and_hash(&ciphertext)?);
            state.mix_key(&secret);
        }
        reply.extend_from_slice(&state.encrypt_and_hash(payload)?);
        Ok((Pending { header, state, ephemeral }, reply))
    }
}

/// Between the second message and the third. The service seals it into the cookie and keeps nothing.
pub struct Pending {
    header: Header,
    state: Symmetric,
    ephemeral: IdentityKey,
}

impl Pending {
    /// The cookie that stands for this state, for [`crate::VALIDITY_SECS`] seconds from `now` (Unix seconds).
    pub fn seal(self, ring: &CookieRing, now: u64, rng: &mut dyn Random) -> Vec<u8> {
        let purpose = self.header.purpose;
        ring.seal(purpose, &self.into_bytes(), now, rng)
    }

    /// The state that a cookie of this ring stands for.
    ///
    /// # Errors
    ///
    /// If it is not a cookie of this ring, was made for another purpose, or is too old.
    pub fn open(cookie: &[u8], purpose: Purpose, ring: &CookieRing, now: u64) -> Result<Self, CookieError> {
        let bytes = ring.open(cookie, purpose, now)?;
        Self::from_bytes(&bytes)
            .filter(|pending| pending.header.purpose == purpose)
            .ok_or(CookieError::Forged)
    }

    /// What the client said in clear.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The transcript after the second message, for proofs inside the third payload.
    pub fn hash(&self) -> HandshakeHash {
        HandshakeHash(*self.state.hash())
    }

    /// Reads the third Noise message: the client's static key, and its payload.
    ///
    /// # Errors
    ///
    /// If it does not belong to this handshake. Nothing about the client is known then.
    pub fn finish(mut self, message: &[u8]) -> Result<Proven, HandshakeError> {
        if message.len() < PROOF_OVERHEAD_BYTES {
            return Err(HandshakeError::Length);
        }
        let (sealed_key, sealed_payload) = message.split_at(DH_BYTES + TAG_BYTES);
        let before = self.hash();
        let key = self.state.decrypt_and_hash(sealed_key)?;
        let identity: [u8; 32] = key.as_slice().try_into().map_err(|_| HandshakeError::Length)?;
        self.state.mix_key(self.ephemeral.agree(&identity)?.expose());
        let payload = self.state.decrypt_and_hash(sealed_payload)?;
        Ok(Proven {
            header: self.header,
            identity: IdentityPublic(identity),
            payload,
            hash_before_proof: before,
            established: establish(self.header.suite, &self.state, Role::Responder),
        })
    }

    fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        // The nonce is 1, always: each handshake has sealed exactly one payload since the last key was mixed in.
        let Parts { chaining, hash, key, nonce: _ } = self.state.into_parts();
        let mut bytes = Zeroizing::new(Vec::with_capacity(STATE_BYTES));
        bytes.extend_from_slice(&self.header.to_bytes());
        for part in [self.ephemeral.expose(), &*chaining, &hash, &*key] {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<{ Header::BYTES }>()?;
        let [ephemeral, chaining, hash, key] = rest.as_chunks::<32>().0 else { return None };
        let header = Header::read(header).ok()?;
        let parts =
            Parts { chaining: Zeroizing::new(*chaining), hash: *hash, key: Zeroizing::new(*key), nonce: 1 };
        let state = Symmetric::from_parts(header.suite, parts);
        Some(Self { header, state, ephemeral: IdentityKey::from_bytes(ephemeral) })
    }
}

impl core::fmt::Debug for Pending {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pending").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The client has proven that it holds its static key. Whether that key means anything is the service's to decide.
#[derive(Debug)]
pub struct Proven {
    /// What the client said in clear, now authenticated.
    pub header: Header,
    /// The client's static key.
    pub identity: IdentityPublic,
    /// What the client sent with its proof.
    pub payload: Zeroizing<Vec<u8>>,
    /// The transcript before the third message, which proofs inside the payload are made over.
    pub hash_before_proof: HandshakeHash,
    /// Keys and transcript.
    pub established: Established,
}
