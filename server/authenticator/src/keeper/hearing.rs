//! What follows from what the service says: what was minted ahead is destroyed where something was ended, and sessions are
//! opened again where the agent was let in. And what the service is told: that an operator flushed the sidecar.

use core::sync::atomic::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use obol_handshake::IdentityKey;
use obol_ipc::control::{FlushScope, HoldStatus};
use obol_ipc::names::{AgentInstanceId, EventKind, Reason};
use obol_session::clock::Reading;
use obol_session::{Cursor, SessionId};
use obol_stream::{Standing, Word};
use obol_uplink::MAX_SKEW_SECS;
use tokio::sync::mpsc;

use super::sidecar::is_there;
use super::{Keeper, chance};
use crate::listener::{Between, Heard, News};
use crate::tqs::Seen;

/// The most ends that the sidecar has not been told of one by one; more are told as the agent's end.
const MAX_OWED: usize = 64;
/// Sessions that were opened lately.
const MAX_OPENED: usize = 16;

/// What the sidecar has to be told.
type Owed = (EventKind, FlushScope, Reason);

/// What was heard, and what is still to be done about it.
pub(crate) struct Hearing {
    pub(super) news: mpsc::Receiver<Heard>,
    between: Arc<Between>,
    owed: VecDeque<Owed>,
    /// The agent's live sessions as the service named them, and in which attempt, until the sidecar is compared with that.
    live: Option<(BTreeSet<SessionId>, u64)>,
    /// Sessions that were opened, and how many attempts to listen there had been by then.
    opened: VecDeque<(SessionId, u64)>,
    /// How far it has come once nothing is owed any more.
    cursor: Option<Cursor>,
    /// What was heard in attempts up to this one is about another agent.
    others: u64,
}

impl Hearing {
    pub(crate) fn new(news: mpsc::Receiver<Heard>, between: Arc<Between>) -> Self {
        Self {
            news,
            between,
            owed: VecDeque::new(),
            live: None,
            opened: VecDeque::new(),
            cursor: None,
            others: 0,
        }
    }

    /// Something changed that makes another attempt to listen worth while.
    pub(super) fn listen_again(&self) {
        self.between.again.notify_one();
    }

    /// As whom the service is listened to from here on; as nobody for now, if that is not known.
    pub(super) fn listen_as(&self, key: Option<IdentityKey>) {
        self.between.key.send_replace(key);
    }

    /// There is another agent from here on: nothing that was heard is about it.
    pub(super) fn begin_anew(&mut self) {
        self.others = self.between.attempts.load(Ordering::SeqCst);
        (self.live, self.cursor) = (None, None);
        self.owed.clear();
        self.opened.clear();
        self.between.word.send_replace(None);
        self.between.done.send_replace(None);
    }

    pub(super) fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    /// A session was opened. An attempt to listen that began before may not know it.
    pub(super) fn opened(&mut self, session: SessionId) {
        if self.opened.len() >= MAX_OPENED {
            self.opened.pop_front();
        }
        self.opened.push_back((session, self.between.attempts.load(Ordering::SeqCst)));
    }

    /// Whether an attempt to listen began when this session was open already.
    fn knew(&self, attempt: u64, session: SessionId) -> bool {
        self.opened.iter().all(|(opened, attempts)| *opened != session || *attempts < attempt)
    }

    fn owe(&mut self, kind: &str, scope: FlushScope, reason: &str, agent: Option<AgentInstanceId>) {
        let scope = match agent {
            Some(agent) if self.owed.len() >= MAX_OWED => {
                self.owed.clear();
                FlushScope::Agent(agent)
            }
            _ => scope,
        };
        let reason: String = reason.chars().take(200).collect();
        if let (Ok(kind), Ok(reason)) = (EventKind::new(kind), Reason::new(reason)) {
            self.owed.push_back((kind, scope, reason));
        }
    }

    /// Whether all that follows from what was heard is done.
    fn is_done(&self) -> bool {
        self.owed.is_empty() && self.live.is_none()
    }

    /// Confirms what was heard, once all that follows from it is done.
    fn confirm(&self) {
        if self.is_done() && self.cursor.is_some() {
            self.between.done.send_if_modified(|done| core::mem::replace(done, self.cursor) != self.cursor);
        }
    }
}

impl Keeper {
    pub(super) fn agent(&self) -> Option<AgentInstanceId> {
        self.authenticator.identity().agent_id().and_then(|id| AgentInstanceId::new(id).ok())
    }

    /// Does what follows from what the service says.
    pub(super) async fn hear(&mut self, heard: Heard) {
        if heard.attempt <= self.hearing.others {
            return;
        }
        match heard.news {
            News::Began { standing, live } => {
                self.hearing.live = live.map(|live| (live, heard.attempt));
                match standing {
                    Some(Standing::Suspended) => {
                        self.end("SUSPENDED", "the service says that the agent is suspended").await;
                    }
                    Some(Standing::Active) | None => self.let_in(),
                }
                if self.hearing.live.is_some() {
                    self.look_at_sidecar().await;
                }
            }
            News::SessionEnd { session, reason } => self.session_ended(session, &reason).await,
            News::AgentEnd { revoked, reason } => {
                self.end(if revoked { "REVOKED" } else { "SUSPENDED" }, &reason).await;
            }
            News::AgentEnabled => self.let_in(),
            News::Nothing { service_now } => self.heard_at(service_now),
        }
        self.hearing.cursor = Some(heard.cursor);
        self.hearing.confirm();
        self.tell_of_contact().await;
    }

