//! The secrets that pass through the sockets: tokens and their channel keys on their way to the agent, session documents on
//! their way in.
//!
//! All are wiped when dropped, cannot be cloned or compared, and print as a redaction.

use core::fmt;

use obol_secret::text::{base64url_len, write_base64url};
use obol_secret::wipe::{Wiped, WipedText};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::binary::{Binary, BinaryError, Input, Output};
use crate::frame::{EncodeError, MAX_BODY_BYTES};
use crate::names::ValueError;

macro_rules! base64url_secret {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        pub struct $name(Wiped);

        impl $name {
            /// Takes over the text.
            ///
            /// # Errors
            ///
            /// [`ValueError`] when the text is empty, longer than a frame, or not base64url without padding. It is wiped.
            pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
                Self::checked(Wiped::text(text.into()))
            }

            fn checked(text: Wiped) -> Result<Self, ValueError> {
                if text.is_empty() || text.len() > MAX_BODY_BYTES || !is_base64url(&text) {
                    return Err(ValueError::new($what, "base64url text without padding that fits one frame"));
                }
                Ok(Self(text))
            }

            /// The secret itself. Put it into the call it is for and nowhere else: no log, no error, no disk.
            pub fn expose(&self) -> &str {
                // Nothing but letters of base64url gets in here.
                str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl Binary for $name {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                // Without a look at whether they are text.
                let letters: &[u8] = &self.0;
                output.plain(letters)
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::checked(Wiped::new(input.bytes()?.to_vec()))?)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.expose())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;

                impl Visitor<'_> for TextVisitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!($what, ": base64url text without padding"))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(TextVisitor)
            }
        }
    };
}

/// Bytes of a text that are looked at together.
const LANES: usize = 32;

/// Each token passes here twice on its way. So all of it is looked at whatever is found, which a processor does for many
/// bytes at once.
fn is_base64url(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    let (chunks, rest) = text.as_chunks::<LANES>();
    let mut good = [true; LANES];
    for chunk in chunks {
        for (good, byte) in good.iter_mut().zip(chunk) {
            *good &= allowed(byte);
        }
    }
    good.iter().all(|good| *good) && rest.iter().all(allowed)
}

base64url_secret! {
    /// A single-use token as text: base64url without padding. Whoever holds it can spend it, once.
    TokenText, "token"
}

impl TokenText {
    /// The text of a token's bytes.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when there are none, or the text would not fit a frame.
    #[expect(
        clippy::slow_vector_initialization,
        reason = "memory that comes zeroed is not what was freed last"
    )]
    pub fn encode(token: &[u8]) -> Result<Self, ValueError> {
        let length = base64url_len(token.len()).filter(|length| (1..=MAX_BODY_BYTES).contains(length));
        let text = length.and_then(|length| {
            let mut text = Vec::with_capacity(length);
            text.resize(length, 0);
            write_base64url(token, &mut text)?;
            Some(Self(Wiped::new(text)))
        });
        text.ok_or_else(|| ValueError::new("token", "bytes, so many that their text fits one frame"))
    }
}

base64url_secret! {
    /// A part of a token's channel as text: base64url without padding. Whoever holds the keys can read the one request and
    /// the one response of that token.
    ChannelText, "channel"
}

base64url_secret! {
    /// What somebody presents once to be let in, as text: base64url without padding. Whoever holds it is let in.
    TicketText, "ticket"
}

/// A piece of a session document's text, where the whole is too long for one frame. It means nothing by itself.
pub struct SessionPartText(WipedText);

/// The longest piece, in bytes: each of its characters may take two in a frame.
pub const MAX_PART_BYTES: usize = 24 << 10;

impl SessionPartText {
    /// Takes over a piece.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when it is empty or longer than [`MAX_PART_BYTES`]. It is wiped.
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = WipedText::new(text.into());
        match (1..=MAX_PART_BYTES).contains(&text.len()) {
            true => Ok(Self(text)),
            false => Err(ValueError::new("text", "1 to 24576 bytes of a session document")),
        }
    }

    /// Cuts a document into pieces, in order.
    pub fn pieces(mut document: &str) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let end =
                (0..=MAX_PART_BYTES.min(document.len())).rev().find(|end| document.is_char_boundary(*end))?;
            let (piece, rest) = document.split_at(end);
            document = rest;
            Self::new(piece).ok()
        })
    }

    /// The piece, keys included.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionPartText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionPartText([redacted])")
    }
}

impl Binary for SessionPartText {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self.expose())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(String::take(input)?)?)
    }
}

impl Serialize for SessionPartText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SessionPartText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A signed token of somebody else that stands in for a human when an agent registers: a compact JWS. Until it is spent, whoever
/// holds it may register an agent.
pub struct AssertionText(WipedText);

/// The longest such token, in bytes.
pub const MAX_ASSERTION_BYTES: usize = 8 << 10;

