//! Sessions in a file: they survive a restart, and so do revocations.
//!
//! All sessions are in memory as well, so looking one up never touches the disk. A change is durable before the call
//! that makes it returns. A revocation counts in memory from the moment it is asked for, and stays as a row of its own
//! for ever: the session cannot come back, whoever adds it again.
//!
//! # The file
//!
//! A redb database with four tables. `obol.sessions.meta`: format, the table's random name, and where it follows a service how
//! far it has come, which changes in the transaction that carries out what the service says.
//! `obol.sessions.sealed`: session number → a session file of one session, sealed under the key (see
//! [`SessionSealKey`]). `obol.sessions.epochs`: session number → the oldest policy epoch that is accepted, which only
//! rises, whatever a document says that is added later. `obol.sessions.revoked`: session number → when, in Unix seconds.
//! A revoked session's sealed row is deleted; its bytes may stay in the file until its page is used again.
//!
//! Format 1 had no epochs. Such a file is taken over when it is opened: it holds revocations, which must not be lost.
//!
//! # When a write fails
//!
//! What the file holds is then unknown. The table stops: every lookup is [`SessionTableUnavailable`] until the process
//! opens the file again.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_secret::text::to_hex;
use obol_session::{Cursor, ResourceHalf};
use obol_token::SessionId;
use parking_lot::{Mutex, MutexGuard};
use redb::{ReadOnlyTable, ReadableTable as _, TableDefinition, WriteTransaction};

use crate::redb_file::{Problem, RedbFile};
use crate::session::Session;
use crate::session::error::SessionStoreError;
use crate::session::file::parse_sessions;
use crate::session::seal::SessionSealKey;
use crate::session::store::{SessionChange, SessionStore};
use crate::session::table::{MAX_SESSIONS, MemorySessionTable, SessionTable, SessionTableUnavailable};

const META: TableDefinition<'static, &str, &str> = TableDefinition::new("obol.sessions.meta");
const SEALED: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("obol.sessions.sealed");
const REVOKED: TableDefinition<'static, u64, u64> = TableDefinition::new("obol.sessions.revoked");
const EPOCHS: TableDefinition<'static, u64, u64> = TableDefinition::new("obol.sessions.epochs");

const FORMAT: &str = "format";
const NAME: &str = "name";
/// How far the table has come with what a service says.
const CURSOR: &str = "cursor";
/// The format this build reads and writes.
const VERSION: &str = "2";
/// The format without epochs, which is taken over.
const WITHOUT_EPOCHS: &str = "1";

/// Sessions in a file, sealed. One process at a time has it open.
pub struct RedbSessionTable {
    sessions: MemorySessionTable,
    /// Held for a whole change, so that file and memory change in the same order.
    file: Mutex<RedbFile>,
    key: SessionSealKey,
    name: String,
    cursor: Mutex<Option<Cursor>>,
    failed: AtomicBool,
    path: PathBuf,
}

impl RedbSessionTable {
    /// Opens the file, or creates it with mode 0600, and opens every session in it.
    ///
    /// # Errors
    ///
    /// [`SessionStoreError`].
    pub fn open(path: &Path, key: SessionSealKey) -> Result<Self, SessionStoreError> {
        let at_path = |problem| SessionStoreError::at(path, &problem);
        let file = RedbFile::open(path).map_err(|problem| match problem {
            Problem::File(error) => SessionStoreError::File(error),
            problem => at_path(problem),
        })?;
        let name = name_of(&file, path)?;
        let rows = file.read(rows).map_err(|error| at_path(error.into()))?;
        let cursor = file.read(cursor_of).map_err(|error| at_path(error.into()))?;
        let table = Self {
            sessions: MemorySessionTable::with_max_sessions(MAX_SESSIONS),
            file: Mutex::new(file),
            key,
            name,
            cursor: Mutex::new(cursor),
            failed: AtomicBool::new(false),
            path: path.to_owned(),
        };
        for (id, sealed, epoch) in rows {
            let text = table.key.open(table.name.as_bytes(), id, &sealed)?;
            let sessions = parse_sessions(&text)
                .map_err(|error| SessionStoreError::NotOurs(path.to_owned(), error.to_string()))?;
            for session in sessions {
                session.raise_policy_epoch(epoch);
                table.sessions.add(session)?;
            }
        }
        Ok(table)
    }

