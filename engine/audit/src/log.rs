//! The log as those see it who have something to say.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::allowance::Party;
use crate::chain::{Chain, ChainKey};
use crate::entry::Entry;
use crate::inbox::{Inbox, Suspended, Totals};
use crate::options::{ChainMark, LogOptions};
use crate::recover::{self, LogOpenError};
use crate::writer::Writer;

/// What there is to read of a log, and what its seals are checked by.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) head: PathBuf,
    pub(crate) key: Arc<ChainKey>,
}

impl LogOptions {
    /// Opens the log, or begins one, and starts the thread that writes it.
    ///
    /// # Errors
    ///
    /// [`LogOpenError`] if a file cannot be used, another process writes this log, it is damaged, or it was sealed under another
    /// key. Nothing is changed then.
    pub fn open(self, key: ChainKey) -> Result<AuditLog, LogOpenError> {
        let opened = recover::open(&self, &key)?;
        let path = self.path.clone();
        let key = Arc::new(key);
        let source = Source { path: path.clone(), head: self.head.clone(), key: Arc::clone(&key) };
        let chain = Chain::new(key, opened.tip.clone());
        let inbox = Arc::new(Inbox::new(Instant::now()));
        let begins = opened.begins;
        let mut writer = Writer::new(self, opened, chain, Arc::clone(&inbox));
        // The first lines are written here: a log that cannot be written is known at once.
        let mark = writer.begin().map_err(|error| LogOpenError::Io(path.clone(), error))?;
        let thread = std::thread::Builder::new()
            .name("obol-audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| LogOpenError::Io(path, error))?;
        Ok(AuditLog { inbox, thread: Some(thread), mark, begins, source })
    }
}

/// An audit log that is being written. Share it in an `Arc`; dropping it writes what waits and ends it in good order.
#[derive(Debug)]
pub struct AuditLog {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    mark: ChainMark,
    begins: bool,
    pub(crate) source: Source,
}

impl AuditLog {
    /// The chain, and the lines of it that were durable when the log was opened.
    pub fn mark(&self) -> &ChainMark {
        &self.mark
    }

    /// Whether the chain began when the log was opened.
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// Keeps a place for one line. Have it before doing what must not go unaudited.
    ///
    /// # Errors
    ///
    /// [`Suspended`] if too many lines wait, or none can be written. What was to be done must not be done.
    pub fn reserve(&self) -> Result<Reservation<'_>, Suspended> {
        self.inbox.reserve()?;
        Ok(Reservation { inbox: Some(&self.inbox) })
    }

    /// Writes a line about something that happens whether it is audited or not. Where too many lines wait it is given
    /// up, and the log says how many were.
    pub fn note(&self, entry: Entry) {
        self.inbox.note(entry);
    }

    /// Writes `line` about a refusal, or counts it under its code, where there are too many: see the crate's header.
    pub fn refusal(&self, party: Party, code: &'static str, line: impl FnOnce() -> Entry) {
        self.inbox.refusal(party, code, Instant::now(), line);
    }

    /// Tells the log whose session this is, so that its lines name the agent.
    pub fn introduce(&self, session: u64, agent: &str) {
        self.inbox.introduce(session, agent.into());
    }

    /// Whether lines can be written.
    ///
    /// # Errors
    ///
    /// [`Suspended`] says why [`reserve`](Self::reserve) would fail.
    pub fn health(&self) -> Result<(), Suspended> {
        self.inbox.health()
    }

    /// What was refused and given up since the log was opened.
    pub fn totals(&self) -> Totals {
        self.inbox.totals()
    }

    /// Waits until every line so far is durable, or cannot be written.
    ///
    /// # Errors
    ///
    /// [`Suspended`] if lines cannot be written: some of those so far may not be durable.
    pub fn sync(&self) -> Result<(), Suspended> {
        self.inbox.sync()
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A place kept for one line. Dropped unused it is given back.
#[derive(Debug)]
#[must_use]
pub struct Reservation<'a> {
    inbox: Option<&'a Inbox>,
}

impl Reservation<'_> {
    /// Puts a line into the place.
    pub fn put(mut self, entry: Entry) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(entry);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox {
            inbox.give_back();
        }
    }
}
