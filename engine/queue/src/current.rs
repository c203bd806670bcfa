//! The current session: which one draws use that name none, and what becomes of it when its time is over.
//!
//! The current session is the youngest that can still give tokens, so that an older one takes over when a younger ends.
//! A flush stands in between: what an operator cut off does not go on with an older session. That lasts until there is
//! a younger session, or until [`Queue::resume`](crate::Queue::resume).

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::error::DequeueError;
use crate::session::{Session, SessionState};
use crate::shared::Shared;

impl Session {
    /// Whether no tool can be given a token any more: what is left of the session is shorter than each one's least life.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now.saturating_add(self.least_life) > self.expires_at || now >= self.expires_at
    }
}

impl Shared {
    /// Chooses the current session anew. Tells whether it is another one now.
    pub(crate) fn elect(&self) -> bool {
        // One at a time, and each sees the sessions that were there when it began: the last one is right.
        let _one_at_a_time = self.sessions.electing.lock();
        let (now, sessions) = (self.timeline.look().now, self.sessions.by_age());
        let next = self.choose(&sessions, now);
        for over in sessions.iter().filter(|session| session.is_active() && session.is_over(now)) {
            self.sessions.last_end.fetch_max(over.expires_at, Ordering::SeqCst);
        }
        let before = self.sessions.current.load_full();
        if before.as_ref().map(|session| session.id) == next.as_ref().map(|session| session.id) {
            return false;
        }
        self.sessions.current.store(next.clone());
        let Some(before) = before else { return true };
        // Who waits for a token of it draws again, from the one that has taken over.
        before.partitions.iter().for_each(|partition| _ = partition.available.notify(usize::MAX));
        if before.is_active() && before.is_over(now) {
            match next {
                Some(next) if next.is_active() => {
                    tracing::info!(session = %before.id, next = %next.id, "a session ended; an older one takes over");
                    self.warm_up(&next);
                }
                _ => tracing::warn!(
                    session = %before.id,
                    "the last session ended; nothing is handed out until the next one is provisioned"
                ),
            }
        }
        true
    }

    /// Chooses another session if the time of the current one is over. Tells whether there is another.
    pub(crate) fn elect_if_over(&self) -> bool {
        let now = self.timeline.look().now;
        self.sessions.current.load().as_ref().is_some_and(|current| current.is_over(now)) && self.elect()
    }

    fn choose(&self, sessions: &[Arc<Session>], now: u64) -> Option<Arc<Session>> {
        let resumed = self.policy.kept.lock().resumed;
        let mut flushed = None;
        for session in sessions.iter().rev() {
            if !session.is_active() {
                if session.order >= resumed {
                    return Some(Arc::clone(session));
                }
                flushed = flushed.or(Some(session));
            } else if !session.is_over(now) {
                return Some(Arc::clone(session));
            }
        }
        flushed.cloned()
    }

    /// What can be had from each of these sessions, which are sorted by age.
    pub(crate) fn states(&self, sessions: &[Arc<Session>], now: u64) -> Vec<SessionState> {
        let resumed = self.policy.kept.lock().resumed;
        let mut behind_a_flush = false;
        let mut states: Vec<_> = sessions
            .iter()
            .rev()
            .map(|session| {
                if !session.is_active() {
                    behind_a_flush |= session.order >= resumed;
                    SessionState::Flushed
                } else if session.is_over(now) {
                    SessionState::Expired
                } else if behind_a_flush {
                    SessionState::Held
                } else if self.lapsed(session).is_some() {
                    SessionState::Lapsed
                } else {
                    SessionState::Active
                }
            })
            .collect();
        states.reverse();
        states
    }

    /// Whether an older session would take over if this one, which was flushed, were forgotten.
    pub(crate) fn holds_back_others(&self, session: &Session, now: u64) -> bool {
        let resumed = self.policy.kept.lock().resumed;
        !session.is_active()
            && session.order >= resumed
            && self
                .sessions
                .all
                .read()
                .values()
                .any(|other| other.order < session.order && other.is_active() && !other.is_over(now))
    }

    /// Has tokens minted for every tool of a session, once nobody waits: ten thousand new tools must not keep those in
    /// use waiting. A caller who finds nothing asks at once.
    pub(crate) fn warm_up(&self, session: &Session) {
        for partition in &session.partitions {
            if !core::mem::replace(&mut partition.refill.lock().queued, true) {
                self.work.refills.ask_later(partition);
            }
        }
        self.work.refills.wake();
    }

    /// Why there is no session to draw from.
    pub(crate) fn why_no_session(&self) -> DequeueError {
        match self.sessions.last_end.load(Ordering::SeqCst) {
            _ if self.is_held() => DequeueError::Held,
            0 => DequeueError::NoSession,
            end => DequeueError::SessionEnded(end),
        }
    }

    /// Why a session gives nothing any more, where it does not.
    pub(crate) fn why_ended(&self, session: &Session) -> Option<DequeueError> {
        let now = self.timeline.look().now;
        if session.is_active() {
            let over = session.is_over(now).then_some(DequeueError::SessionEnded(session.expires_at));
            return over.or_else(|| self.lapsed(session));
        }
        Some(match now < session.expires_at {
            _ if self.is_held() => DequeueError::Held,
            true => DequeueError::SessionFlushed,
            false => DequeueError::SessionEnded(session.expires_at),
        })
    }

    /// Why nothing of a session is handed out, where its lease is over.
    pub(crate) fn lapsed(&self, session: &Session) -> Option<DequeueError> {
        let lease_secs = session.lease_secs?;
        let unheard_secs = self.sessions.contact.last().map(|last| self.timeline.both().since(last));
        let lapsed = unheard_secs.is_none_or(|passed| passed >= lease_secs);
        lapsed.then_some(DequeueError::Lapsed { unheard_secs, lease_secs })
    }

    /// When the lease of a session ends unless the service is heard, in Unix seconds; `None` where it has none, or nothing was
    /// heard since the start.
    pub(crate) fn lease_ends_at(&self, session: &Session) -> Option<u64> {
        let lease_secs = session.lease_secs?;
        Some(self.sessions.contact.last()?.wall.saturating_add(lease_secs))
    }

    pub(crate) fn is_held(&self) -> bool {
        self.policy.kept.lock().hold.is_some()
    }
}
