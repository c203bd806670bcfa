//! Keys of 32 random bytes, and the files they are kept in.
//!
//! A key file holds 64 lower-case hex digits and a line end. A key is never derived from the name of a host or a user,
//! nor from a password.

use core::fmt;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::file::{Fault, PrivateFile, PrivateFileError};
use crate::text;

/// The longest form in which a key is kept, in bytes: 64 hex digits and a line end.
pub const MAX_KEY_FILE_BYTES: usize = 65;
/// Sets derived keys apart from those that a store derives with its identity as the salt.
const DERIVED: &[u8] = b"obol-derived-v1";

crate::secret! {
    /// 32 random bytes that other things hang on.
    Key32
}

/// Why there is no key.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file was not opened, read or created.
    File(PrivateFileError),
    /// The file holds something else than 64 lower-case hex digits.
    Format(PathBuf),
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "no key: {error}"),
            Self::Format(path) => write!(
                f,
                "the key file {} must hold exactly 64 lower-case hex digits; restore it, or move it and what is sealed \
                 under it away to start afresh",
                path.display()
            ),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            _ => None,
        }
    }
}

impl Key32 {
    /// A fresh random key.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Randomness`].
    pub fn generate() -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| KeyFileError::Randomness)?;
        Ok(Self(*bytes))
    }

    /// Reads 64 lower-case hex digits, with or without a line end.
    pub fn from_digits(digits: &[u8]) -> Option<Self> {
        let digits = core::str::from_utf8(digits).ok()?;
        text::from_hex(digits.strip_suffix('\n').unwrap_or(digits)).map(Self)
    }

    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] where the file does not pass the rule for files that are only read, or holds no key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let digits = PrivateFile::read(path, MAX_KEY_FILE_BYTES).map_err(|error| match error.fault() {
            Fault::TooLong(_) => KeyFileError::Format(path.to_owned()),
            _ => KeyFileError::File(error),
        })?;
        Self::from_digits(&digits).ok_or_else(|| KeyFileError::Format(path.to_owned()))
    }

    /// Creates a key file; fails where one exists.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] where the file cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let key = Self::generate()?;
        let mut digits = Zeroizing::new(text::to_hex(&key.0));
        digits.push('\n');
        PrivateFile::create_whole(path, digits.as_bytes()).map_err(KeyFileError::File)?;
        Ok(key)
    }

    /// Reads the key file, or creates it where there is none.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load) and [`create`](Self::create).
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyFileError::File(error)) if error.is_missing() => Self::create(path),
            loaded => loaded,
        }
    }

    /// A key for one purpose. It tells nothing about this key nor about other purposes' keys.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let done = Hkdf::<Sha256>::new(Some(DERIVED), &self.0).expand(purpose.as_bytes(), key.as_mut_slice());
        debug_assert!(done.is_ok(), "HKDF output over 8,160 bytes");
        key
    }
}

/// Makes a type for the keys of one use, so that no other key is taken for one of them. It is kept, read and made like a
/// [`Key32`](crate::key::Key32).
#[macro_export]
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name($crate::key::Key32);

        impl $name {
            /// Takes 32 bytes over, for keys that come from a keychain or a credential.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self($crate::key::Key32::from_bytes(bytes))
            }

            /// A fresh random key.
            ///
            /// # Errors
            ///
            /// [`KeyFileError::Randomness`]($crate::key::KeyFileError::Randomness).
            pub fn generate() -> ::core::result::Result<Self, $crate::key::KeyFileError> {
                $crate::key::Key32::generate().map(Self)
            }

            /// Reads a key file: 64 lower-case hex digits.
            ///
            /// # Errors
            ///
            /// [`KeyFileError`]($crate::key::KeyFileError), as for [`Key32::load`]($crate::key::Key32::load).
            pub fn load(
                path: impl ::core::convert::AsRef<::std::path::Path>,
            ) -> ::core::result::Result<Self, $crate::key::KeyFileError> {
                $crate::key::Key32::load(path).map(Self)
            }

            /// Creates a key file, closed to others; fails where one exists.
            ///
            /// # Errors
            ///
            /// [`KeyFileError`]($crate::key::KeyFileError), as for [`Key32::create`]($crate::key::Key32::create).
            pub fn create(
                path: impl ::core::convert::AsRef<::std::path::Path>,
            ) -> ::core::result::Result<Self, $crate::key::KeyFileError> {
                $crate::key::Key32::create(path).map(Self)
            }

            /// Reads the key file, or creates it where there is none.
            ///
            /// # Errors
            ///
            /// [`KeyFileError`]($crate::key::KeyFileError), as for loading and creating.
            pub fn load_or_create(
                path: impl ::core::convert::AsRef<::std::path::Path>,
            ) -> ::core::result::Result<Self, $crate::key::KeyFileError> {
                $crate::key::Key32::load_or_create(path).map(Self)
            }
        }

        impl ::core::convert::From<$crate::key::Key32> for $name {
            fn from(key: $crate::key::Key32) -> Self {
                Self(key)
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn counting() -> Key32 {
        Key32::from_bytes(core::array::from_fn(|place| u8::try_from(place).unwrap()))
    }

    #[test]
    fn a_created_key_loads_again_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let key = Key32::load_or_create(&path).unwrap();
        assert!(Key32::load_or_create(&path).unwrap().matches(key.expose()));
        assert!(matches!(Key32::create(&path), Err(KeyFileError::File(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn whoever_looks_while_a_key_is_made_finds_none_or_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let done = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    Key32::create(&path).unwrap();
                    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
                    std::fs::remove_file(&path).unwrap();
                }
                done.store(true, core::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(core::sync::atomic::Ordering::Relaxed) {
                match std::fs::read(&path) {
                    Ok(digits) => assert!(Key32::from_digits(&digits).is_some(), "{} bytes", digits.len()),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                }
            }
        });
    }

    #[test]
    fn a_key_file_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        Key32::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Key32::load(&path).unwrap_err();
            assert!(
                matches!(&error, KeyFileError::File(file) if matches!(file.fault(), Fault::Mode { .. })),
                "{mode:o}: {error}"
            );
        }
    }

    #[test]
    fn a_key_file_of_another_form_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        for content in ["", "00", &"0".repeat(63), &"0".repeat(65), &"0".repeat(66), &"G".repeat(64)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Key32::load_or_create(&path), Err(KeyFileError::Format(_))), "{content:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let key = |byte, purpose| Key32::from_bytes([byte; 32]).derive(purpose);
        assert_eq!(*key(1, "a"), *key(1, "a"));
        assert_ne!(*key(1, "a"), *key(1, "b"));
        assert_ne!(*key(1, "a"), *key(2, "a"));
        assert_ne!(*key(1, "a"), [1; 32]);
    }

    /// Computed with Python's `hmac`: another key here would leave every audit log without its seal.
    #[test]
    fn a_derived_key_is_the_one_it_always_was() {
        for (purpose, expected) in [
            ("obol audit log", "d3f00ba7e757897e75b4d6df5ca77700bc45b28de0a2ab9a8b58507b2e026dcb"),
            ("some purpose", "0e1a6a2b5fe4f34ffa576fbdbd275d11a691fd64e1eae246aee95677f9f63fcc"),
        ] {
            assert_eq!(text::to_hex(&*counting().derive(purpose)), expected, "{purpose}");
        }
    }
}