impl AssertionText {
    /// Takes over a token.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when it is empty, longer than [`MAX_ASSERTION_BYTES`], or not base64url with dots. It is wiped.
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = WipedText::new(text.into());
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match (1..=MAX_ASSERTION_BYTES).contains(&text.len()) && text.bytes().all(is_letter) {
            true => Ok(Self(text)),
            false => {
                Err(ValueError::new("assertion", "a signed token of three parts, in at most 8192 bytes"))
            }
        }
    }

    /// The token itself. Show it to the service and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AssertionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionText([redacted])")
    }
}

impl Binary for AssertionText {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self.expose())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(String::take(input)?)?)
    }
}

impl Serialize for AssertionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for AssertionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A session document: the text of one JSON object that carries session keys. Its members are none of this crate's
/// business; only that it is one well-formed JSON object is checked.
pub struct SessionDocumentText(WipedText);

impl SessionDocumentText {
    /// Takes over the text of a JSON object.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when the text is not exactly one JSON object. The text is wiped.
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = WipedText::new(text.into());
        match raw_object(&text) {
            Some(object) if object.get().len() == text.len() => Ok(Self(text)),
            // Surrounding white space is not part of the object, and would not survive the JSON codec.
            Some(object) => Ok(Self(WipedText::new(object.get().to_owned()))),
            None => Err(ValueError::new("session", "one JSON object, the session document")),
        }
    }

    /// The document's text, keys included.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn raw_object(text: &str) -> Option<&RawValue> {
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().starts_with('{'))
}

impl fmt::Debug for SessionDocumentText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionDocumentText([redacted])")
    }
}

impl Binary for SessionDocumentText {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(self.expose())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(String::take(input)?)?)
    }
}

impl Serialize for SessionDocumentText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        raw_object(&self.0).ok_or_else(|| ser::Error::custom("not a JSON object"))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SessionDocumentText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Moves the text without copying it, so that no copy is left behind unwiped.
        let text = Box::<str>::from(Box::<RawValue>::deserialize(deserializer)?);
        Self::new(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_encoded_as_whoever_reads_it_expects() {
        for length in [1, 2, 3, 23, 24, 25, 449, 450, 451, MAX_BODY_BYTES / 4 * 3] {
            let bytes: Vec<u8> = (0..length).map(|place| u8::try_from(place * 7 % 256).unwrap()).collect();
            let text = TokenText::encode(&bytes).unwrap();
            assert_eq!(
                obol_secret::text::from_base64url(text.expose().as_bytes(), MAX_BODY_BYTES),
                Ok(bytes)
            );
            assert!(TokenText::new(text.expose()).is_ok());
        }
        for length in [0, MAX_BODY_BYTES / 4 * 3 + 1] {
            assert!(TokenText::encode(&vec![0; length]).is_err(), "{length}");
        }
    }

    #[test]
    fn secrets_print_as_a_redaction() {
        let token = TokenText::new("c2VjcmV0").unwrap();
        let channel = ChannelText::new("c2VjcmV0").unwrap();
        let document = SessionDocumentText::new(r#"{"key":"c2VjcmV0"}"#).unwrap();
        let part = SessionPartText::new(r#""c2VjcmV0"}"#).unwrap();
        let ticket = TicketText::new("c2VjcmV0").unwrap();
        assert!(!format!("{token:?} {channel:?} {document:?} {part:?} {ticket:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn pieces_are_a_document_cut_between_characters() {
        for document in ["{}".to_owned(), "é".repeat(MAX_PART_BYTES), "x".repeat(3 * MAX_PART_BYTES)] {
            let pieces: Vec<_> = SessionPartText::pieces(&document).collect();
            assert!(pieces.iter().all(|piece| piece.expose().len() <= MAX_PART_BYTES));
            let whole: String = pieces.iter().map(SessionPartText::expose).collect();
            assert_eq!(whole, document);
        }
        assert_eq!(SessionPartText::pieces("").count(), 0);
        for wrong in [String::new(), "x".repeat(MAX_PART_BYTES + 1)] {
            assert!(SessionPartText::new(wrong).is_err());
        }
    }

    #[test]
    fn a_token_is_unpadded_base64url() {
        assert_eq!(TokenText::new("aB3-_").unwrap().expose(), "aB3-_");
        for refused in ["", "a=", "a+", "a/", "a b", "\u{e9}"] {
            assert!(TokenText::new(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_wrong_letter_is_found_wherever_it_stands() {
        let text = "aZ09-_".repeat(20);
        assert!(TokenText::new(text.as_str()).is_ok());
        for place in 0..text.len() {
            let mut wrong = text.clone();
            wrong.replace_range(place..=place, "=");
            assert!(TokenText::new(wrong).is_err(), "at {place}");
        }
    }

    #[test]
    fn a_session_document_is_one_json_object_and_nothing_else() {
        assert_eq!(SessionDocumentText::new(" {\"a\":1} ").unwrap().expose(), "{\"a\":1}");
        for refused in ["", "[]", "1", "null", "{", "{}{}", "{} x", "\"{}\"", "{'a':1}"] {
            assert!(SessionDocumentText::new(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn refusing_a_session_document_does_not_repeat_it() {
        let error = serde_json::from_str::<SessionDocumentText>(r#"["c2VjcmV0"]"#).unwrap_err().to_string();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
