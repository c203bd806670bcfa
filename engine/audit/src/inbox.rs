//! The bounded queue in front of the writer: who puts a line pays a push under a short lock.

use core::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::allowance::{Party, Refusals};
use crate::entry::Entry;

/// The most lines that may wait. At the size of an entry, some 5 MB.
pub(crate) const MAX_WAITING: usize = 16_384;
/// Places that hand-outs cannot take: for what an operator does.
const OPERATOR_PLACES: usize = 1_024;
/// Lines about refusals that may wait besides, so that they take no place from anything else.
const MAX_REFUSALS_WAITING: usize = 1_024;

/// Why nothing that must be in the log may be done at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Suspended {
    /// Too many lines wait to be written; it passes when the disk keeps up again.
    Full,
    /// Lines cannot be written. It may pass, when there is space again for instance.
    Failing(Arc<str>),
}

impl fmt::Display for Suspended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk cannot keep up with the audit log; ask again"),
            Self::Failing(reason) => {
                write!(f, "the audit log cannot be written and nothing goes on unaudited: {reason}")
            }
        }
    }
}

impl core::error::Error for Suspended {}

#[allow(clippy::large_enum_variant, reason = "nearly all are lines; a box for each would cost an allocation")]
pub(crate) enum Message {
    Line(Entry),
    Introduce(u64, Box<str>),
}

/// What has not come into a log since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// What must be in the log and was refused because it could not be.
    pub refused: u64,
    /// Lines about what happens anyway that were given up.
    pub dropped: u64,
}

pub(crate) struct State {
    pub(crate) waiting: Vec<Message>,
    /// How many of the lines that wait or are being written are about refusals.
    pub(crate) refusal_lines: usize,
    pub(crate) refusals: Refusals,
    /// Places kept, their lines not put yet.
    pub(crate) reserved: usize,
    /// Lines the writer has taken and not written yet.
    pub(crate) writing: usize,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    /// The same two since the log was opened.
    pub(crate) totals: Totals,
    pub(crate) failing: Option<Arc<str>>,
    /// Counts requests to sync, and those that were answered.
    pub(crate) sync_asked: u64,
    pub(crate) sync_done: u64,
    pub(crate) stopping: bool,
    pub(crate) ended: bool,
    /// The writer sleeps until something comes.
    pub(crate) asleep: bool,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            refusal_lines: 0,
            refusals: Refusals::new(now),
            reserved: 0,
            writing: 0,
            dropped: 0,
            refused: 0,
            totals: Totals::default(),
            failing: None,
            sync_asked: 0,
            sync_done: 0,
            stopping: false,
            ended: false,
            asleep: false,
        }
    }

    /// Places taken, those of refusals apart.
    fn occupied(&self) -> usize {
        (self.waiting.len() + self.reserved + self.writing).saturating_sub(self.refusal_lines)
    }
}

/// The queue in front of the writer.
pub(crate) struct Inbox {
    pub(crate) state: Mutex<State>,
    /// Something came, and the writer sleeps.
    pub(crate) came: Condvar,
    /// Something came that cannot wait for the end of a nap.
    pub(crate) urgent: Condvar,
    pub(crate) synced: Condvar,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State::new(now)),
            came: Condvar::new(),
            urgent: Condvar::new(),
            synced: Condvar::new(),
        }
    }

    pub(crate) fn reserve(&self) -> Result<(), Suspended> {
        let mut state = self.state.lock();
        let suspended = match &state.failing {
            Some(reason) => Suspended::Failing(Arc::clone(reason)),
            None if state.occupied() >= MAX_WAITING - OPERATOR_PLACES => Suspended::Full,
            None => {
                state.reserved += 1;
                return Ok(());
            }
        };
        state.refused += 1;
        state.totals.refused += 1;
        Err(suspended)
    }

    pub(crate) fn give_back(&self) {
        let mut state = self.state.lock();
        state.reserved = state.reserved.saturating_sub(1);
    }

    pub(crate) fn put(&self, entry: Entry) {
        let mut state = self.state.lock();
        state.reserved = state.reserved.saturating_sub(1);
        self.push(state, Message::Line(entry));
    }

    pub(crate) fn note(&self, entry: Entry) {
        let mut state = self.state.lock();
        if state.occupied() >= MAX_WAITING {
            state.dropped += 1;
            state.totals.dropped += 1;
            return;
        }
        self.push(state, Message::Line(entry));
    }

    /// Writes a refusal, or counts it.
    pub(crate) fn refusal(
        &self,
        party: Party,
        code: &'static str,
        now: Instant,
        line: impl FnOnce() -> Entry,
    ) {
        let mut state = self.state.lock();
        let has_line = state.failing.is_none()
            && state.refusal_lines < MAX_REFUSALS_WAITING
            && state.refusals.allow(party, now);
        if has_line {
            state.refusal_lines += 1;
            return self.push(state, Message::Line(line()));
        }
        let timed = state.refusals.due().is_some();
        state.refusals.count(code);
        // The first that is counted sets the writer a time.
        if !timed && core::mem::take(&mut state.asleep) {
            self.came.notify_one();
        }
    }

    pub(crate) fn introduce(&self, session: u64, agent: Box<str>) {
        let state = self.state.lock();
        // Only names are lost where there is no place.
        if state.occupied() < MAX_WAITING {
            self.push(state, Message::Introduce(session, agent));
        }
    }

    fn push(&self, mut state: parking_lot::MutexGuard<'_, State>, mut message: Message) {
        if let Message::Line(entry) = &mut message {
            entry.cut_names();
        }
        state.waiting.push(message);
        let wake = core::mem::take(&mut state.asleep);
        let half_full = state.waiting.len() == MAX_WAITING / 4;
        drop(state);
        if wake {
            self.came.notify_one();
        } else if half_full {
            self.urgent.notify_one();
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state.lock().totals
    }

    pub(crate) fn health(&self) -> Result<(), Suspended> {
        match &self.state.lock().failing {
            Some(reason) => Err(Suspended::Failing(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), Suspended> {
        let mut state = self.state.lock();
        state.sync_asked += 1;
        let mine = state.sync_asked;
        state.asleep = false;
        self.came.notify_one();
        self.urgent.notify_one();
        while state.sync_done < mine && state.failing.is_none() && !state.ended {
            self.synced.wait(&mut state);
        }
        if state.sync_done >= mine && state.failing.is_none() {
            return Ok(());
        }
        let reason = state.failing.clone().unwrap_or_else(|| "the audit log was closed".into());
        Err(Suspended::Failing(reason))
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.came.notify_one();
        self.urgent.notify_one();
    }
}
