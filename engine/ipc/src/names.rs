//! The checked values that messages are made of.
//!
//! Each type holds its rule: a value that exists is valid, whichever side and codec it came from.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A value that breaks its rule. The message names the value and states the rule; it never repeats the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError {
    name: &'static str,
    rule: &'static str,
}

impl ValueError {
    pub(crate) const fn new(name: &'static str, rule: &'static str) -> Self {
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

impl std::error::Error for ValueError {}

/// Visible ASCII, 0x21 to 0x7e: no spaces, nothing that could forge a log line.
pub(crate) const fn is_visible_ascii(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// Any UTF-8 but the ASCII control characters.
const fn is_not_control(byte: u8) -> bool {
    !byte.is_ascii_control()
}

/// A string type with a rule of length and alphabet.
pub(crate) trait Text: Sized {
    const NAME: &'static str;
    const RULE: &'static str;
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

pub(crate) fn deserialize_text<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor(PhantomData))
}

macro_rules! text_value {
    ($(#[$doc:meta])* $type:ident, $name:literal, 1..=$max:ident, $allowed:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks `text` against this type's rule.
            ///
            /// # Errors
            ///
            /// [`ValueError`] when the length or a character is not allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
                let text = text.into();
                if text.is_empty() || text.len() > $max || !text.bytes().all($allowed) {
                    return Err(ValueError::new($name, $rule));
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

        impl Text for $type {
            const NAME: &'static str = $name;
            const RULE: &'static str = $rule;

            fn check(text: String) -> Result<Self, ValueError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                Self::new(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer)
            }
        }
    };
}

/// Longest tool name, in bytes.
pub const MAX_TOOL_BYTES: usize = 256;
/// Longest audience, in bytes: room for any URL a resource server is likely to be named by.
pub const MAX_AUDIENCE_BYTES: usize = 2_048;
/// Longest agent instance id, in bytes.
pub const MAX_AGENT_INSTANCE_ID_BYTES: usize = 256;
/// Longest reason for a flush or an event, in bytes. It ends in logs, which should stay readable.
pub const MAX_REASON_BYTES: usize = 512;
/// Longest kind of a security event, in bytes: room for a CAEP or RISC event type URI.
pub const MAX_EVENT_KIND_BYTES: usize = 256;
/// Longest name a client or server introduces itself by, in bytes.
pub const MAX_PEER_NAME_BYTES: usize = 128;

text_value!(
    /// The name of a tool, as its grant spells it: 1 to 256 bytes of visible ASCII.
    Tool, "tool", 1..=MAX_TOOL_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

text_value!(
    /// The resource server a token is for, compared byte for byte: 1 to 2,048 bytes of UTF-8 without control
    /// characters.
    Audience, "audience", 1..=MAX_AUDIENCE_BYTES, is_not_control,
    "1 to 2048 bytes of text without control characters"
);

text_value!(
    /// The running agent a session belongs to: 1 to 256 bytes of visible ASCII.
    AgentInstanceId, "agentInstanceId", 1..=MAX_AGENT_INSTANCE_ID_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

text_value!(
    /// Why an operator acts, for the log: 1 to 512 bytes of UTF-8 without control characters.
    Reason, "reason", 1..=MAX_REASON_BYTES, is_not_control,
    "1 to 512 bytes of text without control characters"
);

text_value!(
    /// What kind of security event happened, such as a CAEP event type URI: 1 to 256 bytes of visible ASCII.
    EventKind, "kind", 1..=MAX_EVENT_KIND_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

text_value!(
    /// How a program introduces itself in the hello, as `name/version`: 1 to 128 bytes of visible ASCII.
    PeerName, "client or server name", 1..=MAX_PEER_NAME_BYTES, is_visible_ascii,
    "1 to 128 bytes of visible ASCII without spaces, like `name/version`"
);

/// A session's number. As text: 16 hexadecimal digits, written in lower case and read in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl Text for SessionId {
    const NAME: &'static str = "session";
    const RULE: &'static str = "a session id of 16 hexadecimal digits";

    fn check(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const REFUSED: ValueError = ValueError::new(SessionId::NAME, SessionId::RULE);
        // `from_str_radix` would also take a sign.
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(REFUSED);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| REFUSED)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

struct WholeNumberVisitor<T>(&'static str, fn(u64) -> Result<T, ValueError>);

impl<T> Visitor<'_> for WholeNumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.1)(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number =
            u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }

    /// 5000.0 and 5e3 are 5000, as in any other reader of JSON.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        match whole(number) {
            Some(number) => self.visit_u64(number),
            None => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }
}

/// A whole number that was written as a fraction or with an exponent, and that every reader takes for the same one.
fn whole(number: f64) -> Option<u64> {
    /// Beyond this, neighbouring whole numbers are the same fraction: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within bounds")]
    (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64)
}

/// For fields that are whole numbers without a type of their own.
pub(crate) fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(WholeNumberVisitor("a whole number from 0 to 2^64-1", Ok))
}

/// The same, where there may be none.
pub(crate) fn optional_whole_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    struct Whole(u64);

    impl<'de> Deserialize<'de> for Whole {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            whole_number(deserializer).map(Self)
        }
    }

    Ok(Option::<Whole>::deserialize(deserializer)?.map(|Whole(number)| number))
}

/// Longest time a caller may ask to wait for a token, in milliseconds.
pub const MAX_WAIT_MS: u32 = 30_000;

/// How long a caller is willing to wait for a token: 0 to 30,000 milliseconds, 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitMs(u32);

impl WaitMs {
    /// Do not wait: an empty queue is an error at once.
    pub const NONE: Self = Self(0);

