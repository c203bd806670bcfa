//! The one thread that writes what comes into its [`Inbox`].
//!
//! While lines come in, the thread naps for [`NAP`] between two writes and is not woken for each line, so a caller's cost
//! is a push under a short lock. Lines are in the file within a nap, and durable within [`SYNC_WITHIN`].
//!
//! A write that fails stops hand-outs at once; it is tried again until it works, and the log then says how many were
//! refused. After a failed sync nobody knows what the disk holds: nothing more is written until a restart.

use core::time::Duration;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use obol_secret::file::PrivateFile;
#[cfg(test)]
use parking_lot::Mutex;

use crate::chain::{Chain, Opening, VERSION};
use crate::entry::{Decision, Entry, Event};
use crate::files;
use crate::head::{Head, HeadFile};
use crate::inbox::{Inbox, MAX_WAITING, Message};
use crate::options::{ChainMark, LogOptions};
use crate::recover::Opened;

/// A line is durable this long after it was put, at the latest, as long as the disk keeps up.
pub const SYNC_WITHIN: Duration = Duration::from_millis(100);
/// Pause between writes under load. What waits here is lost if the process is killed.
const NAP: Duration = Duration::from_millis(2);
/// Lines are collected up to this many bytes before they are written.
const WRITE_CHUNK: usize = 256 << 10;
/// A vector of entries larger than this is not kept for the next round.
const MAX_SPARE: usize = 2_048;
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long a stop waits for a disk that cannot be written.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What the writer found in the queue.
struct Taken {
    messages: Vec<Message>,
    /// Those among them about refusals.
    refusal_lines: usize,
    /// Refusals without lines of their own, where it is time to say so.
    refusals: Vec<(&'static str, u64)>,
    dropped: u64,
    refused: u64,
    sync_asked: u64,
    stopping: bool,
}

pub(crate) struct Writer {
    options: LogOptions,
    file: File,
    /// Bytes in the file, all of them whole lines.
    length: u64,
    file_number: u64,
    head: HeadFile,
    chain_id: String,
    chain: Chain,
    first: Vec<(Event, Opening)>,
    inbox: Arc<Inbox>,
    buffer: Vec<u8>,
    /// An empty vector to swap for the full one.
    spare: Vec<Message>,
    /// When the oldest line that is not durable was written.
    unsynced: Option<Instant>,
    /// Syncs are over: what the disk holds is not known.
    dead: bool,
    /// The next file could not be begun; said once.
    stuck: bool,
    /// A file that tests put in the place of the one being written.
    #[cfg(test)]
    exchange: Arc<Mutex<Option<File>>>,
}

#[cfg(test)]
impl Writer {
    pub(crate) fn swap_file(&mut self, file: File) -> File {
        self.length = 0;
        core::mem::replace(&mut self.file, file)
    }

    pub(crate) fn file_slot(&self) -> Arc<Mutex<Option<File>>> {
        Arc::clone(&self.exchange)
    }
}

impl Writer {
    pub(crate) fn new(options: LogOptions, opened: Opened, chain: Chain, inbox: Arc<Inbox>) -> Self {
        Self {
            options,
            file: opened.file,
            length: 0,
            file_number: opened.file_number,
            head: opened.head,
            chain_id: opened.chain,
            chain,
            first: opened.first,
            inbox,
            buffer: Vec::new(),
            spare: Vec::new(),
            unsynced: None,
            dead: false,
            stuck: false,
            #[cfg(test)]
            exchange: Arc::default(),
        }
    }

    /// Writes the first lines, durably.
    pub(crate) fn begin(&mut self) -> io::Result<ChainMark> {
        self.length = self.file.metadata()?.len();
        for (event, opening) in core::mem::take(&mut self.first) {
            self.chain.append(&Entry::new(event), &opening, &mut self.buffer);
        }
        self.try_write()?;
        self.try_sync()?;
        Ok(ChainMark { chain: self.chain_id.clone(), lines: self.chain.tip.next })
    }

    pub(crate) fn run(mut self) {
        loop {
            let mut taken = self.take();
            let count = taken.messages.len();
            self.write_all(&mut taken);
            let mut state = self.inbox.state.lock();
            state.writing -= count;
            state.refusal_lines -= taken.refusal_lines;
            drop(state);
            if taken.stopping {
                self.end();
                return;
            }
            let due = self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_WITHIN);
            if due || taken.sync_asked > self.inbox.state.lock().sync_done {
                self.sync();
            }
            self.answer_syncs(taken.sync_asked);
            if count > 0 && !self.dead {
                self.nap();
            }
        }
    }

