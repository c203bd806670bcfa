//! The thread that owns the file, and what it shares with those who spend.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::store::Store;
use crate::spent::index::{Bucket, Index, SettledClock, bucket_of, horizon_at};
use crate::spent::{Mark, SpendError, SpendTicket, Spender};
use obol_session::clock::Clock;

/// The most spends that may wait for one commit.
const MAX_WAITING: usize = 1 << 16;
/// How often the writer looks whether there is something to forget, when nothing else wakes it.
const TICK: Duration = Duration::from_secs(1);

/// Monotonic seconds after which a commit that has not ended counts as a disk that does not answer.
const STALLED_SEC: u64 = 2;

/// What the writer and the spenders share.
pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    clock: Arc<dyn Clock>,
    keep_after_expiry: u64,
}

struct State {
    index: Index,
    settled: SettledClock,
    waiting: Vec<Waiting>,
    /// Why the set has stopped for good.
    failed: Option<Cow<'static, str>>,
    /// When the commit under way was begun, in monotonic seconds.
    committing_since: Option<u64>,
    closing: bool,
}

struct Waiting {
    span: u64,
    id: [u8; 16],
    spender: Spender,
}

/// What goes into one commit.
struct Work {
    waiting: Vec<Waiting>,
    horizon: Option<u64>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>, keep_after_expiry: u64, index: Index) -> Self {
        let settled = SettledClock::new(&*clock);
        let state = State {
            index,
            settled,
            waiting: Vec::new(),
            failed: None,
            committing_since: None,
            closing: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), clock, keep_after_expiry }
    }

    pub(super) fn is_spent(&self, mark: &Mark) -> Result<bool, SpendError> {
        let state = self.lock();
        state.running()?;
        state.index.is_spent(mark)
    }

    pub(super) fn spend(&self, mark: Mark) -> SpendTicket {
        let mut state = self.lock();
        match state.take(&mark) {
            Ok(ticket) => {
                // The writer takes everything that waits, so it needs waking only for the first.
                if state.waiting.len() == 1 {
                    self.work.notify_one();
                }
                ticket
            }
            Err(error) => SpendTicket::ready(Err(error)),
        }
    }

    pub(super) fn health(&self) -> Result<(), SpendError> {
        let state = self.lock();
        state.running()?;
        let stalled = state
            .committing_since
            .is_some_and(|since| self.clock.monotonic().saturating_sub(since) >= STALLED_SEC);
        if stalled {
            return Err(SpendError::Unavailable("the disk does not answer".into()));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn committing_since(&self) -> Option<u64> {
        self.lock().committing_since
    }

    pub(super) fn marks(&self) -> usize {
        self.lock().index.len()
    }

    /// Lets the writer finish what waits, and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
    }

    /// The next commit; `None` when the set is closed and nothing waits.
    fn next_work(&self, oldest_on_disk: Option<u64>) -> Option<Work> {
        let mut state = self.lock();
        state.committing_since = None;
        loop {
            let forgotten = state.forget(&*self.clock, self.keep_after_expiry);
            let horizon = state.index.horizon();
            let horizon = oldest_on_disk.is_some_and(|oldest| oldest < horizon).then_some(horizon);
            if !state.waiting.is_empty() || horizon.is_some() {
                let waiting = core::mem::take(&mut state.waiting);
                state.committing_since = Some(self.clock.monotonic());
                drop(state);
                drop(forgotten);
                return Some(Work { waiting, horizon });
            }
            if state.closing {
                return None;
            }
            state = self.work.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops for good. Everyone who waits is refused, and so is everyone who comes.
    fn fail(&self, why: impl Into<Cow<'static, str>>) {
        let why = why.into();
        let mut state = self.lock();
        let why = state.failed.get_or_insert(why).clone();
        let waiting = core::mem::take(&mut state.waiting);
        drop(state);
        for one in waiting {
            one.spender.resolve(Err(SpendError::Unavailable(why.clone())));
        }
    }

    // No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn running(&self) -> Result<(), SpendError> {
        match &self.failed {
            Some(why) => Err(SpendError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Takes the mark, visible to everyone from here on, and queues it for the writer.
    fn take(&mut self, mark: &Mark) -> Result<SpendTicket, SpendError> {
        self.running()?;
        if self.waiting.len() >= MAX_WAITING {
            return Err(SpendError::Unavailable("too many spends wait for the disk".into()));
        }
        self.index.insert(mark)?;
        let (spender, ticket) = SpendTicket::pending();
        self.waiting.push(Waiting { span: bucket_of(mark), id: *mark.id(), spender });
        Ok(ticket)
    }

    fn forget(&mut self, clock: &dyn Clock, keep_after_expiry: u64) -> BTreeMap<u64, Bucket> {
        match self.settled.reading(clock) {
            Some(now) => self.index.forget_before(horizon_at(now, keep_after_expiry)),
            None => BTreeMap::new(),
        }
    }
}

/// Starts the writer. `None` if the system gives no thread; the set has then failed.
pub(super) fn spawn(shared: &Arc<Shared>, store: Store) -> Option<JoinHandle<()>> {
    let for_thread = Arc::clone(shared);
    let spawned =
        std::thread::Builder::new().name("obol-spent-set".to_owned()).spawn(move || run(&for_thread, store));
    match spawned {
        Ok(handle) => Some(handle),
        Err(error) => {
            shared.fail(format!("no thread for the writer: {error}"));
            None
        }
    }
}

fn run(shared: &Shared, mut store: Store) {
    let _stop = StopWithWriter(shared);
    while let Some(work) = shared.next_work(store.oldest()) {
        let batch: Vec<_> = work.waiting.iter().map(|one| (one.span, one.id)).collect();
        match store.commit(&batch, work.horizon) {
            Ok(()) => {
                for one in work.waiting {
                    one.spender.resolve(Ok(()));
                }
            }
            Err(error) => {
                // Whether anything reached the disk is unknown, so nothing after it can be promised either.
                shared.fail(format!("a commit failed, restart to recover: {error}"));
                for one in work.waiting {
                    one.spender.resolve(Err(SpendError::Unavailable("the commit failed".into())));
                }
                return;
            }
        }
    }
}

/// However the writer ends, by a panic too, nobody waits for it in vain.
struct StopWithWriter<'a>(&'a Shared);

impl Drop for StopWithWriter<'_> {
    fn drop(&mut self) {
        self.0.fail("the writer has stopped");
    }
}
