//! Sealed files under a key of their own. The key lies beside them: that stops who copies a file alone, and no program of the same
//! user.

use obol_secret::file::PrivateFile;
use obol_secret::key::Key32;
use obol_secret::seal;
use obol_secret::text::to_base64url;
use zeroize::Zeroizing;

use crate::error::AtpError;
use crate::state::State;

/// What the sealing key is derived for.
const PURPOSE: &str = "obol-atp-keychain-v1";
const KEY_FILE: &str = "keychain.key";
/// The longest entry, in bytes.
const MAX_ENTRY_BYTES: usize = 512 << 10;

/// Sealed files.
pub(crate) struct SealedFiles {
    state: State,
    key: Zeroizing<[u8; 32]>,
}

impl SealedFiles {
    pub(crate) fn open(state: State) -> Result<Self, AtpError> {
        let _between_processes = state.lock(KEY_FILE)?;
        let key = Key32::load_or_create(state.path(KEY_FILE))?.derive(PURPOSE);
        Ok(Self { state, key })
    }

    fn name(account: &str) -> String {
        format!("{}.sealed", to_base64url(account.as_bytes()))
    }

    pub(crate) fn get(&self, account: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AtpError> {
        let path = self.state.path(&Self::name(account));
        let sealed = match PrivateFile::read(&path, MAX_ENTRY_BYTES) {
            Err(error) if error.is_missing() => return Ok(None),
            read => read?,
        };
        let plain = seal::open(&self.key, account.as_bytes(), &sealed);
        let damaged =
            || format!("{} does not open with the keychain's key; remove it to start over", path.display());
        plain.map(Some).ok_or_else(|| AtpError::Keychain(damaged()))
    }

    pub(crate) fn set(&self, account: &str, value: &[u8]) -> Result<(), AtpError> {
        let sealed = seal::seal(&self.key, account.as_bytes(), value)
            .map_err(|error| AtpError::System(error.to_string()))?;
        self.state.replace(&Self::name(account), &sealed)
    }

    pub(crate) fn delete(&self, account: &str) -> Result<(), AtpError> {
        match std::fs::remove_file(self.state.path(&Self::name(account))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
