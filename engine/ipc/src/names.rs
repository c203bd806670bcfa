//! The names that messages carry: those that all of Obol has in common, and those of the sockets alone.

use obol_token::checked_text;
pub use obol_token::{
    AgentInstanceId, Audience, MAX_AUDIENCE_BYTES, MAX_NAME_BYTES, SessionId, ToolName, ValueError,
};
pub(crate) use obol_token::{Text, deserialize_text};
use obol_token::{is_not_control, is_visible_ascii};
use serde::{Deserialize, Deserializer, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_text};
use crate::frame::EncodeError;

/// Longest reason for a flush or an event, in bytes. It ends in logs, which should stay readable.
const MAX_REASON_BYTES: usize = 512;
/// Longest kind of a security event, in bytes: room for a CAEP or RISC event type URI.
const MAX_EVENT_KIND_BYTES: usize = 256;
/// Longest name that an operator of the Authentication Service gives, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// Longest name, class or role that an agent asks for, in bytes.
const MAX_WISHED_NAME_BYTES: usize = 64;
/// Longest name a client or server introduces itself by, in bytes.
const MAX_PEER_NAME_BYTES: usize = 128;

checked_text!(
    /// Why an operator acts, for the log: 1 to 512 bytes of UTF-8 without control characters.
    Reason, "reason", 1..=MAX_REASON_BYTES, is_not_control,
    "1 to 512 bytes of text without control characters"
);

checked_text!(
    /// What kind of security event happened, such as a CAEP event type URI: 1 to 256 bytes of visible ASCII.
    EventKind, "kind", 1..=MAX_EVENT_KIND_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

checked_text!(
    /// What an operator of the Authentication Service names: an agent, a code, a role, a version. 1 to 256 bytes of visible
    /// ASCII.
    Label, "name", 1..=MAX_LABEL_BYTES, is_visible_ascii,
    "1 to 256 bytes of visible ASCII without spaces"
);

checked_text!(
    /// How a program introduces itself in the hello, as `name/version`: 1 to 128 bytes of visible ASCII.
    PeerName, "client or server name", 1..=MAX_PEER_NAME_BYTES, is_visible_ascii,
    "1 to 128 bytes of visible ASCII without spaces, like `name/version`"
);

checked_text!(
    /// What an agent calls itself at the Authentication Service, or asks for: its name, its class, a role. 1 to 64 bytes of
    /// visible ASCII, as the service takes them.
    WishedName, "name, class or role", 1..=MAX_WISHED_NAME_BYTES, is_visible_ascii,
    "1 to 64 bytes of visible ASCII without spaces"
);

/// Reads a session's number in either case of hex; documents on disk have it in lower case alone.
pub(crate) fn either_case<'de, D: Deserializer<'de>>(from: D) -> Result<SessionId, D::Error> {
    deserialize_text(from)
}

/// The same for one that may be absent.
pub(crate) fn maybe_in_either_case<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SessionId>, D::Error> {
    #[derive(Deserialize)]
    struct Item(#[serde(deserialize_with = "either_case")] SessionId);

    Ok(Option::<Item>::deserialize(from)?.map(|Item(id)| id))
}

/// The same for a list of them.
pub(crate) fn list_in_either_case<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SessionId>, D::Error> {
    #[derive(Deserialize)]
    struct Item(#[serde(deserialize_with = "either_case")] SessionId);

    Ok(Vec::<Item>::deserialize(from)?.into_iter().map(|Item(id)| id).collect())
}

/// The AEAD of a token's channel, which follows from its suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

binary_text! { ToolName Audience AgentInstanceId Reason EventKind Label WishedName }

binary_enum! {
    ChannelAlgorithm "algorithm of a channel" { Aes256Gcm = 0, ChaCha20Poly1305 = 1 }
}

impl Binary for SessionId {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.as_u64().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        u64::take(input).map(Self::from_u64)
    }
}
