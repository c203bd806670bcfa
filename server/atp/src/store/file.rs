//! The store's file: one redb table of sealed rows, and the thread that writes them, as many as wait in one commit.
//!
//! A row is sealed for its name, so that it cannot be moved to another place. After a write that failed what the file holds is unknown, and nothing is written any more until the
//! process opens it again.

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use obol_secret::file::PrivateFile;
use obol_secret::key::Key32;
use obol_secret::seal;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::rows::Row;
use super::{StoreError, Unwritable};

const ROWS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("obol.atp.rows");
/// The most changes that wait to be written; more are refused.
const MAX_WAITING: usize = 4_096;
/// The most changes in one commit.
const MAX_GROUP: usize = 256;
/// What the sealing key is derived for.
const PURPOSE: &str = "obol-atp-store-v1";

enum Change {
    Put(String, Vec<u8>),
    Remove(String),
}

type Answer = oneshot::Sender<Result<(), Unwritable>>;

/// Writes rows.
#[derive(Debug)]
pub(crate) struct Writer {
    key: Zeroizing<[u8; 32]>,
    inbox: Option<SyncSender<(Vec<Change>, Answer)>>,
    failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn open(path: &Path, key: &Key32) -> Result<(Self, Vec<Row>), StoreError> {
        let not_ours = |why: &dyn core::fmt::Display| StoreError::NotOurs(path.to_owned(), why.to_string());
        let file = PrivateFile::open(path).map_err(StoreError::File)?.into_file();
        let backend = redb::backends::FileBackend::new(file).map_err(|error| not_ours(&error))?;
        let database = Database::builder().create_with_backend(backend).map_err(|error| not_ours(&error))?;
        let key = key.derive(PURPOSE);
        let rows = read_all(&database, &key).map_err(|why| not_ours(&why))?;
        let failed = Arc::new(AtomicBool::new(false));
        let (inbox, waiting) = mpsc::sync_channel(MAX_WAITING);
        let run = {
            let failed = Arc::clone(&failed);
            move || write_all(&database, &waiting, &failed)
        };
        let thread = std::thread::Builder::new().name("obol-atp-store".to_owned()).spawn(run);
        let thread = thread.map_err(|error| StoreError::System(error.to_string()))?;
        Ok((Self { key, inbox: Some(inbox), failed, thread: Some(thread) }, rows))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        !self.failed.load(Ordering::SeqCst)
    }

    /// Begins to write; what is returned says when it is done.
    pub(super) fn begin(
        &self,
        rows: Vec<Row>,
    ) -> Result<oneshot::Receiver<Result<(), Unwritable>>, Unwritable> {
        self.send(self.sealed(rows)?)
    }

    /// Takes rows out, by their names.
    pub(super) async fn remove(&self, names: Vec<String>) -> Result<(), Unwritable> {
        self.send(names.into_iter().map(Change::Remove).collect())?.await.unwrap_or(Err(Unwritable))
    }

    fn sealed(&self, rows: Vec<Row>) -> Result<Vec<Change>, Unwritable> {
        let seal = |row: Row| {
            let name = row.name();
            let plain = row.plain().ok_or(Unwritable)?;
            let sealed = seal::seal(&self.key, name.as_bytes(), &plain).map_err(|_| Unwritable)?;
            Ok(Change::Put(name, sealed))
        };
        rows.into_iter().map(seal).collect()
    }

    fn send(&self, changes: Vec<Change>) -> Result<oneshot::Receiver<Result<(), Unwritable>>, Unwritable> {
        if !self.is_healthy() {
            return Err(Unwritable);
        }
        let (answer, answered) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or(Unwritable)?;
        inbox.try_send((changes, answer)).map_err(|_| Unwritable)?;
        Ok(answered)
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

fn read_all(database: &Database, key: &[u8; 32]) -> Result<Vec<Row>, String> {
    let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.commit()?;
        let table = database.begin_read()?.open_table(ROWS)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (name, sealed) = row?;
            rows.push((name.value().to_owned(), sealed.value().to_vec()));
        }
        Ok(rows)
    };
    let open = |(name, sealed): (String, Vec<u8>)| {
        let plain = seal::open(key, name.as_bytes(), &sealed).ok_or("a row does not open with this key")?;
        let row: Row = serde_json::from_slice(&plain).map_err(|_| "a row has another form")?;
        if row.name() == name { Ok(row) } else { Err("a row is in another's place".to_owned()) }
    };
    read().map_err(|error| error.to_string())?.into_iter().map(open).collect()
}

/// Runs until nobody can send any more.
fn write_all(database: &Database, waiting: &Receiver<(Vec<Change>, Answer)>, failed: &AtomicBool) {
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = core::iter::once(first).chain(waiting.try_iter().take(MAX_GROUP - 1)).collect();
        let written = if failed.load(Ordering::SeqCst) { Err(Unwritable) } else { commit(database, &group) };
        if written.is_err() {
            failed.store(true, Ordering::SeqCst);
        }
        for (_, answer) in group {
            let _asker_gone = answer.send(written);
        }
    }
}

fn commit(database: &Database, group: &[(Vec<Change>, Answer)]) -> Result<(), Unwritable> {
    let write = || -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(ROWS)?;
            for change in group.iter().flat_map(|(changes, _)| changes) {
                match change {
                    Change::Put(name, sealed) => table.insert(name.as_str(), sealed.as_slice()).map(drop)?,
                    Change::Remove(name) => table.remove(name.as_str()).map(drop)?,
                }
            }
        }
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|error| {
        tracing::error!(%error, "the token store cannot be written; nothing is issued until a restart");
        Unwritable
    })
}
