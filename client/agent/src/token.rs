//! A token that was drawn, for a client of one's own.

use core::fmt;

use bytes::Bytes;
use http::HeaderValue;
use obol_ipc::message::DequeueTokenResult;
use obol_ipc::proof::ArgumentsHash;

use crate::arguments::{Channel, hash};
use crate::error::{Code, Error};

/// A token: good for one request. It prints as a redaction and is wiped when dropped.
pub struct Token(pub(crate) DequeueTokenResult);

impl Token {
    /// The token itself. Put it into the one request it is for and nowhere else: no log, no error, no disk.
    pub fn expose(&self) -> &str {
        self.0.token.expose()
    }

    /// When it expires, in Unix seconds.
    pub const fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// The proof of possession to send beside it, where it asks for one.
    pub fn proof(&self) -> Option<String> {
        self.0.pop.map(|proof| proof.sig.to_string())
    }

    /// Everything that the sidecar said, channel keys included.
    pub const fn details(&self) -> &DequeueTokenResult {
        &self.0
    }

    /// What seals the arguments and opens the answer, where it asks for that.
    ///
    /// # Errors
    ///
    /// [`Code::ProtocolError`] for what no sidecar gives.
    pub fn channel(&self) -> Result<Option<Channel>, Error> {
        self.0.channel.as_ref().map(Channel::of).transpose()
    }

    /// The `Authorization` header, marked as one that is not to be printed.
    ///
    /// # Errors
    ///
    /// Never for what a sidecar gives.
    pub fn authorization(&self) -> Result<HeaderValue, Error> {
        sensitive(&format!("TBAC {}", self.expose()))
    }
}

/// What a proof of possession is asked over: the hash of arguments, one JSON object. `None` where they have no canonical form: it
/// is no object, or has a number that not everybody reads alike.
pub fn arguments_hash(arguments: &[u8]) -> Option<ArgumentsHash> {
    hash(&Bytes::copy_from_slice(arguments))
}

pub(crate) fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Error::new(Code::Unavailable, "the sidecar's token cannot be a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}
