//! What a provider must not forget: its JWT keys, the tokens of masters, and what was revoked.
//!
//! All of it is in memory, so that checking a token never waits for a disk. With a file, a change is durable before the call
//! that makes it returns. A token of the signed dialect has no row: all that is ever asked about it is whether it was revoked.

mod file;
mod tokens;

use core::fmt;
use obol_secret::file::PrivateFileError;
use obol_secret::key::{Key32, KeyFileError};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use file::Writer;
pub(crate) use file::{Row, secret_hex};
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
            Self::System(why) => write!(f, "the token store: {why}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// A change was not made durable. Nothing that depends on it may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unwritable;

/// Keys, tokens and revocations.
#[derive(Debug)]
pub struct Store {
    tokens: RwLock<Tokens>,
    /// `None` in memory.
    writer: Option<Writer>,
    /// Rows of keys as they were found.
    keys: Vec<Row>,
}

impl Store {
    /// In memory: every token ends with the process.
    pub fn memory() -> Self {
        Self { tokens: RwLock::default(), writer: None, keys: Vec::new() }
    }

    /// In a file that is created if it is not there, sealed under a key that is.
    ///
    /// # Errors
    /// [`StoreError`] says what cannot be used, and what to do.
    pub fn open(path: &Path, key_file: &Path) -> Result<Self, StoreError> {
        let key = Key32::load_or_create(key_file).map_err(StoreError::Key)?;
        let (writer, rows) = Writer::open(path, &key)?;
        let mut tokens = Tokens::default();
        let mut keys = Vec::new();
        for row in rows {
            match row {
                Row::Key { .. } => keys.push(row),
                Row::Token(record) => tokens.put(record),
                Row::Revoked { id, until } => tokens.revoke(&id, until),
            }
        }
        Ok(Self { tokens: RwLock::new(tokens), writer: Some(writer), keys })
    }

    /// The keys that were found when it was opened.
    pub(crate) fn take_keys(&mut self) -> Vec<Row> {
        core::mem::take(&mut self.keys)
    }

    pub(crate) fn tokens(&self) -> RwLockReadGuard<'_, Tokens> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change to what is in memory, and then durable what it says has to be kept. Where that fails the change stays in
    /// memory, and nothing more is written: a revocation counts, and an issued token is not answered.
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(&mut Tokens) -> (T, Vec<Row>),
    ) -> Result<T, Unwritable> {
        let (outcome, rows) = change(&mut self.tokens.write().unwrap_or_else(PoisonError::into_inner));
        self.keep(rows).await?;
        Ok(outcome)
    }

    /// Makes rows durable.
    pub(crate) async fn keep(&self, rows: Vec<Row>) -> Result<(), Unwritable> {
        match &self.writer {
            Some(writer) if !rows.is_empty() => writer.write(rows).await,
            _ => Ok(()),
        }
    }

    /// The same for the start, outside any runtime.
    pub(crate) fn keep_now(&self, rows: Vec<Row>) -> Result<(), Unwritable> {
        self.writer.as_ref().map_or(Ok(()), |writer| writer.write_now(rows))
    }

    /// Whether changes can be kept.
    pub(crate) fn is_healthy(&self) -> bool {
        self.writer.as_ref().is_none_or(Writer::is_healthy)
    }

    /// Forgets what has ended by `now` (Unix seconds).
    pub(crate) async fn forget(&self, now: u64) -> Result<(), Unwritable> {
        let ended = self.tokens.write().unwrap_or_else(PoisonError::into_inner).take_ended(now);
        match &self.writer {
            Some(writer) if !ended.is_empty() => writer.remove(ended).await,
            _ => Ok(()),
        }
    }
}
