//! Sessions outside this process hold keys: they are sealed under a key that stays on this machine.

use aes_gcm::aead::{Aead as _, AeadInOut as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use core::fmt;
use obol_token::{SessionId, text};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"obol-rs-session-v1";
/// 64 hex digits and a line end.
const KEY_FILE_BYTES: u64 = 65;

/// The key that sessions are sealed under: 32 random bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SessionSealKey([u8; 32]);

impl fmt::Debug for SessionSealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSealKey([redacted])")
    }
}

/// Why a key file was not read or created.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionKeyFileError {
    /// It cannot be read or created.
    Io(PathBuf, io::Error),
    /// Others may read or write it; the number is its mode.
    Mode(PathBuf, u32),
    /// It does not hold 64 lower-case hex digits.
    Format(PathBuf),
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for SessionKeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot use the key file {}: {error}", path.display()),
            Self::Mode(path, mode) => write!(
                f,
                "the key file {} has mode {mode:03o}, which lets others in; run chmod 600 on it",
                path.display()
            ),
            Self::Format(path) => {
                write!(f, "the key file {} must hold exactly 64 lower-case hex digits", path.display())
            }
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl std::error::Error for SessionKeyFileError {}

/// Why something was not sealed or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SealError {
    /// It was sealed under another key, for another session or another table, or it is damaged.
    DoesNotOpen,
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoesNotOpen => {
                "a session does not open with this key: the key file is another, or it is damaged"
            }
            Self::Randomness => "the system's random number generator failed",
        })
    }
}

impl std::error::Error for SealError {}

impl SessionSealKey {
    /// Takes 32 bytes over, for keys that come from a keychain or a credential.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a key file: 64 hex digits, mode 0600 or less. All servers that share a table have the same.
    pub fn load(path: &Path) -> Result<Self, SessionKeyFileError> {
        let io = |error| SessionKeyFileError::Io(path.to_owned(), error);
        let file = File::open(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let mode = file.metadata().map_err(io)?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(SessionKeyFileError::Mode(path.to_owned(), mode));
            }
        }
        let mut digits = Zeroizing::new(String::with_capacity(128));
        file.take(KEY_FILE_BYTES + 1).read_to_string(&mut digits).map_err(io)?;
        text::from_hex(digits.strip_suffix('\n').unwrap_or(&digits))
            .map(Self)
            .ok_or_else(|| SessionKeyFileError::Format(path.to_owned()))
    }

    /// Reads the key file, or creates it with mode 0600 where there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, SessionKeyFileError> {
        match Self::load(path) {
            Err(SessionKeyFileError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path)
            }
            loaded => loaded,
        }
    }

    fn create(path: &Path) -> Result<Self, SessionKeyFileError> {
        let mut key = Self([0; 32]);
        getrandom::fill(&mut key.0).map_err(|_| SessionKeyFileError::Randomness)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let digits = Zeroizing::new(text::to_hex(&key.0) + "\n");
        let write = || {
            let mut file = options.open(path)?;
            file.write_all(digits.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| SessionKeyFileError::Io(path.to_owned(), error))?;
        Ok(key)
    }

    /// Seals a session's text for its place: a table, named as its owner likes, and a session number.
    pub fn seal(&self, table: &[u8], id: SessionId, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Randomness)?;
        let body = Aes256Gcm::new((&self.0).into())
            .encrypt(&nonce.into(), Payload { msg: plain, aad: &place(table, id) })
            // AES-GCM refuses only messages above 64 GiB.
            .map_err(|_| SealError::Randomness)?;
        Ok([nonce.as_slice(), &body].concat())
    }

    /// Opens what [`seal`](Self::seal) made for the same place.
    pub fn open(&self, table: &[u8], id: SessionId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::DoesNotOpen)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(SealError::DoesNotOpen)?;
        let mut plain = Zeroizing::new(body.to_vec());
        Aes256Gcm::new((&self.0).into())
            .decrypt_inout_detached(nonce.into(), &place(table, id), plain.as_mut_slice().into(), tag.into())
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(plain)
    }
}

/// The label and the number have fixed lengths, so this is unambiguous.
fn place(table: &[u8], id: SessionId) -> Vec<u8> {
    [LABEL, &id.0.to_be_bytes(), table].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_opens_only_in_its_own_place_with_its_own_key() {
        let key = SessionSealKey::from_bytes([1; 32]);
        let sealed = key.seal(b"table", SessionId(7), b"keys").unwrap();
        assert_eq!(key.open(b"table", SessionId(7), &sealed).unwrap().as_slice(), b"keys");
        let closed = |key: &SessionSealKey, table: &[u8], id, bytes: &[u8]| {
            key.open(table, SessionId(id), bytes).unwrap_err() == SealError::DoesNotOpen
        };
        assert!(closed(&key, b"table", 8, &sealed) && closed(&key, b"other", 7, &sealed));
        assert!(closed(&SessionSealKey::from_bytes([2; 32]), b"table", 7, &sealed));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(closed(&key, b"table", 7, &damaged) && closed(&key, b"table", 7, &sealed[..place]));
        }
    }

    #[test]
    fn a_key_file_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = SessionSealKey::load_or_create(&path).unwrap();
        assert_eq!(SessionSealKey::load_or_create(&path).unwrap().0, key.0);
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(SessionSealKey::load_or_create(&path), Err(SessionKeyFileError::Format(_))));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(SessionSealKey::load(&path).unwrap_err().to_string().contains("chmod 600"));
        }
    }
}
