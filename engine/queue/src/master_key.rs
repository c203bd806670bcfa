//! The master key: what everything at rest hangs on.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use obol_token::text;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::files::{self, PrivateFileError, read_private_file};

/// 64 hex digits and a line end.
const KEY_FILE_BYTES: usize = 65;

/// 32 random bytes. They are never derived from a host name, a user name or a password.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

/// Why there is no master key.
#[derive(Debug)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// The file could not be read or created.
    Io(PathBuf, std::io::Error),
    /// The file can be read or written by others, or belongs to somebody else.
    Permissions(PathBuf),
    /// The file does not hold 64 hex digits.
    Format(PathBuf),
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for MasterKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "cannot use the master key file {}: {error}", path.display()),
            Self::Permissions(path) => write!(
                f,
                "the master key file {} must be a regular file that belongs to you and is closed to others; check \
                 its owner and run `chmod 600 {}`",
                path.display(),
                path.display()
            ),
            Self::Format(path) => write!(
                f,
                "the master key file {} must hold exactly 64 lower-case hex digits; restore it, or move it and the \
                 store away to start afresh",
                path.display()
            ),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for MasterKeyError {}

impl MasterKey {
    /// Takes 32 bytes over, for keys that come from a keychain or a credential.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh random key.
    pub fn generate() -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| MasterKeyError::Randomness)?;
        Ok(Self(*bytes))
    }

    /// Reads a key file: 64 hex digits, a regular file of ours with mode 0600 or less.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, MasterKeyError> {
        let path = path.as_ref();
        let text = read_private_file(path, KEY_FILE_BYTES).map_err(|error| match error {
            PrivateFileError::Io(path, error) => MasterKeyError::Io(path, error),
            PrivateFileError::Permissions(path) => MasterKeyError::Permissions(path),
            PrivateFileError::TooLong(path, _) => MasterKeyError::Format(path),
        })?;
        let digits = core::str::from_utf8(&text).ok();
        digits
            .and_then(|digits| text::from_hex(digits.strip_suffix('\n').unwrap_or(digits)))
            .map(Self)
            .ok_or_else(|| MasterKeyError::Format(path.to_owned()))
    }

    /// Creates a key file with mode 0600; fails where one exists.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, MasterKeyError> {
        let path = path.as_ref();
        let io = |error| MasterKeyError::Io(path.to_owned(), error);
        let key = Self::generate()?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(files::PRIVATE_MODE)
            .open(path)
            .map_err(io)?;
        let digits = Zeroizing::new(text::to_hex(&key.0));
        let write = |file: &mut File| {
            file.write_all(digits.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            files::sync_parent(path)
        };
        write(&mut file).map_err(io)?;
        Ok(key)
    }

    /// Loads the key file, or creates it where there is none.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, MasterKeyError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(MasterKeyError::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::create(path)
            }
            loaded => loaded,
        }
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_created_key_loads_again_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let key = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(MasterKey::load_or_create(&path).unwrap().0, key.0);
        assert!(matches!(MasterKey::create(&path), Err(MasterKeyError::Io(..))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        MasterKey::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::Permissions(_))), "{mode:o}");
        }
    }

    #[test]
    fn a_key_file_of_another_form_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        for content in ["", "00", &"0".repeat(63), &"0".repeat(65), &"0".repeat(66), &"G".repeat(64)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(
                matches!(MasterKey::load_or_create(&path), Err(MasterKeyError::Format(_))),
                "{content:?}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