    /// How many sessions are in memory, those included that were revoked since the start.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> Result<MutexGuard<'_, RedbFile>, SessionStoreError> {
        let file = self.file.lock();
        // Asked under the lock: the change before may have failed.
        self.health().map_err(|error| SessionStoreError::Unavailable(error.0))?;
        Ok(file)
    }

    fn draft(&self, half: &ResourceHalf) -> Result<Draft, SessionStoreError> {
        let session = Session::from_half(half)?;
        let sealed = self.key.seal(self.name.as_bytes(), half.session_id, &half.to_json())?;
        Ok(Draft { session, sealed })
    }

    /// Whether a session may come in beside so many others. Room is made sure of first: what is in the file must fit into
    /// memory at the next start.
    fn check(&self, file: &RedbFile, id: SessionId, beside: usize) -> Result<(), SessionStoreError> {
        if is_revoked(file, id)? {
            return Err(SessionStoreError::Revoked);
        }
        let is_known = self.sessions.look_up(id).ok().flatten().is_some();
        match !is_known && self.sessions.len() + beside >= MAX_SESSIONS {
            true => Err(SessionStoreError::Full),
            false => Ok(()),
        }
    }

    /// A session's policy epoch. What somebody raised in memory is in force too.
    fn epoch_of(&self, session: &Session) -> u64 {
        let known = self.sessions.look_up(session.session_id()).ok().flatten();
        session.policy_epoch().max(known.map_or(0, |known| known.policy_epoch()))
    }

    fn commit<R>(
        &self,
        file: &RedbFile,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, SessionStoreError> {
        file.commit(change).map_err(|error| {
            self.failed.store(true, Ordering::SeqCst);
            SessionStoreError::Unavailable(error.to_string())
        })
    }
}

/// A session that is going to be written.
struct Draft {
    session: Session,
    sealed: Vec<u8>,
}

fn ended(change: &SessionChange) -> Option<SessionId> {
    match change {
        SessionChange::End(id) => Some(*id),
        SessionChange::Open(half) => half.revoked.then_some(half.session_id),
    }
}

fn opened(change: &SessionChange) -> Option<&ResourceHalf> {
    match change {
        SessionChange::Open(half) => Some(half),
        SessionChange::End(_) => None,
    }
}

/// The number, the sealed document and the policy epoch of every session that was not revoked.
fn rows(reading: &redb::ReadTransaction) -> Result<Vec<(SessionId, Vec<u8>, u64)>, redb::Error> {
    let (table, epochs) = (reading.open_table(SEALED)?, reading.open_table(EPOCHS)?);
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (id, sealed) = row?;
        let epoch = epochs.get(id.value())?.map_or(0, |epoch| epoch.value());
        rows.push((SessionId::from_u64(id.value()), sealed.value().to_vec(), epoch));
    }
    Ok(rows)
}

fn cursor_of(reading: &redb::ReadTransaction) -> Result<Option<Cursor>, redb::Error> {
    let text = reading.open_table(META)?.get(CURSOR)?;
    // One that cannot be read is one that is not known.
    Ok(text.and_then(|text| Cursor::parse(text.value())))
}

/// Writes one session; the policy epoch that is in force for it from then on.
fn put(
    transaction: &WriteTransaction,
    id: SessionId,
    sealed: &[u8],
    at_least: u64,
) -> Result<u64, redb::Error> {
    transaction.open_table(SEALED)?.insert(id.as_u64(), sealed)?;
    let mut epochs = transaction.open_table(EPOCHS)?;
    let known = epochs.get(id.as_u64())?.map_or(0, |epoch| epoch.value());
    let epoch = known.max(at_least);
    epochs.insert(id.as_u64(), epoch)?;
    Ok(epoch)
}

/// Removes what is kept of a session, but not that it was revoked.
fn remove(transaction: &WriteTransaction, id: SessionId) -> Result<(), redb::Error> {
    transaction.open_table(SEALED)?.remove(id.as_u64())?;
    transaction.open_table(EPOCHS)?.remove(id.as_u64())?;
    Ok(())
}

fn is_revoked(file: &RedbFile, id: SessionId) -> Result<bool, SessionStoreError> {
    let revoked = file.read(|reading| Ok(reading.open_table(REVOKED)?.get(id.as_u64())?.is_some()));
    revoked.map_err(|error| SessionStoreError::Unavailable(error.to_string()))
}

impl fmt::Debug for RedbSessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbSessionTable")
            .field("path", &self.path)
            .field("sessions", &self.len())
            .finish_non_exhaustive()
    }
}

impl SessionTable for RedbSessionTable {
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        self.health()?;
        self.sessions.look_up(id)
    }

    fn health(&self) -> Result<(), SessionTableUnavailable> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(SessionTableUnavailable("a write to its file failed; restart to recover".to_owned()));
        }
        Ok(())
    }
}

