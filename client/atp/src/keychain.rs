//! Where tokens are kept: sealed files under a key of their own. The key lies beside them: that stops who copies a file alone, and no
//! program of the same user.

use obol_secret::file::PrivateFile;
use obol_secret::key::Key32;
use obol_secret::seal;
use obol_secret::text::to_base64url;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::AtpError;
use crate::state::State;

/// What the sealing key is derived for.
const PURPOSE: &str = "obol-atp-keychain-v1";
const KEY_FILE: &str = "keychain.key";
/// The longest entry, in bytes.
const MAX_ENTRY_BYTES: usize = 32 << 10;

/// One host's token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) method: String,
    pub(crate) access_token: Zeroizing<String>,
    /// Unix milliseconds.
    pub(crate) expires_at: u64,
    pub(crate) scopes_granted: Vec<String>,
    pub(crate) agent_id: String,
    pub(crate) token_id: String,
    pub(crate) endpoint: String,
    /// Unix milliseconds.
    pub(crate) obtained_at: u64,
}

/// Sealed files.
pub(crate) struct Keychain {
    state: State,
    key: Zeroizing<[u8; 32]>,
}

impl core::fmt::Debug for Keychain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keychain").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Keychain {
    pub(crate) fn open(state: State) -> Result<Self, AtpError> {
        let _between_processes = state.lock(KEY_FILE)?;
        let key = Key32::load_or_create(state.path(KEY_FILE))?.derive(PURPOSE);
        Ok(Self { state, key })
    }

    fn name(account: &str) -> String {
        format!("{}.sealed", to_base64url(account.as_bytes()))
    }

    pub(crate) fn get(&self, account: &str) -> Result<Option<Entry>, AtpError> {
        let path = self.state.path(&Self::name(account));
        let sealed = match PrivateFile::read(&path, MAX_ENTRY_BYTES) {
            Err(error) if error.is_missing() => return Ok(None),
            read => read?,
        };
        let plain = seal::open(&self.key, account.as_bytes(), &sealed);
        let entry = plain.and_then(|plain| serde_json::from_slice(&plain).ok());
        entry.map(Some).ok_or(AtpError::Keychain(path))
    }

    pub(crate) fn set(&self, account: &str, entry: &Entry) -> Result<(), AtpError> {
        let plain =
            Zeroizing::new(serde_json::to_vec(entry).map_err(|error| AtpError::System(error.to_string()))?);
        let sealed = seal::seal(&self.key, account.as_bytes(), &plain)
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
