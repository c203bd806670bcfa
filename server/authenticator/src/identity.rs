//! An agent's identity in one sealed file: the identity key, the SEK, what the last session left for the next, and what is
//! known of the registration. It is replaced as a whole, so it is the old one or the new one after any crash.

use core::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use obol_handshake::{ChainSecret, IdentityKey, IdentityPublic, Random, SekKey, SystemRandom};
use obol_secret::file::{PrivateFile, PrivateFileError, sync_folder};
use obol_secret::key::{Key32, KeyFileError};
use obol_secret::seal;
use obol_secret::text::to_hex;
use obol_secret::wipe::Wiped;
use serde::{Deserialize, Serialize, Serializer};

/// What the sealing key is derived for.
const PURPOSE: &str = "obol-identity-file-v1";
const CONTEXT: &[u8] = b"obol-identity-v1";
/// The longest file, in bytes.
const MAX_FILE_BYTES: usize = 64 << 10;
/// The most values of sessions whose answers were lost.
const MAX_UNCONFIRMED: usize = 3;

/// Why there is no identity.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// The key that seals it cannot be used.
    Key(KeyFileError),
    /// The file cannot be used.
    File(PrivateFileError),
    /// The file cannot be replaced.
    Unwritable(PathBuf, std::io::Error),
    /// The file is damaged, or sealed under another key.
    NotOurs(PathBuf),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "the identity: {error}"),
            Self::File(error) => write!(f, "the identity: {error}"),
            Self::Unwritable(path, error) => {
                write!(f, "the identity {} cannot be written: {error}", path.display())
            }
            Self::NotOurs(path) => write!(
                f,
                "the identity {} is damaged or sealed under another key; restore it with its key file, or move both away and \
                 register the agent anew",
                path.display()
            ),
        }
    }
}

impl core::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Key(error) => Some(error),
            Self::File(error) => Some(error),
            Self::Unwritable(_, error) => Some(error),
            Self::NotOurs(_) => None,
        }
    }
}

impl From<IdentityError> for obol_uplink::AuthError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(Box::new(error))
    }
}

obol_secret::secret! {
    /// 32 bytes of the file.
    Kept
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(self.expose()))
    }
}

/// What was heard of a registration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) registration_id: String,
    pub(crate) poll_token: String,
    pub(crate) user_code: String,
    /// Until when a human can decide, in Unix seconds.
    #[serde(default)]
    pub(crate) expires_at: u64,
    /// Where a human decides in a browser, and how their word comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<Page>,
}

/// Where a human decides in a browser.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) flow: Flow,
    pub(crate) url: String,
}

/// How a human's word comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Flow {
    Loopback,
    Code,
}

/// An identity key that is to take the place of the one there is. Both are kept until the service has taken the new one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    identity: Kept,
    /// The handshake in which the old key named it, once it was. From then on it may be in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    named_in: Option<Kept>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    obol_identity: u64,
    identity: Kept,
    sek: Kept,
    /// What the last session left that was answered.
    #[serde(default)]
    confirmed: Option<Kept>,
    /// What sessions left whose answers were lost.
    #[serde(default)]
    unconfirmed: Vec<Kept>,
    #[serde(default)]
    asked: Option<Asked>,
    #[serde(default)]
    agent_id: Option<String>,
    /// When the sidecar was flushed the last time that the service has heard of, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_flush: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
    /// Since when the identity key is known to be in use, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_since: Option<u64>,
}

impl Contents {
    fn fresh(rng: &mut dyn Random) -> Self {
        let (identity, sek) = (IdentityKey::generate(rng), SekKey::generate(rng));
        Self {
            obol_identity: 1,
            identity: Kept::from_bytes(*identity.expose()),
            sek: Kept::from_bytes(*sek.expose()),
            confirmed: None,
            unconfirmed: Vec::new(),
            asked: None,
            agent_id: None,
            told_flush: None,
            next: None,
            key_since: None,
        }
    }
}

/// The identity of one agent.
pub struct Identity {
    path: PathBuf,
    key: Key32,
    contents: Contents,
}

impl Identity {
    /// Opens the identity in `path`, sealed under the key in `key_file`; makes both where neither is there.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] says what cannot be used, and what to do.
    pub fn open_or_create(path: &Path, key_file: &Path) -> Result<Self, IdentityError> {
        match std::fs::symlink_metadata(path) {
            // Without its key it is lost, and another key would only hide that.
            Ok(_) => Self::open(path, Key32::load(key_file).map_err(IdentityError::Key)?),
            Err(_) => Self::open(path, Key32::load_or_create(key_file).map_err(IdentityError::Key)?),
        }
    }

