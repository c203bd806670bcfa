//! The thread that has the connection, and what it shares with those who spend.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use obol_verify::spent::Spender;
use obol_verify::{Clock, Mark, SpendError, SpendTicket};

use crate::link::{Answer, Link, MARKS, Memory, Unfit, check_clock};
use crate::options::RedisOptions;

/// The most spends that may wait for a round trip.
pub const MAX_WAITING: usize = 1 << 14;
/// The most marks in one script. Keeps the time that it holds the server up below a millisecond.
pub const MAX_BATCH: usize = 256;
/// How often the server is looked at, busy or not.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// A server that has not answered for this long counts as gone. More than a watch interval and less than a second.
const STALE: Duration = Duration::from_millis(800);
/// The first and the longest pause between attempts to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What the writer and the spenders share.
pub(crate) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// 0 is none. Only rises, and rises before anything is accepted in the epoch that it belongs to.
    fence: AtomicU64,
}

struct State {
    waiting: Vec<Waiting>,
    /// Why nothing can be spent at the moment.
    down: Option<Cow<'static, str>>,
    answered_at: Instant,
    closing: bool,
}

struct Waiting {
    mark: Mark,
    spender: Spender,
}

enum Next {
    Spend(Vec<Waiting>),
    Watch,
    Close,
}

impl Shared {
    pub(crate) fn new(fence: u64) -> Self {
        let state = State { waiting: Vec::new(), down: None, answered_at: Instant::now(), closing: false };
        Self { state: Mutex::new(state), work: Condvar::new(), fence: AtomicU64::new(fence) }
    }

    pub(crate) fn fence(&self) -> Option<u64> {
        match self.fence.load(Ordering::SeqCst) {
            0 => None,
            fence => Some(fence),
        }
    }

    pub(crate) fn spend(&self, mark: Mark) -> SpendTicket {
        let mut state = self.lock();
        if let Err(error) = state.health() {
            return SpendTicket::ready(Err(error));
        }
        if state.waiting.len() >= MAX_WAITING {
            let why = "too many spends wait for Redis";
            return SpendTicket::ready(Err(SpendError::Unavailable(why.into())));
        }
        let (spender, ticket) = SpendTicket::pending();
        state.waiting.push(Waiting { mark, spender });
        if state.waiting.len() == 1 {
            self.work.notify_one();
        }
        ticket
    }

    pub(crate) fn health(&self) -> Result<(), SpendError> {
        self.lock().health()
    }