impl SessionStore for RedbSessionTable {
    /// Durable when this returns.
    fn add(&self, half: &ResourceHalf, now: u64) -> Result<(), SessionStoreError> {
        let id = half.session_id;
        if half.revoked {
            return self.revoke(id, now).map(|_known| ());
        }
        let draft = self.draft(half)?;
        let file = self.lock()?;
        self.check(&file, id, 0)?;
        let at_least = self.epoch_of(&draft.session);
        let epoch = self.commit(&file, |transaction| put(transaction, id, &draft.sealed, at_least))?;
        draft.session.raise_policy_epoch(epoch);
        self.sessions.add(draft.session)
    }

    /// One transaction for all of it.
    fn follow(
        &self,
        changes: &[SessionChange],
        cursor: Option<Cursor>,
        now: u64,
    ) -> Result<Vec<(SessionId, SessionStoreError)>, SessionStoreError> {
        // What is ended counts before anything waits for the disk.
        let ended: BTreeSet<SessionId> = changes.iter().filter_map(ended).collect();
        for id in &ended {
            self.sessions.revoke(*id);
        }
        let file = self.lock()?;
        let (mut drafts, mut refused) = (Vec::new(), Vec::new());
        for half in changes.iter().filter_map(opened) {
            let id = half.session_id;
            // One that ends in the same breath is never taken, in whichever order they were said.
            let checked = match ended.contains(&id) || half.revoked {
                true => continue,
                false => self.check(&file, id, drafts.len()).and_then(|()| self.draft(half)),
            };
            match checked {
                Ok(draft) => drafts.push(draft),
                Err(error) if error.leaves_others() => refused.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        let epochs = self.commit(&file, |transaction| {
            for id in &ended {
                transaction.open_table(REVOKED)?.insert(id.as_u64(), now)?;
                remove(transaction, *id)?;
            }
            if let Some(cursor) = cursor {
                transaction.open_table(META)?.insert(CURSOR, cursor.to_string().as_str())?;
            }
            let put = |draft: &Draft| {
                put(transaction, draft.session.session_id(), &draft.sealed, self.epoch_of(&draft.session))
            };
            drafts.iter().map(put).collect::<Result<Vec<_>, _>>()
        })?;
        for (Draft { session, .. }, epoch) in drafts.into_iter().zip(epochs) {
            session.raise_policy_epoch(epoch);
            self.sessions.add(session)?;
        }
        if cursor.is_some() {
            *self.cursor.lock() = cursor;
        }
        Ok(refused)
    }

    fn cursor(&self) -> Option<Cursor> {
        *self.cursor.lock()
    }

    fn forget_ended(&self, before: u64) -> Result<usize, SessionStoreError> {
        let file = self.lock()?;
        let over = self.sessions.forget(before);
        if !over.is_empty() {
            self.commit(&file, |transaction| over.iter().try_for_each(|id| remove(transaction, *id)))?;
        }
        Ok(over.len())
    }

    /// Also one that is not known yet. When this returns `Ok`, it survives any crash.
    fn revoke(&self, id: SessionId, now: u64) -> Result<bool, SessionStoreError> {
        let known = self.sessions.revoke(id);
        let file = self.lock()?;
        self.commit(&file, |transaction| {
            transaction.open_table(REVOKED)?.insert(id.as_u64(), now)?;
            remove(transaction, id)
        })?;
        // One that was added between the two steps.
        let added = self.sessions.revoke(id);
        Ok(known || added)
    }

    /// A revocation is kept for ever.
    fn was_revoked(&self, id: SessionId) -> Result<bool, SessionStoreError> {
        let file = self.lock()?;
        is_revoked(&file, id)
    }

    fn list(&self) -> Vec<Arc<Session>> {
        self.sessions.all()
    }
}

/// The table's name; a file without any table gets one.
fn name_of(file: &RedbFile, path: &Path) -> Result<String, SessionStoreError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| SessionStoreError::Randomness)?;
    let at_path = |problem| SessionStoreError::at(path, &problem);
    let said = file.identify(META, |transaction| begin(transaction, &random), Meta::read).map_err(at_path)?;
    match said {
        Meta { format: Some(format), name: Some(name) } if format == VERSION => Ok(name),
        Meta { format: Some(format), name: Some(name) } if format == WITHOUT_EPOCHS => {
            file.commit(take_over).map_err(|error| at_path(error.into()))?;
            Ok(name)
        }
        Meta { format: Some(format), .. } => Err(SessionStoreError::Unreadable(
            path.to_owned(),
            format!("it has format {format} and this build reads format {VERSION}; use the newer build"),
        )),
        Meta { format: None, .. } => Err(at_path(Problem::Foreign)),
    }
}