    const NAME: &'static str = "waitMs";
    const RULE: &'static str = "a whole number of milliseconds from 0 to 30000";

    /// Waits this many milliseconds.
    ///
    /// # Errors
    ///
    /// [`ValueError`] above [`MAX_WAIT_MS`].
    pub const fn new(milliseconds: u32) -> Result<Self, ValueError> {
        if milliseconds > MAX_WAIT_MS {
            return Err(ValueError::new(Self::NAME, Self::RULE));
        }
        Ok(Self(milliseconds))
    }

    /// The wait in milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// The wait as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    fn from_u64(milliseconds: u64) -> Result<Self, ValueError> {
        Self::new(u32::try_from(milliseconds).unwrap_or(u32::MAX))
    }
}

impl TryFrom<Duration> for WaitMs {
    type Error = ValueError;

    /// Rounds up to whole milliseconds, so that a short wait does not become none.
    fn try_from(wait: Duration) -> Result<Self, ValueError> {
        Self::new(u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
    }
}

impl Serialize for WaitMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for WaitMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTING: &str = "waitMs: a whole number of milliseconds from 0 to 30000";
        deserializer.deserialize_u64(WholeNumberVisitor(EXPECTING, Self::from_u64))
    }
}

/// The number of a negotiated algorithm suite, 1 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlgorithmSuite(u8);

impl AlgorithmSuite {
    /// The suite with this number.
    ///
    /// # Errors
    ///
    /// [`ValueError`] for a number that names no suite.
    pub const fn new(number: u8) -> Result<Self, ValueError> {
        if matches!(number, 1..=4) {
            Ok(Self(number))
        } else {
            Err(ValueError::new("algorithmSuite", "a suite number from 1 to 4"))
        }
    }

    /// The suite's number.
    pub const fn number(self) -> u8 {
        self.0
    }

    fn from_u64(number: u64) -> Result<Self, ValueError> {
        Self::new(u8::try_from(number).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for AlgorithmSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for AlgorithmSuite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for AlgorithmSuite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTING: &str = "algorithmSuite: a suite number from 1 to 4";
        deserializer.deserialize_u64(WholeNumberVisitor(EXPECTING, Self::from_u64))
    }
}

/// The AEAD of a token's channel, which follows from its suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ChannelAlgorithm {
    /// Suites 1, 2 and 4.
    #[serde(rename = "AES-256-GCM")]
    Aes256Gcm,
    /// Suite 3.
    #[serde(rename = "ChaCha20-Poly1305")]
    ChaCha20Poly1305,
}

impl ChannelAlgorithm {
    /// The name, as it stands in the `alg` of a sealed message.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    /// The algorithm of this name.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when there is none.
    pub fn from_name(name: &str) -> Result<Self, ValueError> {
        let known = [Self::Aes256Gcm, Self::ChaCha20Poly1305];
        known
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(ValueError::new("alg", "AES-256-GCM or ChaCha20-Poly1305"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_takes_1_to_256_bytes_of_visible_ascii_only() {
        assert!(Tool::new("a").is_ok());
        assert!(Tool::new("!~").is_ok());
        assert!(Tool::new("x".repeat(256)).is_ok());
        for refused in ["", " ", "a b", "tab\t", "caf\u{e9}", "\u{7f}", &"x".repeat(257)] {
            assert!(Tool::new(refused).is_err(), "{refused:?}");
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
    fn session_id_is_exactly_16_hexadecimal_digits() {
        let id: SessionId = "00000000DEADbeef".parse().unwrap();
        assert_eq!(id.as_u64(), 0xdead_beef);
        assert_eq!(id.to_string(), "00000000deadbeef");
        for refused in ["", "deadbeef", "+0000000deadbeef", "0x000000deadbeef", "00000000deadbeef0"] {
            assert!(refused.parse::<SessionId>().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn wait_is_bounded_and_rounds_up() {
        assert_eq!(WaitMs::new(30_000).unwrap().as_duration(), Duration::from_secs(30));
        assert!(WaitMs::new(30_001).is_err());
        assert_eq!(WaitMs::try_from(Duration::from_nanos(1)).unwrap().as_millis(), 1);
        assert!(WaitMs::try_from(Duration::MAX).is_err());
        for whole in ["5000.0", "5e3", "50e+2", "5000"] {
            assert_eq!(serde_json::from_str::<WaitMs>(whole).unwrap().as_millis(), 5_000, "{whole}");
        }
        for not_whole in ["0.5", "-1.0", "1e300", "4999.9999"] {
            let error = serde_json::from_str::<WaitMs>(not_whole).unwrap_err().to_string();
            assert!(error.contains("waitMs"), "{error}");
        }
        assert!(serde_json::from_str::<WaitMs>("-1").unwrap_err().to_string().contains("waitMs"));
        assert!(serde_json::from_str::<WaitMs>("4294967296").unwrap_err().to_string().contains("waitMs"));
    }

    #[test]
    fn only_suites_one_to_four_exist() {
        for number in 1..=4 {
            assert_eq!(AlgorithmSuite::new(number).unwrap().number(), number);
        }
        assert!(AlgorithmSuite::new(0).is_err());
        assert!(AlgorithmSuite::new(5).is_err());
    }

    #[test]
    fn an_error_names_the_value_and_its_rule_without_repeating_the_value() {
        let error = serde_json::from_str::<Tool>("\"not visible\"").unwrap_err().to_string();
        assert!(error.contains("tool must be 1 to 256 bytes"), "{error}");
        assert!(!error.contains("not visible"), "{error}");
    }
}
