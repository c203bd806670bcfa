//! Why a handshake ended. Exact for the log; towards the outside a server says less.

use core::fmt;

/// Why a handshake did not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// A message does not have the length that its pattern gives it, or is longer than [`crate::MAX_MESSAGE_BYTES`].
    Length,
    /// The version is not the one this crate speaks.
    Version(u8),
    /// No purpose has this number.
    Purpose(u8),
    /// No suite has this number, or the offer does not name the suite that was chosen.
    Suite(u8),
    /// The origin is empty or longer than [`crate::MAX_ORIGIN_BYTES`].
    Origin,
    /// The service has no static key of this name.
    UnknownAuthorityKey,
    /// A Diffie-Hellman key of the peer is of low order: the result would not depend on the own key.
    WeakKey,
    /// An ML-KEM key of the peer is not one: a coefficient is not reduced.
    KemKey,
    /// A tag does not hold: another key, another transcript, or changed bytes.
    Tag,
    /// Whoever holds the service's static key could not use it.
    Agreement,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the message does not have the length of a handshake message"),
            Self::Version(version) => write!(f, "version {version} of the handshake is not known here"),
            Self::Purpose(purpose) => write!(f, "purpose {purpose} is not known here"),
            Self::Suite(suite) => write!(f, "suite {suite} is not known here, or was not offered"),
            Self::Origin => f.write_str("the origin is empty or too long"),
            Self::UnknownAuthorityKey => {
                f.write_str("the message is for a key that this service does not have")
            }
            Self::WeakKey => f.write_str("a key of the peer is of low order"),
            Self::KemKey => f.write_str("an ML-KEM key of the peer is not well formed"),
            Self::Tag => f.write_str("the message does not belong to this handshake"),
            Self::Agreement => f.write_str("the static key could not be used"),
        }
    }
}

impl core::error::Error for HandshakeError {}
