//! What several providers of one endpoint share, in Redis or Valkey: each knows all of it in memory, and a thread reads what changed
//! every 200 ms.
//!
//! A change is thought over on what is known, and written only if that was the latest; else it is read and thought over again. It is
//! in force everywhere within 200 ms; who has not heard from Redis for 800 ms answers nothing. When Redis has lost anything, or may
//! have, everything is over: keys, and with them every token. What each provider remembers of retired secrets it writes again.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Instant;

use obol_secret::key::Key32;
use obol_verify::{Clock, SystemClock};
use obol_verify_redis::{
    MAX_STALENESS, Record, RedisOpenError, RedisOptions, RedisRecords, WATCH_INTERVAL, attempts,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::kept::Kept;
use super::rows::Row;
use super::{Draft, Standing, Unwritable};

/// The most changes that wait to be written; more are refused.
const MAX_WAITING: usize = 4_096;
/// What has ended so long ago, in seconds, has ended by every clock.
const FORGET_AFTER_SECS: u64 = 60;
/// How often what has ended is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(10);

type Job = (Draft, oneshot::Sender<Result<(), Unwritable>>);

/// The way to the thread, and what it last heard.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Option<SyncSender<Job>>,
    heard: Arc<Mutex<Option<Instant>>>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    pub(super) fn open(
        options: RedisOptions,
        key: &Key32,
        kept: &Arc<RwLock<Kept>>,
        standing: &Arc<Mutex<Standing>>,
    ) -> Result<Self, OpenFailed> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let records = RedisRecords::open(options, key, Arc::clone(&clock)).map_err(OpenFailed::Redis)?;
        let heard = Arc::new(Mutex::new(None));
        let mut keeper = Keeper {
            records,
            clock,
            kept: Arc::clone(kept),
            standing: Arc::clone(standing),
            heard: Arc::clone(&heard),
            forgot: Instant::now(),
            last_complaint: None,
        };
        // Of records that were tampered with the first look says so, and the second one begins anew.
        keeper.poll().or_else(|_| keeper.poll()).map_err(OpenFailed::Unreadable)?;
        let (inbox, waiting) = mpsc::sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("obol-atp-shared".to_owned())
            .spawn(move || keeper.run(&waiting))
            .map_err(|error| OpenFailed::Unreadable(error.to_string()))?;
        Ok(Self { inbox: Some(inbox), heard, thread: Some(thread) })
    }

    /// Whether what is known here is not older than [`MAX_STALENESS`].
    pub(super) fn is_fresh(&self) -> bool {
        self.heard.lock().is_some_and(|when| when.elapsed() <= MAX_STALENESS)
    }

    pub(super) fn begin(
        &self,
        draft: Draft,
    ) -> Result<oneshot::Receiver<Result<(), Unwritable>>, Unwritable> {
        let (answer, answered) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or(Unwritable)?;
        inbox.try_send((draft, answer)).map_err(|_| Unwritable)?;
        Ok(answered)
    }
}

/// Why the shared store was not opened.
pub(super) enum OpenFailed {
    Redis(RedisOpenError),
    Unreadable(String),
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.inbox.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The thread.
struct Keeper {
    records: RedisRecords,
    clock: Arc<dyn Clock>,
    kept: Arc<RwLock<Kept>>,
    standing: Arc<Mutex<Standing>>,
    heard: Arc<Mutex<Option<Instant>>>,
    forgot: Instant,
    last_complaint: Option<String>,
}

impl Keeper {
    fn run(mut self, waiting: &Receiver<Job>) {
        let mut polled = Instant::now();
        loop {
            let job = match waiting.recv_timeout(WATCH_INTERVAL.saturating_sub(polled.elapsed())) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if polled.elapsed() >= WATCH_INTERVAL {
                let outcome = self.poll();
                self.complain(outcome);
                polled = Instant::now();
            }
            if let Some((mut draft, answer)) = job {
                let outcome = self.change(&mut draft, 0);
                let written = outcome.is_ok();
                self.complain(outcome);
                let _asker_gone = answer.send(if written { Ok(()) } else { Err(Unwritable) });
            }
        }
    }

    /// Says what is wrong once, and when it is over.
    fn complain(&mut self, outcome: Result<(), String>) {
        let now = outcome.err();
        match (&self.last_complaint, &now) {
            (before, Some(why)) if before.as_ref() != Some(why) => {
                tracing::error!(%why, "the shared token store cannot be used; nothing is issued, checked or revoked");
            }
            (Some(_), None) => tracing::info!("the shared token store can be used again"),
            _ => {}
        }
        self.last_complaint = now;
    }

    /// Reads what changed, and writes what has to be there.
    fn poll(&mut self) -> Result<(), String> {
        let outcome = self.read();
        if outcome.is_err() {
            *self.heard.lock() = None;
        }
        outcome?;
        let now = self.clock.now();
        let mut upkeep: Draft = {
            let standing = Arc::clone(&self.standing);
            Box::new(move |kept| standing.lock().rows(kept, now))
        };
        let forget_before = self.forgettable(now);
        if !upkeep(&self.kept.read()).is_empty() || forget_before > 0 {
            self.change(&mut upkeep, forget_before)?;
        }
        self.standing.lock().settled();
        Ok(())
    }

    fn forgettable(&mut self, now: u64) -> u64 {
        let before = now.saturating_sub(FORGET_AFTER_SECS);
        if self.forgot.elapsed() < FORGET_EVERY || !self.kept.read().has_ended(before) {
            return 0;
        }
        self.forgot = Instant::now();
        before
    }

    fn read(&mut self) -> Result<(), String> {
        let asked = Instant::now();
        let news = self.records.poll().map_err(|unfit| unfit.to_string())?;
        {
            let mut kept = self.kept.write();
            if news.is_new {
                let before = core::mem::take(&mut *kept);
                self.standing.lock().lost(before.owners);
            }
            for value in &news.values {
                let row: Option<Row> = serde_json::from_slice(value).ok();
                if row.is_none_or(|row| kept.apply(&row).is_err()) {
                    drop(kept);
                    self.records.read_again();
                    return Err("it holds a record that this build does not understand".to_owned());
                }
            }
            kept.take_ended(news.forgotten_before);
        }
        *self.heard.lock() = Some(asked);
        Ok(())
    }

    fn change(&mut self, draft: &mut Draft, forget_before: u64) -> Result<(), String> {
        for _ in attempts() {
            let rows = draft(&self.kept.read());
            if rows.is_empty() && forget_before == 0 {
                return if self.heard.lock().is_some() { Ok(()) } else { Err("it was not read".to_owned()) };
            }
            let named: Option<Vec<_>> =
                rows.iter().map(|row| Some((row.name(), row.ends(), row.plain()?))).collect();
            let named = named.ok_or("a record cannot be written")?;
            let records = named.iter().map(|(name, ends, value)| Record { name, ends: *ends, value });
            let written = self.records.write(&records.collect::<Vec<_>>(), forget_before);
            match written {
                Ok(true) => {
                    let mut kept = self.kept.write();
                    let applied = rows.iter().try_for_each(|row| kept.apply(row));
                    kept.take_ended(forget_before);
                    return applied.map_err(|_| "a record cannot be read".to_owned());
                }
                Ok(false) => self.read().inspect_err(|_| *self.heard.lock() = None)?,
                Err(unfit) => {
                    *self.heard.lock() = None;
                    return Err(unfit.to_string());
                }
            }
        }
        Err("other providers change it all the time".to_owned())
    }
}
