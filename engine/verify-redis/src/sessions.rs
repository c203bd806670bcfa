//! Sessions that several servers share. Redis holds them sealed; looking one up never leaves this process.
//!
//! Every server keeps all sessions in memory and asks every [`WATCH_INTERVAL`] whether something changed. A revocation
//! counts at once where it was made, and everywhere else within that time; a server that has not heard from Redis for
//! [`MAX_STALENESS`] accepts nothing.
//!
//! # When Redis loses what it had
//!
//! A lost revocation would bring a session back. So the sessions belong to an incarnation like the marks do (see
//! `incarnation.rs`), with a fence: when the incarnation is over, **every session is over**, and a session that began at or
//! before the fence is not taken again. Agents authenticate anew. The same happens where somebody put back what Redis held
//! before, or changed it (see `table.rs`).

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use obol_session::Cursor;
use obol_token::SessionId;
use obol_verify::{
    Clock, MemorySessionTable, ResourceHalf, Session, SessionChange, SessionSealKey, SessionStore,
    SessionStoreError, SessionTable, SessionTableUnavailable,
};
use parking_lot::{Condvar, Mutex};

use crate::contention::attempts;
use crate::incarnation::{Memory, SESSIONS, check_clock};
use crate::link::{Answer, Link};
use crate::options::RedisOptions;
use crate::spent::RedisOpenError;
use crate::table::{Draft, Keeper, Table, Unbelievable};
use crate::unfit::Unfit;
use crate::writer::WATCH_INTERVAL;

/// The most sessions in one table. All of them are read again when one changes.
const MAX_SHARED_SESSIONS: usize = 10_000;
/// How old what is known about the sessions may be.
pub const MAX_STALENESS: Duration = Duration::from_millis(800);

/// Sessions in Redis or Valkey, sealed, shared by all servers of one audience.
pub struct RedisSessionTable {
    inner: Arc<Inner>,
    poller: Option<JoinHandle<()>>,
}

struct Inner {
    sessions: MemorySessionTable,
    key: SessionSealKey,
    options: RedisOptions,
    clock: Arc<dyn Clock>,
    connection: Mutex<Connection>,
    heard: Mutex<Result<Instant, String>>,
    closing: AtomicBool,
    closed: Condvar,
}

struct Connection {
    link: Option<Link>,
    memory: Memory,
    /// The incarnation that the sessions in memory belong to, and the table that they are.
    incarnation: String,
    table: Table,
    fence: u64,
}

impl RedisSessionTable {
    /// Connects, checks the server and reads the sessions. The key is the same on every server.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`].
    pub fn open(
        options: RedisOptions,
        key: SessionSealKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RedisOpenError> {
        let address = options.address();
        let connection = Connection {
            link: None,
            memory: Memory::default(),
            incarnation: String::new(),
            table: Table::default(),
            fence: 0,
        };
        let inner = Arc::new(Inner {
            sessions: MemorySessionTable::with_max_sessions(MAX_SHARED_SESSIONS),
            key,
            options,
            clock,
            connection: Mutex::new(connection),
            heard: Mutex::new(Err("nothing was read yet".to_owned())),
            closing: AtomicBool::new(false),
            closed: Condvar::new(),
        });
        inner.poll().map_err(|reason| RedisOpenError { address, reason })?;
        let for_thread = Arc::clone(&inner);
        let poller = std::thread::Builder::new()
            .name("obol-sessions".to_owned())
            .spawn(move || for_thread.run())
            // Without the thread everything known goes stale, and nothing is accepted.
            .ok();
        Ok(Self { inner, poller })
    }

    /// Sessions that began at or before this time (Unix seconds) are not taken. `None` if nothing was ever lost.
    pub fn fence(&self) -> Option<u64> {
        Some(self.inner.connection.lock().fence).filter(|fence| *fence > 0)
    }

    /// How many sessions are known here.
    pub fn len(&self) -> usize {
        self.inner.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for RedisSessionTable {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        self.inner.closed.notify_all();
        if let Some(poller) = self.poller.take() {
            let _panicked = poller.join();
        }
    }
}

impl fmt::Debug for RedisSessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionTable")
            .field("address", &self.inner.options.address())
            .field("sessions", &self.len())
            .finish_non_exhaustive()
    }
}