    /// Waits for something to do.
    fn take(&mut self) -> Taken {
        let mut state = self.inbox.state.lock();
        while state.waiting.is_empty() && !state.stopping && state.sync_asked == state.sync_done {
            state.asleep = true;
            let sync = self.unsynced.map(|since| since + SYNC_WITHIN);
            let sum_up = state.refusals.due().filter(|_| state.failing.is_none());
            match sync.into_iter().chain(sum_up).min() {
                None => self.inbox.came.wait(&mut state),
                Some(due) => {
                    if self.inbox.came.wait_until(&mut state, due).timed_out() {
                        break;
                    }
                }
            }
        }
        state.asleep = false;
        let now = Instant::now();
        let sum_up =
            state.failing.is_none() && state.refusals.due().is_some_and(|due| due <= now || state.stopping);
        let refusals = if sum_up { state.refusals.sum_up(now) } else { Vec::new() };
        let messages = core::mem::replace(&mut state.waiting, core::mem::take(&mut self.spare));
        state.writing = messages.len();
        // While writes fail the count goes on; `resume` reports it.
        let refused = if state.failing.is_none() { core::mem::take(&mut state.refused) } else { 0 };
        Taken {
            messages,
            refusal_lines: state.refusal_lines,
            refusals,
            dropped: core::mem::take(&mut state.dropped),
            refused,
            sync_asked: state.sync_asked,
            stopping: state.stopping,
        }
    }

    fn nap(&self) {
        let mut state = self.inbox.state.lock();
        if state.waiting.len() < MAX_WAITING / 4 && !state.stopping && state.sync_asked == state.sync_done {
            self.inbox.urgent.wait_for(&mut state, NAP);
        }
    }

    fn write_all(&mut self, taken: &mut Taken) {
        if self.dead {
            return;
        }
        if taken.dropped > 0 {
            tracing::error!(lines = taken.dropped, "lines of the audit log were given up: too many waited");
            self.note_count(Event::Dropped, taken.dropped);
        }
        if taken.refused > 0 {
            self.note_count(Event::Suspended, taken.refused);
        }
        for (code, count) in taken.refusals.drain(..) {
            let decision = Some(Decision::Deny);
            let entry =
                Entry { decision, code: Some(code), count: Some(count), ..Entry::new(Event::Denials) };
            self.chain.append(&entry, &Opening::default(), &mut self.buffer);
        }
        for message in taken.messages.drain(..) {
            match message {
                Message::Introduce(session, agent) => self.chain.introduce(session, agent),
                Message::Line(entry) => {
                    self.chain.append(&entry, &Opening::default(), &mut self.buffer);
                    if self.buffer.len() >= WRITE_CHUNK {
                        self.write();
                    }
                }
            }
        }
        self.write();
        if taken.messages.capacity() <= MAX_SPARE {
            self.spare = core::mem::take(&mut taken.messages);
        }
    }

    fn note_count(&mut self, event: Event, count: u64) {
        let entry = Entry { count: Some(count), ..Entry::new(event) };
        self.chain.append(&entry, &Opening::default(), &mut self.buffer);
    }

    /// Writes what is collected, however long it takes.
    fn write(&mut self) {
        let mut stopped_since = None;
        while let Err(error) = self.try_write() {
            self.suspend(&error);
            if self.dead || self.give_up(&mut stopped_since) {
                tracing::error!("lines of the audit log were lost");
                self.dead = true;
                self.buffer.clear();
                return;
            }
        }
        self.resume();
        self.rotate_if_full();
    }

    fn suspend(&self, error: &io::Error) {
        let mut state = self.inbox.state.lock();
        if state.failing.is_none() {
            tracing::error!(
                file = %self.options.path.display(), %error,
                "the audit log cannot be written; what must be in it is refused until it can"
            );
            state.failing = Some(error.to_string().into());
            self.inbox.synced.notify_all();
        }
    }