    /// Lets the writer finish what waits, and end.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
    }

    fn closing(&self) -> bool {
        self.lock().closing
    }

    fn next(&self, watched_at: Instant) -> Next {
        let mut state = self.lock();
        loop {
            let left = WATCH_INTERVAL.saturating_sub(watched_at.elapsed());
            if !state.waiting.is_empty() && (!left.is_zero() || state.closing) {
                let count = state.waiting.len().min(MAX_BATCH);
                return Next::Spend(state.waiting.drain(..count).collect());
            }
            if state.closing {
                return Next::Close;
            }
            if left.is_zero() {
                return Next::Watch;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn answered(&self) {
        self.lock().answered_at = Instant::now();
    }

    /// The connection is there (again).
    fn up(&self, fence: u64) {
        self.fence.fetch_max(fence, Ordering::SeqCst);
        let mut state = self.lock();
        state.down = None;
        state.answered_at = Instant::now();
    }

    /// Nothing can be spent. Everyone who waits is refused, and so is everyone who comes.
    fn down(&self, why: impl Into<Cow<'static, str>>) {
        let why = why.into();
        let mut state = self.lock();
        state.down = Some(why.clone());
        let waiting = core::mem::take(&mut state.waiting);
        drop(state);
        refuse(waiting, &why);
    }

    /// Waits between two attempts; `false` when the set is closed.
    fn pause(&self, duration: Duration) -> bool {
        let state = self.lock();
        let paused = self.work.wait_timeout_while(state, duration, |state| !state.closing);
        !paused.unwrap_or_else(PoisonError::into_inner).0.closing
    }

    // No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn health(&self) -> Result<(), SpendError> {
        match &self.down {
            Some(why) => Err(SpendError::Unavailable(why.clone())),
            None if self.answered_at.elapsed() > STALE => {
                Err(SpendError::Unavailable("Redis does not answer".into()))
            }
            None => Ok(()),
        }
    }
}

fn refuse(waiting: Vec<Waiting>, why: &str) {
    for one in waiting {
        one.spender.resolve(Err(SpendError::Unavailable(Cow::Owned(why.to_owned()))));
    }
}

/// Starts the writer. `None` if the system gives no thread; the set then refuses everything.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    link: Link,
    memory: Memory,
    options: RedisOptions,
    clock: Arc<dyn Clock>,
    keep_after_expiry: u64,
) -> Option<JoinHandle<()>> {
    let writer = Writer { shared: Arc::clone(shared), memory, options, clock, keep_after_expiry };
    let spawned =
        std::thread::Builder::new().name("obol-spent-redis".to_owned()).spawn(move || writer.run(link));
    match spawned {
        Ok(handle) => Some(handle),
        Err(error) => {
            shared.down(format!("no thread for the writer: {error}"));
            None
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    memory: Memory,
    options: RedisOptions,
    clock: Arc<dyn Clock>,
    keep_after_expiry: u64,
}

/// However the writer ends, by a panic too, nobody waits for it in vain.
struct StopWithWriter(Arc<Shared>);

impl Drop for StopWithWriter {
    fn drop(&mut self) {
        self.0.down("the writer has stopped");
    }
}

impl Writer {
    fn run(mut self, first: Link) {
        let _stop = StopWithWriter(Arc::clone(&self.shared));
        let mut link = Some(first);
        while let Some(mut current) = link.take() {
            let why = match self.serve(&mut current) {
                // Closed.
                Ok(()) => return,
                Err(why) => why,
            };
            // Whatever this connection still holds is not ours to understand.
            drop(current);
            self.shared.down(format!("Redis at {}: {why}", self.options.address()));
            link = self.connect_again();
        }
    }

    /// Works until the set is closed, or until something is wrong.
    fn serve(&mut self, link: &mut Link) -> Result<(), String> {
        let mut watched_at = Instant::now();
        loop {
            match self.shared.next(watched_at) {
                Next::Close => return Ok(()),
                Next::Watch => {
                    self.watch(link)?;
                    watched_at = Instant::now();
                }
                Next::Spend(waiting) => self.spend(link, waiting)?,
            }
        }
    }

    fn watch(&mut self, link: &mut Link) -> Result<(), String> {
        match link.watch(self.clock.now()) {
            Ok(Answer::Done(now)) => self.answered(now).map_err(|unfit| unfit.to_string()),
            Ok(Answer::EpochIsOver) => Err(EPOCH_IS_OVER.to_owned()),
            Err(unfit) => Err(unfit.to_string()),
        }
    }

    /// Answers everyone in the batch. After an error nobody knows which of the marks are set; all are refused.
    fn spend(&mut self, link: &mut Link, waiting: Vec<Waiting>) -> Result<(), String> {
        let marks: Vec<_> = waiting.iter().map(|one| (*one.mark.id(), self.end(&one.mark))).collect();
        let outcome = link.spend(&marks, self.clock.now()).and_then(|answer| match answer {
            Answer::EpochIsOver => Ok(None),
            Answer::Done((now, digits)) => self.answered(now).map(|()| Some(digits)),
        });
        let why = match outcome {
            Ok(Some(digits)) => {
                for (one, digit) in waiting.into_iter().zip(digits) {
                    one.spender.resolve(meaning(digit));
                }
                return Ok(());
            }
            Ok(None) => EPOCH_IS_OVER.to_owned(),
            Err(unfit) => unfit.to_string(),
        };
        refuse(waiting, &why);
        Err(why)
    }

    fn answered(&mut self, server_ms: u64) -> Result<(), Unfit> {
        check_clock(server_ms, &self.options, &*self.clock, &mut self.memory)?;
        if self.memory.leapt {
            return Err(Unfit::Leapt);
        }
        self.shared.answered();
        Ok(())
    }

    fn connect_again(&mut self) -> Option<Link> {
        let mut pause = BACK_OFF.0;
        while !self.shared.closing() {
            match Link::open(&self.options, &MARKS, &*self.clock, &mut self.memory) {
                Ok((link, epoch)) => {
                    self.shared.up(epoch.fence);
                    return Some(link);
                }
                Err(unfit) => self.shared.down(format!("Redis at {}: {unfit}", self.options.address())),
            }
            if !self.shared.pause(pause) {
                return None;
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
        None
    }

    /// When the mark may go, in Unix milliseconds. Depends on nothing but what is signed and what all servers share.
    fn end(&self, mark: &Mark) -> u64 {
        mark.expires_at()
            .saturating_add(self.keep_after_expiry)
            .saturating_add(self.options.max_clock_difference)
            .saturating_mul(1_000)
            // Lua counts in doubles.
            .min(1 << 52)
    }
}

const EPOCH_IS_OVER: &str = "it has lost marks, or may have; tokens issued so far will be refused";

fn meaning(digit: u8) -> Result<(), SpendError> {
    match digit {
        b'1' => Ok(()),
        b'0' => Err(SpendError::AlreadySpent),
        b'2' => Err(SpendError::Forgotten),
        _ => Err(SpendError::Unavailable("a reply of Redis makes no sense".into())),
    }
}