    /// The service says that it said all it had to, at this time of its own. That counts once the sidecar knows all of it, and
    /// only if it was not held back on the way.
    fn heard_at(&mut self, service_now: u64) {
        let now = self.now();
        if now.wall.abs_diff(service_now) <= MAX_SKEW_SECS {
            self.note_contact(now);
        }
    }

    /// The service was heard then. While the sidecar has yet to be told of an end, nothing prolongs its leases.
    pub(super) fn note_contact(&mut self, at: Reading) {
        if self.hearing.is_done() {
            self.heard = Some(at);
        }
    }

    /// Tells the sidecar when the service was heard, if it does not know. Where it cannot be told, that is seen and said when it
    /// is looked at.
    pub(super) async fn tell_of_contact(&mut self) {
        if let Some(heard) = self.heard
            && let Err(error) = self.tqs.heard(heard, self.now().since(heard)).await
        {
            tracing::debug!(%error, "the sidecar does not know that the service was heard");
        }
    }

    async fn session_ended(&mut self, session: SessionId, reason: &str) {
        tracing::warn!(%session, reason, "the service ended a session");
        self.unended.remove(&session);
        self.auditor.session_ended(session, reason);
        if self.current.as_ref().is_some_and(|current| current.open.session_id == session) {
            self.current = None;
        }
        let agent = self.agent();
        self.hearing.owe("obol:session-ended", FlushScope::Session(session), reason, agent);
        self.tell_sidecar().await;
    }

    /// The service ended the agent: what was minted ahead must not be handed out any more.
    pub(super) async fn end(&mut self, code: &str, why: &str) {
        self.current = None;
        self.refused = Some(code.to_owned());
        // That was what it had to be told, where it had to be told anything.
        if let Some(Word::Flushed { since, scope, reason }) = self.hearing.between.word.send_replace(None) {
            tracing::info!(
                "the service knows of the flush, and holds the agent until an operator enables it"
            );
            self.auditor.flush_told(&scope, &reason);
            if let Err(error) = self.authenticator.set_told_flush(since) {
                tracing::error!(%error, "that the service knows of the flush could not be kept");
            }
        }
        if core::mem::replace(&mut self.shared.known.lock().is_stopped, true) {
            return;
        }
        let now = self.now();
        self.back_off.refused(now, chance());
        self.auditor.agent_ended(self.authenticator.identity().agent_id(), code, why);
        for session in core::mem::take(&mut self.unended) {
            self.auditor.session_ended(session, "the service ended the agent");
        }
        if let Some(agent) = self.agent() {
            tracing::warn!(agent = agent.as_str(), why, "the service ended the agent");
            let kind = format!("obol:agent-{}", code.to_ascii_lowercase());
            // Its sessions are part of it.
            self.hearing.owed.clear();
            self.hearing.owe(&kind, FlushScope::Agent(agent), why, None);
        }
        self.tell_sidecar().await;
    }

    /// The service lets the agent open sessions, which it may not have done before.
    fn let_in(&mut self) {
        if !core::mem::take(&mut self.shared.known.lock().is_stopped) {
            return;
        }
        tracing::info!("the service lets the agent in again");
        self.auditor.agent_let_in(self.authenticator.identity().agent_id());
        (self.refused, self.failure) = (None, None);
        self.back_off.reset();
    }

    /// Tells the sidecar what it has not heard yet. It may have been away.
    pub(super) async fn tell_sidecar(&mut self) {
        while let Some((kind, scope, reason)) = self.hearing.owed.front().cloned() {
            match self.tqs.ended(kind, scope, reason).await {
                Ok(done) => {
                    tracing::info!(
                        sessions = done.sessions_ended,
                        "the sidecar destroyed what was minted ahead"
                    );
                    self.hearing.owed.pop_front();
                }
                Err(error) => {
                    tracing::error!(%error, "what was minted ahead is still there; it is tried again");
                    return;
                }
            }
        }
        self.hearing.confirm();
    }

    /// Ends at the sidecar what the service does not name among the agent's live sessions.
    pub(super) fn compare(&mut self, seen: &Seen) {
        let Some((live, attempt)) = self.hearing.live.take() else { return };
        let agent = self.agent();
        for status in &seen.sessions {
            let is_ours = agent.as_ref() == Some(&status.agent_instance_id);
            let is_over = !live.contains(&status.session_id) && self.hearing.knew(attempt, status.session_id);
            if is_ours && is_over && is_there(status) {
                let scope = FlushScope::Session(status.session_id);
                self.hearing.owe("obol:session-ended", scope, "the service does not know it", agent.clone());
            }
        }
    }

    /// Has the service told that an operator flushed the sidecar, once for each flush.
    pub(super) fn tell_of_flush(&mut self, hold: Option<&HoldStatus>) {
        let word = hold.and_then(|hold| {
            let since = hold.since.unix_seconds();
            let scope = hold.scope.clone();
            let untold = !self.authenticator.has_told_flush(since);
            untold.then(|| Word::Flushed { since, scope, reason: hold.reason.clone() })
        });
        let word = word.filter(|_| self.authenticator.identity().agent_id().is_some());
        self.hearing.between.word.send_if_modified(|known| core::mem::replace(known, word.clone()) != word);
    }
}
