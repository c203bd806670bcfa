//! Sessions that several servers share. Redis holds them sealed; looking one up never leaves this process.
//!
//! Every server keeps all sessions in memory and asks every [`WATCH_INTERVAL`] whether something changed. A revocation
//! counts at once where it was made, and everywhere else within that time; a server that has not heard from Redis for
//! [`MAX_STALENESS`] accepts nothing.
//!
//! # When Redis loses what it had
//!
//! A lost revocation would bring a session back. So the sessions belong to an epoch like the marks do (see
//! `link.rs`), with a fence: when the epoch is over, **every session is over**, and a session that began at or
//! before the fence is not taken again. Agents authenticate anew.

use core::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use obol_token::SessionId;
use obol_verify::{
    Clock, MemorySessionTable, ResourceHalf, Session, SessionSealKey, SessionStore, SessionStoreError,
    SessionTable, SessionTableUnavailable, parse_sessions,
};

use crate::link::{Answer, Change, Link, Memory, Row, Unfit, check_clock};
use crate::options::RedisOptions;
use crate::spent::OpenError;
use crate::writer::WATCH_INTERVAL;

/// The most sessions in one table. All of them are read again when one changes.
pub const MAX_SHARED_SESSIONS: usize = 10_000;
/// How old what is known about the sessions may be.
pub const MAX_STALENESS: Duration = Duration::from_millis(800);
/// The name of the epoch's record.
const RECORD: &str = "sessions";

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
    /// The epoch that the sessions in memory belong to, and the number of the last change that they show.
    epoch: String,
    changes: String,
    fence: u64,
}

impl RedisSessionTable {
    /// Connects, checks the server and reads the sessions. The key is the same on every server.
    pub fn open(
        options: RedisOptions,
        key: SessionSealKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let address = options.address();
        let connection = Connection {
            link: None,
            memory: Memory::default(),
            epoch: String::new(),
            changes: String::new(),
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
        inner.poll().map_err(|reason| OpenError { address, reason })?;
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
        Some(self.inner.lock().fence).filter(|fence| *fence > 0)
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
        let heard = self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match &*heard {
            Ok(when) if when.elapsed() <= MAX_STALENESS => Ok(()),
            Ok(_) => Err(SessionTableUnavailable("Redis does not answer".to_owned())),
            Err(why) => Err(SessionTableUnavailable(why.clone())),
        }
    }
}

impl SessionStore for RedisSessionTable {
    fn add(&self, half: &ResourceHalf, now: u64) -> Result<(), SessionStoreError> {
        let id = half.session_id;
        if half.revoked {
            return self.revoke(id, now).map(|_known| ());
        }
        let inner = &*self.inner;
        let session = Session::from_half(half)?;
        let sealed = inner.key.seal(inner.options.namespace.as_bytes(), id, &half.to_json())?;
        let mut connection = inner.lock();
        let began = half.window.start;
        let word = inner.change(
            &mut connection,
            |fence| {
                if fence > 0 && began <= fence { Err(SessionStoreError::Fenced(fence)) } else { Ok(()) }
            },
            id,
            "add",
            &sealed,
        )?;
        match word.as_slice() {
            b"ok" => inner.sessions.add(session),
            b"full" => Err(SessionStoreError::Full),
            b"revoked" => Err(SessionStoreError::Revoked),
            _ => Err(SessionStoreError::Unavailable("a reply of Redis makes no sense".to_owned())),
        }
    }

    /// Also one that is not known here. When this returns `Ok`, Redis has it, and every other server within
    /// [`WATCH_INTERVAL`].
    fn revoke(&self, id: SessionId, now: u64) -> Result<bool, SessionStoreError> {
        let inner = &*self.inner;
        let known = inner.sessions.revoke(id);
        let now = now.to_string();
        let mut connection = inner.lock();
        let word = inner.change(&mut connection, |_| Ok(()), id, "revoke", now.as_bytes())?;
        // One that was added between the two steps.
        let added = inner.sessions.revoke(id);
        if word == b"ok" {
            return Ok(known || added);
        }
        Err(SessionStoreError::Unavailable("a reply of Redis makes no sense".to_owned()))
    }

