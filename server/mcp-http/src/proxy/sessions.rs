//! The sessions that are known: what was promised to each is kept for as long as it lives.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use obol_mcp::front::Front;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most sessions.
const MAX_SESSIONS: usize = 1_024;
/// The most streams that one session listens to besides its answers.
const MAX_STREAMS: usize = 8;
/// How long a session lives that nothing is heard of.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) front: Front,
    streams: Arc<Semaphore>,
}

impl Session {
    pub(super) fn new(front: Front) -> Arc<Self> {
        Arc::new(Self { front, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
    }

    /// A place for one more stream. `None`: there are too many.
    pub(super) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, (Arc<Session>, Instant)>>);

impl Sessions {
    /// A session that is heard of again.
    pub(super) fn find(&self, name: &str, now: Instant) -> Option<Arc<Session>> {
        let mut sessions = self.0.lock();
        let (session, heard) = sessions.get_mut(name)?;
        if is_over(session, *heard, now) {
            sessions.remove(name);
            return None;
        }
        *heard = now;
        Some(Arc::clone(session))
    }

    /// Notes a new one. `false`: its name is another one's, or there are too many in use. Where there are too many, the one goes that
    /// nothing was heard of for the longest time.
    pub(super) fn insert(&self, name: &str, session: Arc<Session>, now: Instant) -> bool {
        let mut sessions = self.0.lock();
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, (session, heard)| !is_over(session, *heard, now));
        }
        if sessions.len() >= MAX_SESSIONS {
            let idle = sessions.iter().filter(|(_, (session, _))| !is_in_use(session));
            let Some(oldest) = idle.min_by_key(|(_, (_, heard))| *heard).map(|(name, _)| name.clone()) else {
                return false;
            };
            sessions.remove(&oldest);
        }
        if sessions.contains_key(name) {
            return false;
        }
        sessions.insert(name.to_owned(), (session, now));
        true
    }

    /// Forgets one.
    pub(super) fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

/// Whether something of it is under way.
fn is_in_use(session: &Arc<Session>) -> bool {
    Arc::strong_count(session) > 1
}

fn is_over(session: &Arc<Session>, heard: Instant, now: Instant) -> bool {
    !is_in_use(session) && now.saturating_duration_since(heard) > IDLE
}
