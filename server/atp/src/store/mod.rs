//! What a provider must not forget: its JWT keys, the tokens of masters, what was revoked, and which secrets are over.
//!
//! All of it is in memory, so that checking a token never waits for a disk or a network. With a file or a Redis, a change is durable
//! there before the call that makes it returns. A token of the signed dialect has no row: all that is ever asked about it is whether
//! it was revoked.

mod file;
mod kept;
pub(crate) mod owners;
mod rows;
#[cfg(feature = "redis")]
mod shared;
mod tokens;

use core::fmt;

use obol_secret::file::PrivateFileError;
use obol_secret::key::{Key32, KeyFileError};

#[cfg(feature = "redis")]
use obol_verify_redis::RedisOptions;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::builder::BuildError;
use crate::keys::KeyPolicy;
use crate::secrets::SecretBook;
use file::Writer;
pub(crate) use kept::Kept;
use owners::Declared;
pub(crate) use rows::{Row, secret_hex};
pub(crate) use tokens::{Record, Tokens};

/// Why a store was not opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The key's file cannot be used.
    Key(KeyFileError),
    /// The store's file cannot be used.
    File(PrivateFileError),
    /// The file is damaged, sealed under another key, or belongs to something else.
    NotOurs(PathBuf, String),
    /// The Redis cannot be used.
    Shared(String),
    /// The thread that writes cannot be started, or there is no randomness.
    System(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::File(error) => write!(f, "the token store: {error}"),
            Self::NotOurs(path, why) => write!(
                f,
                "token store {}: {why}; with its key file it opens. Move both away to start over: all tokens issued so far end \
                 then",
                path.display()
            ),
            Self::Shared(why) => write!(f, "the token store: {why}"),
            Self::System(why) => write!(f, "the token store: {why}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// A change was not made durable. Nothing that depends on it may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unwritable;

/// Thinks over what to write, on what is known. May be asked several times.
type Draft = Box<dyn FnMut(&Kept) -> Vec<Row> + Send>;

/// What has to be in the store whatever happens to it.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only what is shared has to be written again"))]
pub(crate) struct Standing {
    keys: Option<KeyPolicy>,
    declared: Arc<[Declared]>,
    /// Whether who is not declared has no secrets any more. Not where others share the store: their file may be newer.
    is_whole: bool,
    /// What was known of secrets when all was lost.
    #[cfg(feature = "redis")]
    recalled: owners::Owners,
}

#[cfg(feature = "redis")]
impl Standing {
    fn rows(&self, kept: &Kept, now: u64) -> Vec<Row> {
        let key = self.keys.and_then(|policy| kept.keys.due(policy, now));
        let mut owners = kept.owners.recall(&self.recalled);
        // Where nothing is known, what is in force has to be made known again.
        if kept.owners.is_empty() {
            let mut known = kept.owners.clone();
            owners.iter().cloned().for_each(|owner| known.put(owner));
            owners.extend(known.admit(&self.declared, self.is_whole));
        }
        key.into_iter().chain(owners.into_iter().map(Row::Owner)).collect()
    }

    /// All was lost, but for what is in this process's memory. What was retired stays so: it is written again.
    fn lost(&mut self, mut owners: owners::Owners) {
        owners.recall(&self.recalled).into_iter().for_each(|owner| owners.put(owner));
        self.recalled = owners;
    }

    /// What was lost is written again.
    fn settled(&mut self) {
        self.recalled = owners::Owners::default();
    }
}

#[derive(Debug)]
enum Backend {
    Memory,
    File(Writer),
    #[cfg(feature = "redis")]
    Redis(shared::Shared),
}

/// Keys, tokens, revocations and prints of secrets.
#[derive(Debug)]
pub struct Store {
    kept: Arc<RwLock<Kept>>,
    standing: Arc<Mutex<Standing>>,
    backend: Backend,
    /// What prints of secrets are made with.
    prints: Zeroizing<[u8; 32]>,
}

impl Store {
    /// In memory: every token ends with the process.
    pub fn memory() -> Self {
        let mut prints = Zeroizing::new([0; 32]);
        // Without randomness there will be no JWT key either, and no provider.
        let _no_key_either = getrandom::fill(prints.as_mut_slice());
        Self { kept: Arc::default(), standing: Arc::default(), backend: Backend::Memory, prints }
    }

    /// In a file that is created if it is not there, sealed under a key that is.
    ///
    /// # Errors
    /// [`StoreError`] says what cannot be used, and what to do.
    pub fn open(path: &Path, key_file: &Path) -> Result<Self, StoreError> {
        let key = Key32::load_or_create(key_file).map_err(StoreError::Key)?;
        let (writer, rows) = Writer::open(path, &key)?;
        let mut kept = Kept::default();
        for row in rows {
            let applied = kept.apply(&row);
            applied.map_err(|_| StoreError::NotOurs(path.to_owned(), "a row has another form".to_owned()))?;
        }
        Ok(Self {
            kept: Arc::new(RwLock::new(kept)),
            standing: Arc::default(),
            backend: Backend::File(writer),
            prints: key.derive(owners::PURPOSE),
        })
    }

    /// In a Redis or Valkey that all providers of one endpoint share, sealed under a key that all of them have.
    ///
    /// # Errors
    /// [`StoreError`] says what cannot be used, and what to do.
    #[cfg(feature = "redis")]
    pub fn shared(options: RedisOptions, key_file: &Path) -> Result<Self, StoreError> {
        let key = Key32::load_or_create(key_file).map_err(StoreError::Key)?;
        let (kept, standing): (Arc<RwLock<Kept>>, Arc<Mutex<Standing>>) = Default::default();
        let opened = shared::Shared::open(options, &key, &kept, &standing);
        let shared = opened.map_err(|failed| match failed {
            shared::OpenFailed::Redis(error) => StoreError::Shared(error.to_string()),
            shared::OpenFailed::Unreadable(why) => StoreError::Shared(why),
        })?;
        Ok(Self { kept, standing, backend: Backend::Redis(shared), prints: key.derive(owners::PURPOSE) })
    }

    pub(crate) fn kept(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read()
    }

    /// Before these secrets are in force: remembers them, and what is over because they do not name it.
    ///
    /// # Errors
    /// [`BuildError`] if one of them is also a JWT key, or nothing can be written.
    pub(crate) fn admit(
        &self,
        secrets: &mut SecretBook,
        policy: KeyPolicy,
        now: u64,
    ) -> Result<(), BuildError> {
        if self.kept().keys.any(|bytes| secrets.has_secret(bytes)) {
            return Err(BuildError::SecretIsKey);
        }
        let declared = secrets.imprint(&self.prints);
        self.settle(policy, Arc::clone(&declared), now).map_err(|_| BuildError::NoKey)?;
        let kept = self.kept();
        if kept.keys.current(policy, now).is_none() {
            return Err(BuildError::NoKey);
        }
        let retired: usize = declared
            .iter()
            .map(|one| kept.owners.get(&one.name).map_or(0, |owner| owner.count_retired(&one.secrets)))
            .sum();
        if retired > 0 {
            tracing::warn!(
                retired,
                "secrets in the file were retired before and stay refused; `obol atp secret rotate` makes new ones"
            );
        }
        Ok(())
    }

    /// Makes a JWT key if there is none that is young enough, and remembers the secrets that are in force. Outside any runtime.
    pub(crate) fn settle(
        &self,
        policy: KeyPolicy,
        declared: Arc<[Declared]>,
        now: u64,
    ) -> Result<(), Unwritable> {
        let is_whole = !self.is_shared();
        {
            let mut standing = self.standing.lock();
            (standing.keys, standing.is_whole) = (Some(policy), is_whole);
            standing.declared = Arc::clone(&declared);
        }
        let pending = self.begin(Box::new(move |kept| {
            let owners = kept.owners.admit(&declared, is_whole).into_iter().map(Row::Owner);
            kept.keys.due(policy, now).into_iter().chain(owners).collect()
        }))?;
        let Some(pending) = pending else { return Ok(()) };
        // A runtime may be running this thread, and such a thread must not block by itself.
        let waiting = std::thread::spawn(move || pending.blocking_recv());
        waiting.join().ok().and_then(Result::ok).unwrap_or(Err(Unwritable))
    }

    /// Makes a change durable, and in force.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        mut draft: impl FnMut(&Kept) -> (T, Vec<Row>) + Send + 'static,
    ) -> Result<T, Unwritable> {
        let outcome = Arc::new(Mutex::new(None));
        let pending = {
            let outcome = Arc::clone(&outcome);
            self.begin(Box::new(move |kept| {
                let (came_to, rows) = draft(kept);
                *outcome.lock() = Some(came_to);
                rows
            }))?
        };
        if let Some(pending) = pending {
            pending.await.unwrap_or(Err(Unwritable))?;
        }
        let came_to = outcome.lock().take();
        came_to.ok_or(Unwritable)
    }

    /// Where it is not shared, what is in memory changes at once: where the write fails the change stays there, and nothing more is
    /// written. A revocation counts then, and an issued token is not answered.
    fn begin(
        &self,
        mut draft: Draft,
    ) -> Result<Option<oneshot::Receiver<Result<(), Unwritable>>>, Unwritable> {
        #[cfg(feature = "redis")]
        if let Backend::Redis(shared) = &self.backend {
            return shared.begin(draft).map(Some);
        }
        let mut kept = self.kept.write();
        let rows = draft(&kept);
        rows.iter().try_for_each(|row| kept.apply(row)).map_err(|_| Unwritable)?;
        // Under the lock, so that two changes are written in the order in which they were made.
        match &self.backend {
            Backend::File(writer) if !rows.is_empty() => writer.begin(rows).map(Some),
            _ => Ok(None),
        }
    }

    fn is_shared(&self) -> bool {
        #[cfg(feature = "redis")]
        return matches!(self.backend, Backend::Redis(_));
        #[cfg(not(feature = "redis"))]
        false
    }

    /// Whether what is known here is the latest there is. What is not must not be acted on.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.backend {
            #[cfg(feature = "redis")]
            Backend::Redis(shared) => shared.is_fresh(),
            _ => true,
        }
    }

    /// Whether changes can be kept.
    pub(crate) fn is_healthy(&self) -> bool {
        match &self.backend {
            Backend::File(writer) => writer.is_healthy(),
            _ => self.is_fresh(),
        }
    }

    /// Makes a new JWT key when it is time, and forgets what has ended by `now` (Unix seconds). What is shared does so by itself.
    pub(crate) async fn maintain(&self, now: u64) -> Result<(), Unwritable> {
        if self.is_shared() {
            return Ok(());
        }
        let Some(policy) = self.standing.lock().keys else { return Ok(()) };
        if self.kept().keys.due(policy, now).is_some() {
            self.change(move |kept| ((), kept.keys.due(policy, now).into_iter().collect())).await?;
            tracing::info!("a new JWT key");
        }
        let ended = self.kept.write().take_ended(now);
        match &self.backend {
            Backend::File(writer) if !ended.is_empty() => writer.remove(ended).await,
            _ => Ok(()),
        }
    }
}