impl SessionTable for RedisSessionTable {
    fn look_up(&self, id: SessionId) -> Result<Option<Arc<Session>>, SessionTableUnavailable> {
        self.health()?;
        self.inner.sessions.look_up(id)
    }

    fn health(&self) -> Result<(), SessionTableUnavailable> {
        match &*self.inner.heard.lock() {
            Ok(when) if when.elapsed() <= MAX_STALENESS => Ok(()),
            Ok(_) => Err(SessionTableUnavailable("Redis does not answer".to_owned())),
            Err(why) => Err(SessionTableUnavailable(why.clone())),
        }
    }
}

impl SessionStore for RedisSessionTable {
    fn add(&self, half: &ResourceHalf, _now: u64) -> Result<(), SessionStoreError> {
        self.inner.open_session(half, None)
    }

    /// Also one that is not known here. When this returns `Ok`, Redis has it, and every other server within
    /// [`WATCH_INTERVAL`].
    fn revoke(&self, id: SessionId, _now: u64) -> Result<bool, SessionStoreError> {
        self.inner.end_session(id, None)
    }

    /// One transaction for each change; the cursor comes with the last, so it is never ahead of what is there. What other
    /// servers wrote of it already is not written again.
    fn follow(
        &self,
        changes: &[SessionChange],
        cursor: Option<Cursor>,
        _now: u64,
    ) -> Result<Vec<(SessionId, SessionStoreError)>, SessionStoreError> {
        let mut refused = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            let cursor = cursor.filter(|_| place + 1 == changes.len());
            match change {
                SessionChange::End(id) => drop(self.inner.end_session(*id, cursor)?),
                SessionChange::Open(half) => match self.inner.open_session(half, cursor) {
                    Ok(()) => {}
                    Err(error) if error.leaves_others() => refused.push((half.session_id, error)),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(refused)
    }

    fn cursor(&self) -> Option<Cursor> {
        self.inner.connection.lock().table.cursor()
    }

    /// They are revoked: of those a row stays that holds no keys and takes no session's room.
    fn forget_ended(&self, before: u64) -> Result<usize, SessionStoreError> {
        let is_over = |session: &Arc<Session>| session.window().is_some_and(|window| window.end < before);
        let over: Vec<_> = SessionStore::list(&self.inner.sessions).into_iter().filter(is_over).collect();
        over.iter()
            .filter(|session| session.is_active())
            .try_for_each(|session| self.revoke(session.session_id(), before).map(drop))?;
        for session in &over {
            self.inner.sessions.remove(session.session_id());
        }
        Ok(over.len())
    }

    fn list(&self) -> Vec<Arc<Session>> {
        SessionStore::list(&self.inner.sessions)
    }
}

impl Inner {
    fn open_session(&self, half: &ResourceHalf, cursor: Option<Cursor>) -> Result<(), SessionStoreError> {
        let id = half.session_id;
        if half.revoked {
            return self.end_session(id, cursor).map(|_known| ());
        }
        let session = Session::from_half(half)?;
        let mut connection = self.connection.lock();
        self.change(&mut connection, |table, keeper, fence| {
            if fence > 0 && half.window.start <= fence {
                return Err(SessionStoreError::Fenced(fence));
            }
            // What somebody raised in memory is in force too.
            let known = self.sessions.look_up(id).ok().flatten();
            let in_force = known.map_or(0, |known| known.policy_epoch());
            Ok(table.add(keeper, half, in_force, MAX_SHARED_SESSIONS, cursor)?)
        })?;
        session.raise_policy_epoch(connection.table.policy_epoch(id));
        self.sessions.add(session)
    }

    fn end_session(&self, id: SessionId, cursor: Option<Cursor>) -> Result<bool, SessionStoreError> {
        let known = self.sessions.revoke(id);
        let mut connection = self.connection.lock();
        self.change(&mut connection, |table, keeper, _| Ok(table.revoke(keeper, id, cursor)?))?;
        // One that was added between the two steps.
        let added = self.sessions.revoke(id);
        Ok(known || added)
    }

    fn run(&self) {
        while !self.closing.load(Ordering::SeqCst) {
            let _timed_out = self.closed.wait_for(&mut self.connection.lock(), WATCH_INTERVAL);
            if let Err(unfit) = self.poll() {
                self.hear(Err(unfit.to_string()));
            }
        }
    }

    /// Reads what changed.
    fn poll(&self) -> Result<(), Unfit> {
        let mut connection = self.connection.lock();
        let outcome = self.read(&mut connection);
        if outcome.is_err() {
            connection.link = None;
        }
        outcome
    }

    fn read(&self, connection: &mut Connection) -> Result<(), Unfit> {
        self.connect(connection)?;
        let Connection { link: Some(link), table, memory, incarnation, .. } = connection else {
            return Ok(());
        };
        let Answer::Done(read) = link.read(&table.changes(), self.clock.now())? else { return Err(lost()) };
        check_clock(read.now_ms, &self.options, &*self.clock, memory)?;
        if memory.leapt {
            return Err(Unfit::Leapt);
        }
        if let Some((changes, manifest, rows)) = read.changed {
            let outcome = table.read(&self.keeper(incarnation), &changes, &manifest, &rows);
            memory.played_back |= outcome.as_ref().is_err_and(|error| *error == Unbelievable::PlayedBack);
            let (read, listed) = outcome.map_err(unbelievable)?;
            self.sessions.replace_all(listed).map_err(|error| Unfit::Unreachable(error.to_string()))?;
            *table = read;
        }
        self.hear(Ok(Instant::now()));
        Ok(())
    }

    fn keeper<'a>(&'a self, incarnation: &'a str) -> Keeper<'a> {
        Keeper { key: &self.key, namespace: &self.options.namespace, incarnation }
    }

    /// Makes sure of a connection. A new incarnation ends every session.
    fn connect(&self, connection: &mut Connection) -> Result<(), Unfit> {
        if connection.link.is_some() {
            return Ok(());
        }
        let (link, incarnation) = Link::open(&self.options, &SESSIONS, &*self.clock, &mut connection.memory)?;
        if connection.incarnation != incarnation.id {
            self.sessions.revoke_all();
            connection.incarnation = incarnation.id;
            connection.table = Table::default();
        }
        connection.fence = connection.fence.max(incarnation.fence);
        connection.link = Some(link);
        Ok(())
    }

    /// Changes the table as it is now; once more where another server was faster.
    fn change(
        &self,
        connection: &mut Connection,
        draft: impl Fn(&Table, &Keeper<'_>, u64) -> Result<Draft, SessionStoreError>,
    ) -> Result<(), SessionStoreError> {
        for _ in attempts() {
            let outcome = self.read(connection);
            self.drop_link_after(connection, outcome)?;
            let change =
                match draft(&connection.table, &self.keeper(&connection.incarnation), connection.fence)? {
                    Draft::Change(change) => change,
                    Draft::Known => return Ok(()),
                    Draft::Revoked => return Err(SessionStoreError::Revoked),
                    Draft::Full => return Err(SessionStoreError::Full),
                };
            let known = connection.table.changes();
            let written = match &mut connection.link {
                Some(link) => link.change(&known, &change, self.clock.now()),
                None => Err(lost()),
            };
            let written = match written {
                Ok(Answer::Done(written)) => Ok(written),
                Ok(Answer::IncarnationIsOver) => Err(lost()),
                Err(unfit) => Err(unfit),
            };
            if self.drop_link_after(connection, written)? {
                connection.table = change.done();
                return Ok(());
            }
        }
        Err(SessionStoreError::Unavailable("other servers change it all the time; try again".to_owned()))
    }

    /// After an error nobody knows what the connection still holds.
    fn drop_link_after<R>(
        &self,
        connection: &mut Connection,
        outcome: Result<R, Unfit>,
    ) -> Result<R, SessionStoreError> {
        outcome.map_err(|unfit| {
            connection.link = None;
            SessionStoreError::Unavailable(unfit.to_string())
        })
    }

    fn hear(&self, what: Result<Instant, String>) {
        *self.heard.lock() = what;
    }
}

fn unbelievable(error: Unbelievable) -> Unfit {
    match error {
        Unbelievable::Sealed(error) => Unfit::Unreachable(error.to_string()),
        Unbelievable::PlayedBack => Unfit::PlayedBack,
        Unbelievable::Nonsense => Unfit::Unreachable("its table of sessions makes no sense".to_owned()),
    }
}

fn lost() -> Unfit {
    Unfit::Unreachable("it has lost sessions, or may have; every session is over".to_owned())
}
