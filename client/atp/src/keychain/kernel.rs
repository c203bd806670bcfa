//! The kernel's keyring: in no file, and gone when the machine starts again.

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

use super::SERVICE;
use crate::error::AtpError;

/// The user's persistent keyring.
#[derive(Debug)]
pub(super) struct KernelKeyring(KeyRing);

impl KernelKeyring {
    pub(super) fn open() -> Result<Self, AtpError> {
        KeyRing::get_persistent(KeyRingIdentifier::Session).map(Self).map_err(|error| failed(&error))
    }

    fn name(account: &str) -> String {
        format!("{SERVICE}:{account}")
    }

    pub(super) fn get(&self, account: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AtpError> {
        match self.0.search(&Self::name(account)).and_then(|key| key.read_to_vec()) {
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    pub(super) fn set(&self, account: &str, value: &[u8]) -> Result<(), AtpError> {
        self.0.add_key(&Self::name(account), value).map(drop).map_err(|error| failed(&error))
    }

    pub(super) fn delete(&self, account: &str) -> Result<(), AtpError> {
        match self.0.search(&Self::name(account)).and_then(|key| key.invalidate()) {
            Ok(()) | Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &KeyError) -> AtpError {
    AtpError::Keychain(format!("the kernel's keyring cannot be used: {error}; choose another keychain"))
}