    /// Opens the identity in `path`, sealed under this key; makes one where there is none.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] says what cannot be used, and what to do.
    pub fn open(path: &Path, key: Key32) -> Result<Self, IdentityError> {
        match PrivateFile::read(path, MAX_FILE_BYTES) {
            Ok(sealed) => {
                let plain = seal::open(&key.derive(PURPOSE), CONTEXT, &sealed);
                let contents = plain.and_then(|plain| obol_secret::json::parse::<Contents>(&plain).ok());
                let sound = |contents: &Contents| {
                    contents.obol_identity == 1 && SekKey::from_bytes(contents.sek.expose()).is_some()
                };
                match contents.filter(sound) {
                    Some(contents) => Ok(Self { path: path.to_owned(), key, contents }),
                    None => Err(IdentityError::NotOurs(path.to_owned())),
                }
            }
            Err(error) if error.is_missing() => {
                let made = Self::fresh(path, key, &mut SystemRandom);
                made.keep()?;
                Ok(made)
            }
            Err(error) => Err(IdentityError::File(error)),
        }
    }

    fn fresh(path: &Path, key: Key32, rng: &mut dyn Random) -> Self {
        Self { path: path.to_owned(), key, contents: Contents::fresh(rng) }
    }

    /// The public half of the identity key.
    pub fn public(&self) -> IdentityPublic {
        self.identity_key().public()
    }

    /// The agent's id, once it is known.
    pub fn agent_id(&self) -> Option<&str> {
        self.contents.agent_id.as_deref()
    }

