//! Proofs of possession, for whoever draws a token that asks for one.
//!
//! The key is the session's and never leaves it. Whoever draws says over which arguments the proof is wanted; it is good for
//! them and for that one token.

use obol_token::{Envelope, possession_transcript};

use crate::batch::Token;
use crate::error::DequeueError;
use crate::grant::Grant;
use crate::queue::{Draw, Queue};

impl Queue {
    /// Whether a token that this draw gives asks for a proof of possession, and this queue makes it: without
    /// [`Self::prove`] the token is good for nothing. Not so where the session came without a key for proofs: somebody
    /// else has it.
    ///
    /// # Errors
    ///
    /// As [`Queue::dequeue`], but for an empty queue.
    pub fn makes_proofs<'a>(&self, draw: impl Into<Draw<'a>>) -> Result<bool, DequeueError> {
        self.with_partition(&draw.into(), |_, partition| Ok(partition.grant.pop_key.is_some()))
    }

    /// A proof of possession for a token that this draw gave: an Ed25519 signature over the token and the SHA-256 of the
    /// call's arguments in canonical form (RFC 8785). `None` where [`Self::makes_proofs`] says no.
    ///
    /// # Errors
    ///
    /// [`DequeueError::SessionFlushed`] or [`DequeueError::NoSession`] where the session ended since the draw. The token
    /// must then not be used either.
    pub fn prove<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        token: &Token,
        arguments_hash: &[u8; 32],
    ) -> Result<Option<[u8; 64]>, DequeueError> {
        let draw = Draw { session: Some(token.session_id()), ..draw.into() };
        self.with_partition(&draw, |_, partition| Ok(sign(&partition.grant, token, arguments_hash)))
    }
}

fn sign(grant: &Grant, token: &Token, arguments_hash: &[u8; 32]) -> Option<[u8; 64]> {
    let key = grant.pop_key.as_ref()?;
    let jti = Envelope::parse(token.as_bytes()).ok()?.jti();
    Some(key.sign(&possession_transcript(token.session_id(), &jti, arguments_hash)))
}
