//! How the messages between client and service are framed: A is a header and the first Noise message; B and C are a
//! version, a cookie with its length, and the second or third.

use crate::error::HandshakeError;
use crate::header::VERSION;

/// The longest message of a handshake, in bytes, payload included.
pub const MAX_MESSAGE_BYTES: usize = 16_384;

/// Version and length of the cookie.
const FRONT_BYTES: usize = 3;

/// Message C, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// What [`crate::Pending::open`] takes.
    pub cookie: &'a [u8],
    /// The third Noise message.
    pub message: &'a [u8],
}

impl<'a> Proof<'a> {
    /// Takes message C apart. Nothing in it is trusted yet.
    ///
    /// # Errors
    ///
    /// If it is too long, too short for what it says, or of another version.
    pub fn read(bytes: &'a [u8]) -> Result<Self, HandshakeError> {
        let (cookie, message) = split(bytes)?;
        Ok(Self { cookie, message })
    }
}

/// Message B: the cookie, and the second Noise message behind it.
///
/// # Errors
///
/// If it would be longer than [`MAX_MESSAGE_BYTES`].
pub fn reply(cookie: &[u8], message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    join(cookie, message)
}

pub(crate) fn join(cookie: &[u8], message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let length = u16::try_from(cookie.len()).map_err(|_| HandshakeError::Length)?;
    let whole = [&[VERSION][..], &length.to_be_bytes(), cookie, message].concat();
    if whole.len() > MAX_MESSAGE_BYTES { Err(HandshakeError::Length) } else { Ok(whole) }
}

pub(crate) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), HandshakeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(HandshakeError::Length);
    }
    let (front, rest) = bytes.split_first_chunk::<FRONT_BYTES>().ok_or(HandshakeError::Length)?;
    let [version, high, low] = *front;
    if version != VERSION {
        return Err(HandshakeError::Version(version));
    }
    rest.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or(HandshakeError::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_joined_comes_apart_again() {
        let whole = join(b"cookie", b"message").unwrap();
        assert_eq!(split(&whole).unwrap(), (&b"cookie"[..], &b"message"[..]));
        assert_eq!(split(&join(b"", b"").unwrap()).unwrap(), (&b""[..], &b""[..]));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        assert_eq!(join(&[0; 70_000], b"").unwrap_err(), HandshakeError::Length);
        assert_eq!(join(&[0; 10], &[0; MAX_MESSAGE_BYTES]).unwrap_err(), HandshakeError::Length);
        assert_eq!(split(&[0; MAX_MESSAGE_BYTES + 1]).unwrap_err(), HandshakeError::Length);
        assert_eq!(split(&[1, 0]).unwrap_err(), HandshakeError::Length);
        assert_eq!(split(&[1, 0, 2, 7]).unwrap_err(), HandshakeError::Length);
        assert_eq!(split(&[2, 0, 0]).unwrap_err(), HandshakeError::Version(2));
    }
}
