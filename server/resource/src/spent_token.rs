//! What the handler gets: proof that a token was spent for this request.

use core::fmt;
use std::sync::Arc;

use obol_token::{ChannelKeys, Jti, Scope, SessionId};
use obol_verify::Spent;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::sealed::{MAX_SEALED_BYTES, SealedMessage};

/// A token that was spent for this request. [`crate::TbacLayer`] puts it into the request; as an axum extractor it
/// hands it to the handler, and answers 500 on a route that has no such layer.
#[derive(Clone)]
pub struct SpentToken(Arc<Contents>);

struct Contents {
    session_id: SessionId,
    jti: Jti,
    channel: Mutex<Option<ChannelKeys>>,
    opened: Option<Map<String, Value>>,
    scope: Scope,
}

/// Why a response cannot be sealed. It must then not be sent at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResponseSealError {
    /// The channel keys were taken, or a response was sealed before. The nonce of a token's response is fixed, so a
    /// second one would give both away.
    UsedUp,
    /// The response is longer than [`MAX_SEALED_BYTES`].
    TooLong,
    /// The cipher refused.
    Cipher,
}

impl fmt::Display for ResponseSealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedUp => f.write_str("the token has sealed its one response"),
            Self::TooLong => {
                write!(
                    f,
                    "a response of more than {MAX_SEALED_BYTES} bytes cannot be sealed; send it in parts"
                )
            }
            Self::Cipher => f.write_str("the response cannot be encrypted"),
        }
    }
}

impl core::error::Error for ResponseSealError {}

impl SpentToken {
    pub(crate) fn new(mut spent: Spent) -> Self {
        Self(Arc::new(Contents {
            session_id: spent.session_id(),
            jti: spent.jti(),
            channel: Mutex::new(spent.take_channel_keys()),
            opened: spent.take_opened_arguments(),
            scope: spent.into_scope(),
        }))
    }

    /// What the token allows. The handler must keep the limits that only it can keep: `max_rows`, `time_window_sec`
    /// and `data_classification`.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// The token's name inside its session.
    pub fn jti(&self) -> Jti {
        self.0.jti
    }

    /// The token's session.
    pub fn session_id(&self) -> SessionId {
        self.0.session_id
    }

    /// The arguments, where the request brought them sealed. The response to such a request must be sealed as well
    /// ([`Self::seal_response`]).
    pub fn opened_arguments(&self) -> Option<&Map<String, Value>> {
        self.0.opened.as_ref()
    }

    /// Seals the one response of this token (TBAC r41, sections 9.1 and 10.4).
    ///
    /// # Errors
    ///
    /// [`ResponseSealError`] if the keys were used before, or the response is too long. It must then not be sent in the clear.
    pub fn seal_response(&self, plaintext: &[u8]) -> Result<SealedMessage, ResponseSealError> {
        if plaintext.len() > MAX_SEALED_BYTES {
            return Err(ResponseSealError::TooLong);
        }
        let keys = self.take_channel_keys().ok_or(ResponseSealError::UsedUp)?;
        let (iv, algorithm) = (*keys.response_iv(), keys.algorithm());
        let ciphertext = keys.seal_response(plaintext).map_err(|_| ResponseSealError::Cipher)?;
        let message = SealedMessage::new(iv, ciphertext).map_err(|_| ResponseSealError::Cipher)?;
        Ok(message.of_algorithm(algorithm))
    }

    /// Takes the token's channel keys. The first who asks gets them, among all clones: a token seals one response.
    pub fn take_channel_keys(&self) -> Option<ChannelKeys> {
        self.0.channel.lock().take()
    }
}

impl fmt::Debug for SpentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpentToken").field("session_id", &self.0.session_id).finish_non_exhaustive()
    }
}
