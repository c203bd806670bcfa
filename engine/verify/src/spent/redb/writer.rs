//! The thread that owns the file: each round is one commit of all that waits, and of what is to be forgotten.
//!
//! After a commit that failed nobody knows what reached the disk, so nothing after it can be promised either: the set
//! stops for good.

use core::ops::ControlFlow;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use obol_session::clock::Clock;

use super::store::Store;
use crate::spent::inbox::{Content, Inbox, Waiting, refuse};
use crate::spent::index::{Bucket, Index, SettledClock, bucket_of, horizon_at};
use crate::spent::{Mark, SpendError};

/// The most spends that may wait for one commit.
pub(super) const MAX_WAITING: usize = 1 << 16;
/// How often the writer looks whether there is something to forget, when nothing else wakes it.
const TICK: Duration = Duration::from_secs(1);
/// Monotonic seconds after which a commit that has not ended counts as a disk that does not answer.
const STALLED_SECS: u64 = 2;

/// What writer and spenders share: all live marks, and how far the writer is.
pub(super) struct Marks {
    index: Index,
    settled: SettledClock,
    clock: Arc<dyn Clock>,
    keep_after_expiry: u64,
    /// When the commit under way was begun, in monotonic seconds.
    committing_since: Option<u64>,
}

/// What goes into one commit.
struct Work {
    waiting: Vec<Waiting>,
    horizon: Option<u64>,
    /// Let go of only when the lock is free again: there may be many.
    _forgotten: BTreeMap<u64, Bucket>,
}

impl Marks {
    pub(super) fn new(clock: Arc<dyn Clock>, keep_after_expiry: u64, index: Index) -> Self {
        let settled = SettledClock::new(&*clock);
        Self { index, settled, clock, keep_after_expiry, committing_since: None }
    }

    pub(super) fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        self.index.is_spent(mark)
    }

    /// Takes the mark, and the one that goes with it, visible to everyone from here on.
    pub(super) fn insert(&mut self, mark: &Mark, with: Option<&Mark>) -> Result<(), SpendError> {
        self.index.insert(mark, with)
    }

    pub(super) fn health(&self) -> Result<(), SpendError> {
        let now = self.clock.monotonic();
        match self.committing_since {
            Some(since) if now.saturating_sub(since) >= STALLED_SECS => {
                Err(SpendError::Unavailable("the disk does not answer".into()))
            }
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn committing_since(&self) -> Option<u64> {
        self.committing_since
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn forget(&mut self) -> BTreeMap<u64, Bucket> {
        match self.settled.reading(&*self.clock) {
            Some(now) => self.index.forget_before(horizon_at(now, self.keep_after_expiry)),
            None => BTreeMap::new(),
        }
    }
}

pub(super) fn run(inbox: &Inbox<Marks>, mut store: Store) {
    while let Some(work) = next_work(inbox, store.oldest()) {
        let marks = work.waiting.iter().flat_map(Waiting::marks);
        let batch: Vec<_> = marks.map(|mark| (bucket_of(mark), *mark.id())).collect();
        if let Err(error) = store.commit(&batch, work.horizon) {
            inbox.refuse(format!("a commit failed, restart to recover: {error}"));
            refuse(work.waiting, "the commit failed");
            return;
        }
        for one in work.waiting {
            one.resolve(Ok(()));
        }
    }
}

/// The next commit; `None` when the set is closed and nothing waits.
fn next_work(inbox: &Inbox<Marks>, oldest_on_disk: Option<u64>) -> Option<Work> {
    inbox.with(|marks| marks.committing_since = None);
    inbox.next(|content: &mut Content<Marks>| {
        let forgotten = content.own.forget();
        let horizon = content.own.index.horizon();
        let horizon = oldest_on_disk.is_some_and(|oldest| oldest < horizon).then_some(horizon);
        if !content.is_empty() || horizon.is_some() {
            let waiting = content.take(usize::MAX);
            content.own.committing_since = Some(content.own.clock.monotonic());
            return ControlFlow::Break(Some(Work { waiting, horizon, _forgotten: forgotten }));
        }
        if content.is_closing() {
            return ControlFlow::Break(None);
        }
        ControlFlow::Continue(TICK)
    })
}