    /// Pauses before another attempt; true once a stop has waited long enough.
    fn give_up(&self, stopped_since: &mut Option<Instant>) -> bool {
        let mut state = self.inbox.state.lock();
        self.inbox.urgent.wait_for(&mut state, RETRY);
        state.stopping && stopped_since.get_or_insert_with(Instant::now).elapsed() >= STOP_PATIENCE
    }

    /// Things go on after a failure; the log says how many were refused.
    fn resume(&mut self) {
        let mut state = self.inbox.state.lock();
        if state.failing.take().is_none() {
            return;
        }
        let refused = core::mem::take(&mut state.refused);
        drop(state);
        tracing::warn!(refused, "the audit log can be written again");
        self.note_count(Event::Suspended, refused);
        self.write();
    }

    fn try_write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if let Some(file) = self.exchange.lock().take() {
            self.length = file.metadata()?.len();
            self.file = file;
        }
        if let Err(error) = self.file.write_all(&self.buffer) {
            // What was written of it goes again, so that the next attempt begins on a line of its own.
            if self.file.metadata().is_ok_and(|metadata| metadata.len() == self.length) {
                return Err(error);
            }
            if let Err(again) = self.file.set_len(self.length) {
                self.dead = true;
                tracing::error!(error = %again, "the audit log is left with a torn line");
            }
            return Err(error);
        }
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) {
        if self.dead || self.unsynced.is_none() {
            return;
        }
        if let Err(error) = self.try_sync() {
            self.dead = true;
            tracing::error!(%error, "the audit log cannot be made durable; what must be in it is refused until a restart");
            self.inbox.state.lock().failing = Some(format!("sync failed: {error}; restart").into());
            self.inbox.synced.notify_all();
        }
        if !files::is_at(&self.file, &self.options.path) {
            self.next_file();
        }
    }

    fn try_sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.unsynced = None;
        if let Some(n) = self.chain.tip.next.checked_sub(1) {
            let head = Head { chain: self.chain_id.clone(), n: Some(n), hash: self.chain.tip.prev };
            if let Err(error) = self.head.write(&head, self.chain.key()) {
                // The log is whole without it; only less would be missed.
                tracing::error!(file = %self.options.head.display(), %error, "cannot note how far the audit log got");
            }
        }
        Ok(())
    }

    fn answer_syncs(&self, asked: u64) {
        let mut state = self.inbox.state.lock();
        if self.unsynced.is_none() && !self.dead && state.sync_done < asked {
            state.sync_done = asked;
            self.inbox.synced.notify_all();
        }
        if self.dead {
            // Nobody gets an answer from here; `failing` says why.
            state.sync_done = state.sync_asked;
        }
    }

    fn rotate_if_full(&mut self) {
        if self.length < self.options.max_file_bytes || self.dead {
            return;
        }
        self.sync();
        if self.dead || self.length < self.options.max_file_bytes {
            return;
        }
        let path = &self.options.path;
        if files::is_at(&self.file, path)
            && let Err(error) = std::fs::rename(path, files::full(path, self.file_number))
        {
            tracing::error!(%error, file = %path.display(), "the audit log cannot be put aside; it grows on");
            return;
        }
        self.next_file();
    }

    /// Goes on in a new file, where the one being written was put aside, by us or by somebody else.
    fn next_file(&mut self) {
        let path = &self.options.path;
        let file = match PrivateFile::create(path).and_then(PrivateFile::locked) {
            Ok(file) => file.into_file(),
            Err(error) => {
                if !core::mem::replace(&mut self.stuck, true) {
                    tracing::error!(%error, file = %path.display(), "a new file of the audit log cannot be begun");
                }
                return;
            }
        };
        self.file = file;
        self.stuck = false;
        self.length = 0;
        self.file_number += 1;
        let opening = Opening {
            version: Some(VERSION),
            chain: Some(self.chain_id.clone()),
            key: Some(self.chain.key().id()),
            file: Some(self.file_number),
            ..Opening::default()
        };
        self.chain.append(&Entry::new(Event::Rotate), &opening, &mut self.buffer);
        self.write();
    }

    fn end(&mut self) {
        if !self.dead {
            self.chain.append(&Entry::new(Event::Stop), &Opening::default(), &mut self.buffer);
            self.write();
            self.sync();
        }
        let mut state = self.inbox.state.lock();
        state.ended = true;
        state.failing.get_or_insert_with(|| "the audit log was closed".into());
        self.inbox.synced.notify_all();
    }
}
