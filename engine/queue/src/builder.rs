//! How a queue is opened: settings, files, and the start of its threads.

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use obol_session::clock::{Clock, SystemClock};
use redb::StorageBackend;

use crate::demand::DemandLimits;
use crate::error::StoreOpenError;
use crate::keys::MasterKey;
use crate::queue::Queue;
use crate::recover::{self, Files};
use crate::shared::Settings;
use crate::source::{Tbac, TokenSource};
use crate::threads::Refiller;

/// How a queue is opened.
#[derive(Debug)]
pub struct QueueBuilder {
    settings: Settings,
    clock: Box<dyn Clock>,
    source: Box<dyn TokenSource>,
}

impl Queue {
    /// Opens a store with default settings, or creates it: the database at `path` and its key file at `path.keys`.
    ///
    /// # Errors
    ///
    /// [`StoreOpenError`]; nothing on disk was changed.
    pub fn open(path: impl Into<PathBuf>, master_key: MasterKey) -> Result<Self, StoreOpenError> {
        Self::builder().open(path, master_key)
    }

    /// Settings to open a store with.
    pub fn builder() -> QueueBuilder {
        QueueBuilder::default()
    }
}

impl Default for QueueBuilder {
    fn default() -> Self {
        Self {
            settings: Settings {
                limits: DemandLimits { batch: 10, max_batch: 64, max_ready: 256, max_depth: 10_000 },
                min_life: 5,
                max_sessions: 10_000,
            },
            clock: Box::new(SystemClock),
            source: Box::new(Tbac),
        }
    }
}

impl QueueBuilder {
    /// Tokens in a batch under little load; more load makes larger batches, and a tool that is seldom used gets smaller
    /// ones. 10 if not said, at least 1, and no more than half of [`Self::max_ready`].
    #[must_use]
    pub fn batch(mut self, tokens: u16) -> Self {
        self.settings.limits.batch = tokens.max(1);
        self.settings.limits.max_batch = self.settings.limits.max_batch.max(tokens);
        self
    }

    /// How many tokens are kept in memory for one tool at most. 256 if not said. That is also what a crash can cost.
    #[must_use]
    pub fn max_ready(mut self, tokens: usize) -> Self {
        self.settings.limits.max_ready = tokens.max(1);
        self
    }

    /// The most tokens kept for one tool, in memory and on disk. 10,000 if not said.
    #[must_use]
    pub fn max_depth(mut self, tokens: usize) -> Self {
        self.settings.limits.max_depth = tokens.max(1);
        self
    }

    /// The least life a token has left when it is handed out. 5 s if not said, and never more than a quarter of the
    /// tool's ttl.
    #[must_use]
    pub fn min_life(mut self, life: Duration) -> Self {
        self.settings.min_life = life.as_secs();
        self
    }

    /// The most sessions, flushed ones whose time is not over included. 10,000 if not said.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.settings.max_sessions = sessions.max(1);
        self
    }

    /// Another maker of tokens than TBAC's, for tokens of another format. Sessions and their grants say for which tools,
    /// as before; what the document says about keys is then nobody's.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.source = Box::new(source);
        self
    }

    /// Another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Opens a store, or creates it: the database at `path` and its key file at `path.keys`, both with mode 0600, in
    /// a folder that exists.
    ///
    /// # Errors
    ///
    /// [`StoreOpenError`]; nothing on disk was changed.
    pub fn open(self, path: impl Into<PathBuf>, master_key: MasterKey) -> Result<Queue, StoreOpenError> {
        let files = Files::open(&path.into())?;
        self.start(files, master_key)
    }

    /// As [`Self::open`], on storage of the caller's own, as tests that inject faults need it.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(
        self,
        database: impl StorageBackend,
        keys: impl StorageBackend,
        master_key: MasterKey,
    ) -> Result<Queue, StoreOpenError> {
        let files =
            Files { path: PathBuf::from("(storage)"), database: Box::new(database), keys: Box::new(keys) };
        self.start(files, master_key)
    }

    fn start(self, files: Files, master_key: MasterKey) -> Result<Queue, StoreOpenError> {
        let path = files.path.clone();
        let opened = recover::open(files, master_key, self.settings, self.clock, self.source)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|error| StoreOpenError::Io(path.clone(), error))
        };
        let (writer, opener) = (opened.writer, opened.opener);
        let refiller = Refiller::new(Arc::clone(&opened.shared));
        let mut queue = Queue { shared: opened.shared, refiller: None, writer: None, opener: None };
        queue.opener = Some(spawn("obol-opener", Box::new(move || opener.run()))?);
        queue.writer = Some(spawn("obol-writer", Box::new(move || writer.run()))?);
        queue.refiller = Some(spawn("obol-refiller", Box::new(move || refiller.run()))?);
        Ok(queue)
    }
}