fn begin(transaction: &WriteTransaction, name: &[u8; 16]) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT, VERSION)?;
    meta.insert(NAME, to_hex(name).as_str())?;
    transaction.open_table(SEALED)?;
    transaction.open_table(REVOKED)?;
    transaction.open_table(EPOCHS)?;
    Ok(())
}

/// Makes a table of format 1 one of this format. Until a session is added again its document says its epoch.
fn take_over(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(EPOCHS)?;
    transaction.open_table(META)?.insert(FORMAT, VERSION)?;
    Ok(())
}

/// What the file says of itself.
struct Meta {
    format: Option<String>,
    name: Option<String>,
}

impl Meta {
    fn read(table: &ReadOnlyTable<&'static str, &'static str>) -> Result<Self, redb::Error> {
        let text = |key| -> Result<Option<String>, redb::Error> {
            Ok(table.get(key)?.map(|value| value.value().to_owned()))
        };
        Ok(Self { format: text(FORMAT)?, name: text(NAME)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

    fn entry(id: u64, status: &str) -> ResourceHalf {
        let document = serde_json::json!({"obol_rs_sessions": 1, "sessions": [{
            "session_id": format!("{id:016x}"), "suite": 1, "aud": "https://rs", "K_session": SECRET,
            "verifier_secret": SECRET, "mutual_auth": SECRET, "SEK_PK": SECRET, "org_id": "org",
            "status": status, "window": {"start": 1, "end": 2}
        }]});
        ResourceHalf::from_json(document.to_string().as_bytes()).unwrap()
    }

    fn open(path: &Path) -> RedbSessionTable {
        RedbSessionTable::open(path, SessionSealKey::from_bytes([7; 32])).unwrap()
    }

    fn active(table: &RedbSessionTable, id: u64) -> Option<bool> {
        table.look_up(SessionId::from_u64(id)).unwrap().map(|session| session.is_active())
    }

    #[test]
    fn sessions_and_revocations_survive_a_process_that_does_not_end_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        let table = open(&path);
        for id in 1..=3 {
            table.add(&entry(id, "active"), 5).unwrap();
        }
        let held = table.look_up(SessionId::from_u64(1)).unwrap().unwrap();
        assert!(table.revoke(SessionId::from_u64(1), 5).unwrap());
        assert!(!table.revoke(SessionId::from_u64(9), 5).unwrap());
        assert!(!held.is_active());
        table.add(&entry(2, "revoked"), 5).unwrap();
        // The file as it is while the table is open, which is how a process that dies leaves it.
        let copy = folder.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        core::mem::forget(table);
        let table = open(&copy);
        assert_eq!([1, 2, 3].map(|id| active(&table, id)), [None, None, Some(true)]);
        for id in [1, 2, 9] {
            let again = table.add(&entry(id, "active"), 6);
            assert!(matches!(again, Err(SessionStoreError::Revoked)), "{id}: {again:?}");
        }
        assert_eq!(table.len(), 1);
    }

    fn with_epoch(id: u64, epoch: u64) -> ResourceHalf {
        ResourceHalf { policy_epoch: epoch, ..entry(id, "active") }
    }

    fn epoch(table: &RedbSessionTable, id: u64) -> u64 {
        table.look_up(SessionId::from_u64(id)).unwrap().unwrap().policy_epoch()
    }

    #[test]
    fn a_sessions_policy_epoch_never_falls_whatever_is_added_and_however_often_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        for (added, in_force) in [(5, 5), (1, 5), (0, 5), (7, 7), (6, 7)] {
            let table = open(&path);
            table.add(&with_epoch(1, added), 5).unwrap();
            assert_eq!(epoch(&table, 1), in_force);
            drop(table);
            assert_eq!(epoch(&open(&path), 1), in_force, "after a restart");
        }
        // Raised while the server ran.
        let table = open(&path);
        table.look_up(SessionId::from_u64(1)).unwrap().unwrap().raise_policy_epoch(9);
        table.add(&with_epoch(1, 1), 5).unwrap();
        drop(table);
        assert_eq!(epoch(&open(&path), 1), 9);
    }

    #[test]
    fn what_a_service_says_is_kept_with_how_far_that_was_and_both_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        let open_of = |id| SessionChange::Open(Box::new(entry(id, "active")));
        let at = |seq| Some(Cursor { incarnation: [9; 16], seq });
        let number = SessionId::from_u64;
        let table = open(&path);
        assert_eq!(table.cursor(), None);
        assert!(table.follow(&[open_of(1), open_of(2), open_of(3)], at(7), 5).unwrap().is_empty());
        let held = table.look_up(number(1)).unwrap().unwrap();
        let said = [SessionChange::End(number(1)), open_of(4), SessionChange::End(number(4)), open_of(5)];
        table.follow(&said, at(9), 6).unwrap();
        assert!(!held.is_active());
        // The file as it is while the table is open, which is how a process that dies leaves it.
        let copy = folder.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        core::mem::forget(table);
        let table = open(&copy);
        assert_eq!(table.cursor(), at(9));
        assert_eq!(
            [1, 2, 3, 4, 5].map(|id| active(&table, id)),
            [None, Some(true), Some(true), None, Some(true)]
        );
        table.follow(&[open_of(6)], None, 7).unwrap();
        assert_eq!(table.cursor(), at(9), "it is not moved unless that is said");
        let refused = table.follow(&[open_of(1), open_of(2)], at(10), 7).unwrap();
        assert!(
            matches!(refused.as_slice(), [(id, SessionStoreError::Revoked)] if *id == number(1)),
            "{refused:?}"
        );
        // Windows end at 2.
        assert_eq!(table.forget_ended(2).unwrap(), 0);
        assert_eq!(table.forget_ended(3).unwrap(), 4);
        assert!(table.is_empty());
        drop(table);
        let table = open(&copy);
        assert!(table.is_empty() && table.cursor() == at(10));
        assert!(table.was_revoked(number(1)).unwrap(), "that it was revoked is kept");
    }

