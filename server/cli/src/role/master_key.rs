//! Where a role's master key comes from.
//!
//! In this order: a file that was named on the command line; a credential of the service manager; the kernel's keyring,
//! where settings name a key in it; a file. It is never derived from the name of a host or a user, and never an
//! argument or a variable: those can be read by others.
//!
//! The keyring is the kernel's own and not a desktop's: it needs no daemon, no D-Bus and no window to unlock, and what
//! unlocks a desktop's keychain at login can put a key into it. What it does not have after a restart falls back to the
//! file, in the open.

use std::path::{Path, PathBuf};

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use obol_secret::file::read_credential;
use obol_secret::key::{Key32, MAX_KEY_FILE_BYTES};
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};
use crate::places::{environment, place};
use crate::role::companions;

/// The longest form of a key, and one more to see that something is longer.
const MAX_BYTES: usize = MAX_KEY_FILE_BYTES + 1;

/// Where a role looks for its master key.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The file that was named on the command line.
    pub(crate) named: Option<&'a Path>,
    /// The credential's name, as in `LoadCredential=obol-master-key:…`.
    pub(crate) credential: &'a str,
    /// The key's name in the kernel's keyring.
    pub(crate) keychain: Option<&'a str>,
    /// The file that settings name.
    pub(crate) set: Option<&'a PathBuf>,
    /// The file in the state folder, where nothing else is named.
    pub(crate) usual: &'a str,
    /// What was sealed under the key: beside it, a key that is missing is not made anew.
    pub(crate) sealed: &'a [&'a Path],
}

impl Sources<'_> {
    /// The key, wherever it is. A file is made where there is none, unless what it sealed is there.
    pub(crate) fn load(&self) -> Outcome<Key32> {
        let from_file = |file: &Path| {
            companions::refuse_lost_key(file, self.sealed)?;
            from_file(file)
        };
        if let Some(file) = self.named {
            return from_file(file);
        }
        if let Some(key) = from_credential(self.credential)? {
            return Ok(key);
        }
        if let Some(name) = self.keychain {
            match from_keyring(name) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {
                    tracing::warn!(
                        key = name,
                        "the keyring does not hold the master key; a file is used instead"
                    );
                }
                Err(KeyringFailure::System(error)) => {
                    tracing::warn!(%error, "there is no keyring; the master key is kept in a file instead");
                }
                Err(KeyringFailure::Form) => {
                    return Err(malformed(&format!("the key {name} in the keyring")));
                }
            }
        }
        from_file(&place(self.set, self.usual)?)
    }
}

fn from_file(file: &Path) -> Outcome<Key32> {
    tracing::info!(file = %file.display(), "the master key is in a file");
    Key32::load_or_create(file).map_err(Failure::usage)
}

/// A credential is in a folder that the service manager made for this service alone.
fn from_credential(name: &str) -> Outcome<Option<Key32>> {
    let Some(folder) = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from) else { return Ok(None) };
    let path = folder.join(name);
    let bytes = match read_credential(&path, MAX_BYTES) {
        Err(error) if error.is_missing() => return Ok(None),
        bytes => bytes.map_err(|error| {
            Failure::usage(format_args!(
                "the credential cannot be used: {error}; check the unit's LoadCredential"
            ))
        })?,
    };
    tracing::info!("the master key is a credential from the service manager");
    parse(&bytes).map(Some).ok_or_else(|| malformed(&format!("the credential {}", path.display())))
}

enum KeyringFailure {
    System(KeyError),
    Form,
}

/// Looks in the session's keyring and in the user's.
fn from_keyring(name: &str) -> Result<Option<Key32>, KeyringFailure> {
    let mut missing = None;
    for ring in [KeyRingIdentifier::Session, KeyRingIdentifier::User] {
        let found = KeyRing::from_special_id(ring, false).and_then(|ring| ring.search(name));
        let mut bytes = Zeroizing::new([0; MAX_BYTES]);
        match found.and_then(|key| key.read(&mut *bytes)) {
            Ok(length) => {
                tracing::info!(key = name, "the master key is in the keyring");
                return bytes.get(..length).and_then(parse).map(Some).ok_or(KeyringFailure::Form);
            }
            Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => {}
            Err(error) => missing = Some(error),
        }
    }
    missing.map_or(Ok(None), |error| Err(KeyringFailure::System(error)))
}

/// 64 lower-case hex digits, with or without a line end, or 32 bytes as they are.
fn parse(bytes: &[u8]) -> Option<Key32> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Some(Key32::from_bytes(raw));
    }
    Key32::from_digits(bytes)
}

fn malformed(what: &str) -> Failure {
    Failure::usage(format_args!(
        "{what} must hold 64 lower-case hex digits or 32 bytes; make one with `openssl rand -hex 32`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hex_or_bytes_and_nothing_else() {
        let hex = "0123456789abcdef".repeat(4);
        for good in [hex.as_bytes(), format!("{hex}\n").as_bytes(), &[7; 32]] {
            assert!(parse(good).is_some(), "{good:?}");
        }
        for bad in [&b""[..], b"0123", &[7; 31], &[7; 33], hex.to_uppercase().as_bytes(), &[b'0'; 66]] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