    pub(crate) fn identity_key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.contents.identity.expose())
    }

    pub(crate) fn sek(&self) -> Option<SekKey> {
        SekKey::from_bytes(self.contents.sek.expose())
    }

    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.contents.asked.as_ref()
    }

    /// What the next session presents, as hex.
    pub(crate) fn chain(&self) -> Vec<zeroize::Zeroizing<String>> {
        let all = self.contents.confirmed.iter().chain(&self.contents.unconfirmed);
        all.map(|value| zeroize::Zeroizing::new(to_hex(value.expose()))).collect()
    }

    /// Keeps what a session will leave, before the message is sent that may open it: if the answer is lost, the service may
    /// expect this value all the same.
    pub(crate) fn expect(&mut self, chain: &ChainSecret) -> Result<(), IdentityError> {
        let unconfirmed = &mut self.contents.unconfirmed;
        if unconfirmed.len() >= MAX_UNCONFIRMED {
            unconfirmed.remove(0);
        }
        unconfirmed.push(Kept::from_bytes(*chain.expose()));
        self.keep()
    }

    /// The service answered: it opened that session, or none.
    pub(crate) fn settle(&mut self, chain: &ChainSecret, opened: bool) -> Result<(), IdentityError> {
        let unconfirmed = &mut self.contents.unconfirmed;
        match opened {
            true => {
                unconfirmed.clear();
                self.contents.confirmed = Some(Kept::from_bytes(*chain.expose()));
            }
            false => unconfirmed.retain(|value| !value.matches(chain.expose())),
        }
        self.keep()
    }

    pub(crate) fn set_asked(&mut self, asked: Option<Asked>) -> Result<(), IdentityError> {
        self.contents.asked = asked;
        self.keep()
    }

    pub(crate) fn set_agent_id(&mut self, id: &str) -> Result<(), IdentityError> {
        self.contents.agent_id = Some(id.to_owned());
        self.contents.asked = None;
        self.keep()
    }

    pub(crate) fn told_flush(&self) -> Option<u64> {
        self.contents.told_flush
    }

    pub(crate) fn set_told_flush(&mut self, since: u64) -> Result<(), IdentityError> {
        self.contents.told_flush = Some(since);
        self.keep()
    }

    /// Since when the identity key is known to be in use, in Unix seconds.
    pub(crate) fn key_since(&self) -> Option<u64> {
        self.contents.key_since
    }

    pub(crate) fn set_key_since(&mut self, since: u64) -> Result<(), IdentityError> {
        self.contents.key_since = Some(since);
        self.keep()
    }

    /// The key that is to take the identity key's place: the one that was made before, or a fresh one, which is kept.
    pub(crate) fn next_key(&mut self) -> Result<IdentityKey, IdentityError> {
        if self.contents.next.is_none() {
            let fresh = IdentityKey::generate(&mut SystemRandom);
            self.contents.next = Some(Next { identity: Kept::from_bytes(*fresh.expose()), named_in: None });
            self.keep()?;
        }
        let next = self.contents.next.as_ref().map(|next| IdentityKey::from_bytes(next.identity.expose()));
        Ok(next.unwrap_or_else(|| self.identity_key()))
    }

    /// The handshake in which the next key was named: it may be in force already.
    pub(crate) fn next_named_in(&self) -> Option<[u8; 32]> {
        let named = self.contents.next.as_ref().and_then(|next| next.named_in.as_ref());
        named.map(|hash| *hash.expose())
    }

    /// Keeps in which handshake the next key was named, before that key is proven; or that it has to be named anew.
    pub(crate) fn set_next_named_in(&mut self, hash: Option<[u8; 32]>) -> Result<(), IdentityError> {
        if let Some(next) = &mut self.contents.next {
            next.named_in = hash.map(Kept::from_bytes);
        }
        self.keep()
    }

    /// The service has taken the next key: it is the identity key from here on, and the old one is gone.
    pub(crate) fn take_next(&mut self, now: u64) -> Result<(), IdentityError> {
        if let Some(next) = self.contents.next.take() {
            self.contents.identity = next.identity;
            self.contents.key_since = Some(now);
        }
        self.keep()
    }

    /// Another identity in the place of this one, which has ended for good.
    pub(crate) fn begin_anew(&mut self) -> Result<(), IdentityError> {
        self.contents = Contents::fresh(&mut SystemRandom);
        self.keep()
    }

    /// Puts the file in the old one's place, durably, whole or not at all.
    fn keep(&self) -> Result<(), IdentityError> {
        let failed = |error| IdentityError::Unwritable(self.path.clone(), error);
        let mut plain = Wiped::default();
        serde_json::to_writer(&mut plain, &self.contents).map_err(|error| failed(error.into()))?;
        let sealed = seal::seal(&self.key.derive(PURPOSE), CONTEXT, &plain)
            .map_err(|_| IdentityError::Key(KeyFileError::Randomness))?;
        let mut random = [0; 8];
        SystemRandom.fill(&mut random);
        let next = self.path.with_added_extension(to_hex(&random));
        let mut file = PrivateFile::create(&next).map_err(IdentityError::File)?.into_file();
        let written = file.write_all(&sealed).and_then(|()| file.sync_all());
        let replaced = written.and_then(|()| std::fs::rename(&next, &self.path));
        if replaced.is_err() {
            let _left_behind_otherwise = std::fs::remove_file(&next);
        }
        replaced.and_then(|()| sync_folder(&self.path)).map_err(failed)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("subject", &self.public().subject()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn places(folder: &tempfile::TempDir) -> (PathBuf, PathBuf) {
        (folder.path().join("agent.identity"), folder.path().join("identity.key"))
    }

    #[test]
    fn an_identity_is_the_same_after_a_restart_and_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = places(&folder);
        let mut identity = Identity::open_or_create(&path, &key).unwrap();
        identity.set_agent_id("agt_x").unwrap();
        let again = Identity::open_or_create(&path, &key).unwrap();
        assert_eq!(again.public(), identity.public());
        assert_eq!(again.sek().unwrap().public(), identity.sek().unwrap().public());
        assert_eq!(again.agent_id(), Some("agt_x"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        let hex = to_hex(identity.identity_key().expose());
        assert!(!bytes.windows(hex.len()).any(|window| window == hex.as_bytes()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_damaged_file_or_a_lost_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = places(&folder);
        drop(Identity::open_or_create(&path, &key).unwrap());
        let good = std::fs::read(&path).unwrap();
        let other = folder.path().join("other.key");
        assert!(matches!(Identity::open_or_create(&path, &other), Err(IdentityError::Key(_))));
        Key32::create(&other).unwrap();
        assert!(matches!(Identity::open_or_create(&path, &other), Err(IdentityError::NotOurs(_))));
        let mut bad = good.clone();
        bad[20] ^= 1;
        for bytes in [&bad[..], b"", &good[..good.len() - 1]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Identity::open_or_create(&path, &key), Err(IdentityError::NotOurs(_))));
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is left as it is");
        }
        std::fs::write(&path, good).unwrap();
        assert!(Identity::open_or_create(&path, &key).is_ok());
    }
}
