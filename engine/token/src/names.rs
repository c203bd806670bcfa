//! The names that a token, a session's documents and the local sockets have in common: of a session, of a resource
//! server, of a tool and of a running agent. A name that exists is a valid one.
//!
//! Without the crate's default features this module is all there is, and no cryptography is linked.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The longest name of a tool or of a running agent, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest audience, in bytes: room for any URL a resource server is likely to be named by.
pub const MAX_AUDIENCE_BYTES: usize = 2_048;

/// A value that breaks its rule. The message names the value and states the rule; it never repeats the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError {
    name: &'static str,
    rule: &'static str,
}

impl ValueError {
    /// The value of this name must be what the rule says.
    pub const fn new(name: &'static str, rule: &'static str) -> Self {
        Self { name, rule }
    }

    /// The offending value's name, as the JSON field spells it.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.name, self.rule)
    }
}

impl core::error::Error for ValueError {}

/// A value that is written as text and has a rule.
pub trait Text: Sized {
    /// What it is called, as the JSON field spells it.
    const NAME: &'static str;
    /// What it must be.
    const RULE: &'static str;

    /// Takes the text, if it keeps the rule.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when it does not.
    fn check(text: String) -> Result<Self, ValueError>;
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", T::NAME, T::RULE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::check(text.to_owned()).map_err(E::custom)
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<T, E> {
        T::check(text).map_err(E::custom)
    }
}

/// Reads a value that is written as text.
///
/// # Errors
///
/// What the format makes of [`ValueError`], or of something else than text.
pub fn deserialize_text<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_str(TextVisitor(PhantomData))
}

/// Whether a byte is visible ASCII, 0x21 to 0x7e: no space, nothing that could forge a log line.
pub const fn is_visible_ascii(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// Whether a byte of UTF-8 is anything but an ASCII control character.
pub const fn is_not_control(byte: u8) -> bool {
    !byte.is_ascii_control()
}

/// Whether this can be the name of a tool or of a running agent: 1 to [`MAX_NAME_BYTES`] bytes of visible ASCII.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_visible_ascii)
}

/// Defines a type of text with a rule: how long, and of which bytes.
#[macro_export]
macro_rules! checked_text {
    ($(#[$doc:meta])* $type:ident, $name:literal, 1..=$max:ident, $allowed:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks `text` against this type's rule.
            ///
            /// # Errors
            ///
            /// [`ValueError`]($crate::ValueError) when the length or a character is not allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::ValueError> {
                let text = text.into();
                if text.is_empty() || text.len() > $max || !text.bytes().all($allowed) {
                    return Err($crate::ValueError::new($name, $rule));
                }
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, by value.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl $crate::Text for $type {
            const NAME: &'static str = $name;
            const RULE: &'static str = $rule;

            fn check(text: String) -> Result<Self, $crate::ValueError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl ::core::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl ::core::fmt::Display for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::core::str::FromStr for $type {
            type Err = $crate::ValueError;

            fn from_str(text: &str) -> Result<Self, $crate::ValueError> {
                Self::new(text)
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::deserialize_text(from)
            }
        }
    };
}

checked_text!(
    /// The name of a tool, as its grant spells it: 1 to 256 bytes of visible ASCII.
    ToolName, "tool", 1..=MAX_NAME_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

checked_text!(
    /// A resource server's identifier, compared byte for byte, nothing normalised: 1 to 2,048 bytes of UTF-8 without ASCII
    /// control characters.
    Audience, "audience", 1..=MAX_AUDIENCE_BYTES, is_not_control,
    "1 to 2048 bytes of text without control characters"
);

checked_text!(
    /// The running agent a session belongs to: 1 to 256 bytes of visible ASCII.
    AgentInstanceId, "agentInstanceId", 1..=MAX_NAME_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

/// A session's number, unique at its Authentication Service. As text: 16 hexadecimal digits in lower case.
///
/// Documents have them in lower case and no other ([`SessionId::parse`]); people and sockets may write either
/// ([`FromStr`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionId(u64);

impl SessionId {
    /// The session with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads the 16 lower-case hex digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        obol_secret::text::from_hex::<8>(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Text for SessionId {
    const NAME: &'static str = "session";
    const RULE: &'static str = "a session id of 16 hexadecimal digits";

    fn check(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl FromStr for SessionId {
    type Err = ValueError;

    /// Reads 16 hex digits of either case.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(&text.to_ascii_lowercase()).ok_or(ValueError::new(Self::NAME, Self::RULE))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        obol_secret::text::hex_array::deserialize::<D, 8>(from).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_takes_1_to_256_bytes_of_visible_ascii_only() {
        assert!(ToolName::new("a").is_ok());
        assert!(ToolName::new("!~").is_ok());
        assert!(ToolName::new("x".repeat(256)).is_ok());
        for refused in ["", " ", "a b", "tab\t", "caf\u{e9}", "\u{7f}", &"x".repeat(257)] {
            assert!(ToolName::new(refused).is_err(), "{refused:?}");
            assert!(!is_name(refused), "{refused:?}");
        }
    }

    #[test]
    fn audience_takes_1_to_2048_bytes_without_control_characters() {
        assert!(Audience::new("https://api.example/caf\u{e9} 1").is_ok());
        assert!(Audience::new("x".repeat(2_048)).is_ok());
        for refused in ["", "a\nb", &"x".repeat(2_049)] {
            assert!(Audience::new(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn session_ids_are_sixteen_hex_digits_in_lower_case_for_documents_and_in_either_for_people() {
        assert_eq!(SessionId::from_u64(0xDEAD_BEEF).to_string(), "00000000deadbeef");
        assert_eq!(SessionId::parse("00000000deadbeef"), Some(SessionId(0xDEAD_BEEF)));
        assert_eq!(SessionId::parse("00000000DEADBEEF"), None);
        assert!(serde_json::from_str::<SessionId>("\"00000000DEADBEEF\"").is_err());
        assert_eq!("00000000DEADbeef".parse(), Ok(SessionId(0xDEAD_BEEF)));
        for refused in ["", "deadbeef", "+0000000deadbeef", "0x000000deadbeef", "00000000deadbeef0"] {
            assert_eq!(SessionId::parse(refused), None, "{refused:?}");
            assert!(refused.parse::<SessionId>().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_error_names_the_value_and_its_rule_without_repeating_the_value() {
        let error = serde_json::from_str::<ToolName>("\"not visible\"").unwrap_err().to_string();
        assert!(error.contains("tool must be 1 to 256 bytes"), "{error}");
        assert!(!error.contains("not visible"), "{error}");
    }
}
