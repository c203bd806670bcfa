//! What a follower says: who it is and how far it has come, inside the handshake; and later, message by message, how far it
//! has come since.
//!
//! A word names its stream and its own number in clear, for it travels on a connection of its own: `stream ‖ number ‖ sealed`.
//! Under the stream's key a number counts once, and numbers rise, so nobody can repeat a word or put one in another's mouth.

use core::fmt;

use obol_secret::json::{Bounds, parse_within};
use obol_secret::text::{from_hex, to_hex};
use obol_session::{Cursor, SessionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most values in a word, and how deep it may be nested.
const BOUNDS: Bounds = Bounds { values: 64, depth: 4 };

/// A stream's random name. It is not a secret: words are sealed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub [u8; 16]);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        from_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("32 hex digits are expected"))
    }
}

/// What a follower says of itself inside the handshake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// How far it has come; nothing where it knows nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// Its software and version.
    #[serde(default)]
    pub client: String,
    /// Its time, in Unix seconds.
    pub now: u64,
    /// For how long it goes on without hearing anything, in seconds, where it decides that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_secs: Option<u64>,
}

/// What a follower says on its stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// Everything up to this number was applied, and is kept where anything is kept.
    Applied {
        /// The number.
        seq: u64,
    },
    /// An operator flushed the sidecar, which takes no session until somebody resumes it.
    Flushed {
        /// When, in Unix seconds of the sidecar's clock: it tells one flush from another.
        since: u64,
        /// What was flushed.
        scope: String,
        /// Why.
        reason: String,
    },
    /// An agent says that somebody else spent a token of its. It may be lying: it is an alarm, and no more.
    TokenStolen {
        /// The session that the token was from, where the agent knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// The resource server that it was for.
        audience: String,
        /// The tool that it was for.
        tool: String,
        /// How often it was said since the last such word, beyond what is told one by one.
        unsaid: u64,
    },
}

/// The bytes are not a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WordError;

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a word of a follower")
    }
}

impl core::error::Error for WordError {}

impl Word {
    /// As it is sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and numbers alone, which can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one that was opened.
    ///
    /// # Errors
    ///
    /// [`WordError`].
    pub fn read(bytes: &[u8]) -> Result<Self, WordError> {
        parse_within(bytes, BOUNDS).map_err(|_| WordError)
    }

    /// As it travels.
    pub fn envelope(stream: StreamId, number: u64, sealed: &[u8]) -> Vec<u8> {
        [&stream.0[..], &number.to_be_bytes(), sealed].concat()
    }

    /// The stream, the number and what is sealed under it.
    ///
    /// # Errors
    ///
    /// [`WordError`] where it is too short.
    pub fn open_envelope(bytes: &[u8]) -> Result<(StreamId, u64, &[u8]), WordError> {
        let (stream, rest) = bytes.split_first_chunk().ok_or(WordError)?;
        let (number, sealed) = rest.split_first_chunk().ok_or(WordError)?;
        Ok((StreamId(*stream), u64::from_be_bytes(*number), sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stolen(session: Option<SessionId>) -> Word {
        Word::TokenStolen { session, audience: "https://a".to_owned(), tool: "pay".to_owned(), unsaid: 2 }
    }

    #[test]
    fn words_are_read_as_they_are_written_and_nothing_else_is() {
        for word in [
            Word::Applied { seq: 7 },
            Word::Flushed { since: 9, scope: "all".to_owned(), reason: "drill".to_owned() },
            stolen(Some(SessionId::from_u64(7))),
            stolen(None),
        ] {
            assert_eq!(Word::read(&word.to_bytes()), Ok(word));
        }
        for bad in [
            "",
            "{}",
            r#"{"kind":"applied"}"#,
            r#"{"kind":"applied","seq":1,"seq":2}"#,
            r#"{"kind":"x","seq":1}"#,
            r#"{"kind":"applied","seq":1,"more":2}"#,
            r#"{"kind":"applied","seq":-1}"#,
            r#"{"kind":"token_stolen","audience":"a","tool":"t"}"#,
            r#"{"kind":"token_stolen","audience":"a","tool":"t","unsaid":0,"token":"x"}"#,
        ] {
            assert_eq!(Word::read(bad.as_bytes()), Err(WordError), "{bad}");
        }
    }

    #[test]
    fn an_envelope_says_which_stream_and_number() {
        let bytes = Word::envelope(StreamId([5; 16]), 3, b"sealed");
        assert_eq!(Word::open_envelope(&bytes), Ok((StreamId([5; 16]), 3, &b"sealed"[..])));
        assert_eq!(Word::open_envelope(&bytes[..23]), Err(WordError));
    }
}