    fn list(&self) -> Vec<Arc<Session>> {
        SessionStore::list(&self.inner.sessions)
    }
}

impl Inner {
    fn run(&self) {
        let mut connection = self.lock();
        while !self.closing.load(Ordering::SeqCst) {
            let waited = self.closed.wait_timeout(connection, WATCH_INTERVAL);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            if let Err(unfit) = self.poll() {
                self.hear(Err(unfit.to_string()));
            }
            connection = self.lock();
        }
    }

    /// Reads what changed.
    fn poll(&self) -> Result<(), Unfit> {
        let mut connection = self.lock();
        let outcome = self.read(&mut connection);
        if outcome.is_err() {
            connection.link = None;
        }
        outcome
    }

    fn read(&self, connection: &mut Connection) -> Result<(), Unfit> {
        self.connect(connection)?;
        let Connection { link: Some(link), changes, memory, .. } = connection else { return Ok(()) };
        let Answer::Done(read) = link.read(changes)? else { return Err(lost()) };
        check_clock(read.now_ms, &self.options, &*self.clock, memory)?;
        if memory.leapt {
            return Err(Unfit::Leapt);
        }
        if let Some(rows) = read.rows {
            let listed = self.opened(&rows)?;
            self.sessions.replace_all(listed).map_err(|error| Unfit::Unreachable(error.to_string()))?;
            *changes = read.changes;
        }
        self.hear(Ok(Instant::now()));
        Ok(())
    }

    /// One session that does not open makes the whole table unusable: what else is wrong with it cannot be told.
    fn opened(&self, rows: &[Row]) -> Result<Vec<Session>, Unfit> {
        let mut sessions = Vec::with_capacity(rows.len());
        for (number, sealed) in rows {
            let id = core::str::from_utf8(number).ok().and_then(SessionId::parse);
            let id = id.ok_or_else(|| Unfit::Unreachable("a session's number is none".to_owned()))?;
            let text = self
                .key
                .open(self.options.namespace.as_bytes(), id, sealed)
                .map_err(|error| Unfit::Unreachable(error.to_string()))?;
            let parsed = parse_sessions(&text).map_err(|error| Unfit::Unreachable(error.to_string()))?;
            sessions.extend(parsed.into_iter().filter(|session| session.session_id() == id));
        }
        Ok(sessions)
    }

    /// Makes sure of a connection. A new epoch ends every session.
    fn connect(&self, connection: &mut Connection) -> Result<(), Unfit> {
        if connection.link.is_some() {
            return Ok(());
        }
        let (mut link, epoch) = Link::open(&self.options, RECORD, &*self.clock, &mut connection.memory)?;
        if connection.epoch != epoch.id {
            self.sessions.revoke_all();
            connection.epoch = epoch.id;
            connection.changes = String::new();
            if let Some(before) = &epoch.before {
                link.forget(before);
            }
        }
        connection.fence = epoch.fence;
        connection.link = Some(link);
        Ok(())
    }

    fn change(
        &self,
        connection: &mut Connection,
        allowed: impl FnOnce(u64) -> Result<(), SessionStoreError>,
        id: SessionId,
        what: &'static str,
        value: &[u8],
    ) -> Result<Vec<u8>, SessionStoreError> {
        let unavailable = |unfit: Unfit| SessionStoreError::Unavailable(unfit.to_string());
        self.connect(connection).map_err(unavailable)?;
        allowed(connection.fence)?;
        let number = id.to_string();
        let change = Change { what, number: &number, value, max_sessions: MAX_SHARED_SESSIONS };
        let answer = match &mut connection.link {
            Some(link) => link.change(&change),
            None => Err(lost()),
        };
        match answer {
            Ok(Answer::Done(word)) => Ok(word),
            Ok(Answer::EpochIsOver) => {
                connection.link = None;
                Err(unavailable(lost()))
            }
            Err(unfit) => {
                connection.link = None;
                Err(unavailable(unfit))
            }
        }
    }

    fn hear(&self, what: Result<Instant, String>) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    // No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost() -> Unfit {
    Unfit::Unreachable("it has lost sessions, or may have; every session is over".to_owned())
}
