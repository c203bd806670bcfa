//! The log as those see it who have something to say.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::allowance::Party;
use crate::chain::{Chain, ChainKey};
use crate::entry::Entry;
use crate::inbox::{Inbox, Suspended, Totals};
use crate::recover::{self, LogOpenError};
use crate::writer::Writer;

/// Where a log is, and how large its files grow.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub(crate) path: PathBuf,
    pub(crate) head: PathBuf,
    pub(crate) max_file_bytes: u64,
    pub(crate) known: Option<ChainMark>,
}

/// A chain, and how many lines of it were durable at some time. Kept elsewhere, it shows later that a log was taken away
/// together with its head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainMark {
    pub(crate) chain: String,
    pub(crate) lines: u64,
}

const MARK_PREFIX: &str = "obol-audit 1";

impl ChainMark {
    /// The name of the chain.
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

impl fmt::Display for ChainMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK_PREFIX} {} {}", self.chain, self.lines)
    }
}

/// The text is not a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAMark;

impl fmt::Display for NotAMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a mark of an audit log")
    }
}

impl core::error::Error for NotAMark {}

impl FromStr for ChainMark {
    type Err = NotAMark;

    fn from_str(text: &str) -> Result<Self, NotAMark> {
        let words = text.strip_prefix(MARK_PREFIX).and_then(|rest| rest.strip_prefix(' ')).ok_or(NotAMark)?;
        let (chain, lines) = words.split_once(' ').ok_or(NotAMark)?;
        Ok(Self { chain: chain.to_owned(), lines: lines.parse().map_err(|_| NotAMark)? })
    }
}

/// A file that has grown to this many bytes is closed and the next one begun.
const DEFAULT_MAX_FILE_BYTES: u64 = 64 << 20;

impl LogOptions {
    /// A log in `path`. How far it has got is kept in `head`, which should lie where the log's readers cannot write.
    pub fn new(path: impl Into<PathBuf>, head: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), head: head.into(), max_file_bytes: DEFAULT_MAX_FILE_BYTES, known: None }
    }

    /// What somebody else remembers of this log. Lines that it knows of and that are gone are noted like those that the
    /// head knows of.
    #[must_use]
    pub fn known(mut self, mark: Option<ChainMark>) -> Self {
        self.known = mark;
        self
    }

    /// The size at which a file is closed, in bytes; 64 MiB if not said. Full files are never removed.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// Opens the log, or begins one, and starts the thread that writes it.
    ///
    /// # Errors
    ///
    /// [`LogOpenError`] if a file cannot be used, another process writes this log, it is damaged, or it was sealed under another
    /// key. Nothing is changed then.
    pub fn open(self, key: ChainKey) -> Result<AuditLog, LogOpenError> {
        let opened = recover::open(&self, &key)?;
        let path = self.path.clone();
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
        Ok(AuditLog { inbox, thread: Some(thread), mark, begins })
    }
}

/// An audit log that is being written. Share it in an `Arc`; dropping it writes what waits and ends it in good order.
#[derive(Debug)]
pub struct AuditLog {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    mark: ChainMark,
    begins: bool,
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
