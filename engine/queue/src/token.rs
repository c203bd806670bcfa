//! A token that was drawn, and what can be had of it: its name, its channel keys, a proof of possession.

use core::fmt;

use obol_token::{ChannelKeys, Envelope, Jti, SessionId, possession_transcript};
use zeroize::Zeroizing;

use crate::grant::Grant;
use crate::store::TokenBytes;

/// A token that has been handed out: the last state on the agent's side. It exists once; dropping it wipes it.
pub struct Token {
    bytes: TokenBytes,
    session_id: SessionId,
    expires_at: u64,
    asks_for_channel: bool,
}

impl Token {
    pub(crate) fn new(
        bytes: TokenBytes,
        session_id: SessionId,
        expires_at: u64,
        asks_for_channel: bool,
    ) -> Self {
        Self { bytes, session_id, expires_at, asks_for_channel }
    }

    /// The token's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The token as it travels: base64url without padding. Wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(obol_token::text::to_base64url(&self.bytes))
    }

    /// The token's name, which is in its clear header; `None` for a token of another format.
    pub fn jti(&self) -> Option<Jti> {
        Envelope::parse(self.as_bytes()).ok().map(|envelope| envelope.jti())
    }

    /// The session the token was minted in.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// When the token ends, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Whether its call is to be sealed: see [`Queue::channel_keys`](crate::Queue::channel_keys).
    pub(crate) fn asks_for_channel(&self) -> bool {
        self.asks_for_channel
    }

    /// Its channel keys, which lie in the token itself, sealed under the session's key, and nowhere else: not in a row, not
    /// in memory. So they are gone with the token, and a flush that destroys the one destroys the other.
    pub(crate) fn channel_keys(&self, grant: &Grant) -> Option<ChannelKeys> {
        let envelope = Envelope::parse(self.as_bytes()).ok()?;
        let body = grant.material.open(&envelope).ok()?;
        Some(grant.material.channel_keys(&envelope.jti(), &body.response_key()))
    }

    /// A proof of possession over the hash of a call's arguments. The key is the session's and never leaves it.
    pub(crate) fn prove(&self, grant: &Grant, arguments_hash: &[u8; 32]) -> Option<[u8; 64]> {
        let key = grant.pop_key.as_ref()?;
        Some(key.sign(&possession_transcript(self.session_id, &self.jti()?, arguments_hash)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("session_id", &self.session_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
