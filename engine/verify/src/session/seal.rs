//! Sessions outside this process hold keys: they are sealed under a key that stays on this machine.

use core::fmt;

use obol_secret::seal;
use obol_token::SessionId;
use zeroize::Zeroizing;

const LABEL: &[u8] = b"obol-rs-session-v1";

obol_secret::key! {
    /// The key that sessions are sealed under. All servers that share a table have the same.
    SessionSealKey
}

/// Why something was not sealed or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SessionSealError {
    /// It was sealed under another key, for another session or another table, or it is damaged.
    DoesNotOpen,
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for SessionSealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoesNotOpen => {
                "a session does not open with this key: the key file is another, or it is damaged"
            }
            Self::Randomness => "the system's random number generator failed",
        })
    }
}

impl core::error::Error for SessionSealError {}

impl SessionSealKey {
    /// Seals a session's text for its place: a table, named as its owner likes, and a session number.
    ///
    /// # Errors
    ///
    /// [`SessionSealError::Randomness`].
    pub fn seal(&self, table: &[u8], id: SessionId, plain: &[u8]) -> Result<Vec<u8>, SessionSealError> {
        seal::seal(self.0.expose(), &place(table, id), plain).map_err(|_| SessionSealError::Randomness)
    }

    /// Opens what [`seal`](Self::seal) made for the same place.
    ///
    /// # Errors
    ///
    /// [`SessionSealError::DoesNotOpen`].
    pub fn open(
        &self,
        table: &[u8],
        id: SessionId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SessionSealError> {
        seal::open(self.0.expose(), &place(table, id), sealed).ok_or(SessionSealError::DoesNotOpen)
    }
}

/// The label and the number have fixed lengths, so this is unambiguous.
fn place(table: &[u8], id: SessionId) -> Vec<u8> {
    [LABEL, &id.as_u64().to_be_bytes(), table].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_opens_only_in_its_own_place_with_its_own_key() {
        let key = SessionSealKey::from_bytes([1; 32]);
        let sealed = key.seal(b"table", SessionId::from_u64(7), b"keys").unwrap();
        assert_eq!(key.open(b"table", SessionId::from_u64(7), &sealed).unwrap().as_slice(), b"keys");
        let closed = |key: &SessionSealKey, table: &[u8], id, bytes: &[u8]| {
            key.open(table, SessionId::from_u64(id), bytes).unwrap_err() == SessionSealError::DoesNotOpen
        };
        assert!(closed(&key, b"table", 8, &sealed) && closed(&key, b"other", 7, &sealed));
        assert!(closed(&SessionSealKey::from_bytes([2; 32]), b"table", 7, &sealed));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(closed(&key, b"table", 7, &damaged) && closed(&key, b"table", 7, &sealed[..place]));
        }
    }
}
