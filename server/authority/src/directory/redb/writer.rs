//! The thread that owns writing: it runs the transactions that wait one after the other, and commits them together. One
//! sync of the disk pays for all of them; none is answered before it.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use redb::Database;

use super::witness::Witness;
use super::{COMMITS, ROWS, SealKey, SealedRows, place};
use crate::directory::tables::{Changes, Kept, Rows, Table, Transaction, Unavailable};

/// The most transactions that wait; more are refused.
const MAX_WAITING: usize = 4_096;
/// The most transactions in one commit.
const MAX_GROUP: usize = 256;

/// Tells whoever asked, once it is known whether the commit succeeded.
type Tell = Box<dyn FnOnce(&Kept<()>) + Send>;
/// Runs one transaction: its changes, and whom to tell.
type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> (bool, Tell) + Send>;

/// Why nothing is written any more, once something failed.
type Failed = Arc<Mutex<Option<Unavailable>>>;

#[derive(Debug)]
pub(super) struct Writer {
    inbox: Option<SyncSender<Job>>,
    failed: Failed,
    thread: Option<JoinHandle<()>>,
}

/// How many commits there were, and who outside the file is told.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) commits: u64,
    pub(super) witness: Option<Witness>,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>, seal: Arc<SealKey>, mut count: Count) -> Kept<Self> {
        let failed = Failed::default();
        let (inbox, waiting) = mpsc::sync_channel(MAX_WAITING);
        let run = {
            let failed = Arc::clone(&failed);
            move || write_all(&database, &seal, &mut count, &waiting, &failed)
        };
        let thread = std::thread::Builder::new().name("obol-directory".to_owned()).spawn(run);
        let thread = Some(thread.map_err(Unavailable::new)?);
        Ok(Self { inbox: Some(inbox), failed, thread })
    }

    pub(super) fn health(&self) -> Kept<()> {
        self.failed.lock().clone().map_or(Ok(()), Err)
    }

    pub(super) fn run<T, F>(&self, act: F) -> Kept<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Kept<T> + Send + 'static,
    {
        self.health()?;
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |transaction| {
            // A panic in one transaction must not take the thread that all others need.
            let done = catch_unwind(AssertUnwindSafe(|| act(transaction)))
                .unwrap_or_else(|_| Err(Unavailable::new("internal error; see the log")));
            let keep = done.is_ok();
            let tell: Tell = Box::new(move |committed| {
                let _asker_gone = answer.send(committed.clone().and(done));
            });
            (keep, tell)
        });
        let inbox = self.inbox.as_ref().ok_or_else(|| Unavailable::new("it is closed"))?;
        inbox.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Unavailable::new("too much waits to be written; ask again"),
            TrySendError::Disconnected(_) => Unavailable::new("it is closed"),
        })?;
        answered.recv().unwrap_or_else(|_| Err(Unavailable::new("it failed before this was written")))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.inbox.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Runs until nobody can send any more.
fn write_all(
    database: &Database,
    seal: &SealKey,
    count: &mut Count,
    waiting: &Receiver<Job>,
    failed: &Failed,
) {
    while let Ok(first) = waiting.recv() {
        let group = core::iter::once(first).chain(waiting.try_iter().take(MAX_GROUP - 1));
        let mut told: Vec<Tell> = Vec::new();
        let earlier = failed.lock().clone();
        let committed = match earlier {
            Some(error) => {
                // What waited when it failed: dropped unrun, which its askers see.
                group.for_each(drop);
                Err(error)
            }
            None => commit(database, seal, count, group, &mut told),
        };
        if let Err(error) = &committed {
            let mut first = failed.lock();
            if first.is_none() {
                tracing::error!(%error, "the directory cannot be written; nothing is changed until a restart");
                *first = Some(error.clone());
            }
        }
        told.into_iter().for_each(|tell| tell(&committed));
    }
}

fn commit(
    database: &Database,
    seal: &SealKey,
    count: &mut Count,
    group: impl Iterator<Item = Job>,
    told: &mut Vec<Tell>,
) -> Kept<()> {
    let mut transaction = database.begin_write().map_err(Unavailable::new)?;
    transaction.set_two_phase_commit(true);
    let mut changed = false;
    let commits = count.commits + 1;
    {
        let mut table = transaction.open_table(ROWS).map_err(Unavailable::new)?;
        for ((name, key), row) in run(&SealedRows { table: &table, seal }, group, told) {
            changed = true;
            let place = place(name, &key);
            match row {
                Some(row) => {
                    let sealed = seal.seal(name, &key, &row)?;
                    table.insert(place.as_slice(), sealed.as_slice()).map_err(Unavailable::new)?;
                }
                None => drop(table.remove(place.as_slice()).map_err(Unavailable::new)?),
            }
        }
        if changed {
            let sealed = seal.seal(Table::Meta, COMMITS, &commits.to_be_bytes())?;
            let place = place(Table::Meta, COMMITS);
            table.insert(place.as_slice(), sealed.as_slice()).map_err(Unavailable::new)?;
        }
    }
    if !changed {
        return transaction.abort().map_err(Unavailable::new);
    }
    transaction.commit().map_err(Unavailable::new)?;
    count.commits = commits;
    count.witness.as_ref().map_or(Ok(()), |witness| witness.note(commits))
}

/// Runs transactions, each on top of those before it, and gives what they change together: a row that several of them
/// change is sealed and written once.
fn run(rows: &dyn Rows, group: impl Iterator<Item = Job>, told: &mut Vec<Tell>) -> Changes {
    let mut together = Transaction::new(rows);
    for job in group {
        let (changes, tell) = {
            let mut transaction = Transaction::new(&together);
            let (keep, tell) = job(&mut transaction);
            (keep.then(|| transaction.into_changes()), tell)
        };
        told.push(tell);
        together.absorb(changes.unwrap_or_default());
    }
    together.into_changes()
}
