//! The channel keys of a token, for whoever draws it.
//!
//! They lie in the token itself, sealed under the session's key, and nowhere else: not in a row, not in memory. Here a token
//! that was drawn is opened with the session that it came from. So they are gone with the token, and a flush that
//! destroys the one destroys the other.

use obol_token::{ChannelKeys, Envelope};

use crate::batch::Token;
use crate::error::DequeueError;
use crate::grant::Grant;
use crate::queue::{Draw, Queue};

impl Queue {
    /// The keys to seal the request of a token that this draw gave, and to open its response; `None` for a token that does
    /// not ask for channel encryption, and for one of another format.
    ///
    /// # Errors
    ///
    /// [`DequeueError::SessionFlushed`] or [`DequeueError::NoSession`] where the session ended since the draw. The token
    /// must then not be used either.
    pub fn channel_keys<'a>(
        &self,
        draw: impl Into<Draw<'a>>,
        token: &Token,
    ) -> Result<Option<ChannelKeys>, DequeueError> {
        if !token.asks_for_channel() {
            return Ok(None);
        }
        let draw = draw.into();
        let current = self.shared.current.load();
        if let Some(session) = current.as_ref().filter(|session| session.id == token.session_id()) {
            return self.on_route(session, &draw, |_, partition| Ok(keys(&partition.grant, token)));
        }
        // Another session was provisioned since.
        let draw = Draw { session: Some(token.session_id()), ..draw };
        self.with_partition(&draw, |_, partition| Ok(keys(&partition.grant, token)))
    }
}

fn keys(grant: &Grant, token: &Token) -> Option<ChannelKeys> {
    let envelope = Envelope::parse(token.as_bytes()).ok()?;
    let body = grant.material.open(&envelope).ok()?;
    Some(grant.material.channel_keys(&envelope.jti(), &body.response_key()))
}