    #[test]
    fn a_table_without_epochs_is_taken_over_with_its_sessions_and_revocations() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        let table = open(&path);
        table.add(&with_epoch(1, 5), 5).unwrap();
        table.revoke(SessionId::from_u64(2), 5).unwrap();
        drop(table);
        let file = RedbFile::open(&path).unwrap();
        file.commit(|transaction| {
            transaction.delete_table(EPOCHS)?;
            transaction.open_table(META)?.insert(FORMAT, WITHOUT_EPOCHS)?;
            Ok(())
        })
        .unwrap();
        drop(file);
        for _ in 0..2 {
            let table = open(&path);
            assert_eq!(epoch(&table, 1), 5);
            table.add(&with_epoch(1, 1), 5).unwrap();
            assert_eq!(epoch(&table, 1), 5);
            let again = table.add(&entry(2, "active"), 6);
            assert!(matches!(again, Err(SessionStoreError::Revoked)), "{again:?}");
        }
        let file = RedbFile::open(&path).unwrap();
        file.commit(|transaction| Ok(transaction.open_table(META)?.insert(FORMAT, "3").map(drop)?)).unwrap();
        drop(file);
        let newer = RedbSessionTable::open(&path, SessionSealKey::from_bytes([7; 32])).unwrap_err();
        assert!(newer.to_string().contains("format 3"), "{newer}");
        assert!(!newer.to_string().contains("move it away"), "{newer}");
    }

    #[test]
    fn a_table_that_somebody_has_open_is_not_to_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        let _held = open(&path);
        let refused = RedbSessionTable::open(&path, SessionSealKey::from_bytes([7; 32])).unwrap_err();
        assert!(refused.to_string().contains("another process has it open"), "{refused}");
        assert!(!refused.to_string().contains("move it away"), "{refused}");
    }

    #[test]
    fn the_file_shows_no_key_and_opens_with_its_own_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        open(&path).add(&entry(1, "active"), 5).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(12).any(|window| window == &SECRET.as_bytes()[..12]));
        assert!(!bytes.windows(9).any(|window| window == b"K_session"));
        let other = RedbSessionTable::open(&path, SessionSealKey::from_bytes([8; 32])).unwrap_err();
        assert!(matches!(other, SessionStoreError::DoesNotOpen), "{other}");
        assert_eq!(active(&open(&path), 1), Some(true));
    }

    #[test]
    fn files_that_are_no_session_table_are_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.redb");
        std::fs::write(&path, "some text that is not a database at all").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            let key = SessionSealKey::from_bytes([7; 32]);
            assert!(RedbSessionTable::open(&path, key).unwrap_err().to_string().contains("chmod 600"));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let error = RedbSessionTable::open(&path, SessionSealKey::from_bytes([7; 32])).unwrap_err();
        assert!(matches!(error, SessionStoreError::NotOurs(..)), "{error}");
    }
}
