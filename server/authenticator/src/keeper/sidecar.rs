//! What the sidecar holds, and what follows from it: whether an operator flushed it, and which session of ours is there.

use obol_ipc::auth::OpenSession;
use obol_ipc::control::{SessionState, SessionStatus};
use obol_ipc::time::UtcTime;
use obol_session::clock::Reading;

use super::{Current, Keeper, chance};
use crate::schedule::Life;
use crate::tqs::Seen;

impl Keeper {
    /// What the sidecar holds: whether an operator flushed it, and whether our session is still there.
    pub(super) async fn look_at_sidecar(&mut self) {
        // First, since it may have been started a moment ago.
        self.tell_of_contact().await;
        let mut looked = self.tqs.look().await;
        let has_lapsed = |seen: &Seen| seen.sessions.iter().any(|one| one.state == SessionState::Lapsed);
        if looked.as_ref().is_ok_and(has_lapsed) {
            // One that was started a moment ago knows nothing of what its predecessor was told.
            self.tqs.forget_what_it_was_told();
            self.tell_of_contact().await;
            looked = self.tqs.look().await;
        }
        match looked {
            Ok(seen) => {
                if !core::mem::replace(&mut self.sees_sidecar, true) {
                    tracing::info!("the sidecar answers");
                }
                self.take_in(&seen);
            }
            Err(error) => {
                if core::mem::take(&mut self.sees_sidecar) || !self.knows_sidecar {
                    tracing::warn!(%error, "sessions wait until the sidecar answers");
                    self.knows_sidecar = true;
                }
            }
        }
    }

    fn take_in(&mut self, seen: &Seen) {
        let was_held = core::mem::replace(&mut self.is_held, seen.hold.is_some());
        match (&seen.hold, was_held) {
            (Some(hold), false) => {
                tracing::warn!(
                    scope = hold.scope,
                    reason = hold.reason,
                    "an operator flushed the sidecar; no session is opened"
                );
                self.auditor.held(&hold.scope, &hold.reason);
            }
            (None, true) => {
                tracing::info!("the sidecar takes sessions again");
                self.auditor.resumed();
                self.back_off.reset();
            }
            _ => {}
        }
        self.shared.known.lock().hold.clone_from(&seen.hold);
        self.tell_of_flush(seen.hold.as_ref());
        self.compare(seen);
        self.note_ends(seen);
        let now = self.now();
        let is_ours = |status: &&SessionStatus| {
            let agent = self.authenticator.identity().agent_id();
            is_there(status) && agent == Some(status.agent_instance_id.as_str())
        };
        let youngest = seen.sessions.iter().filter(is_ours).max_by_key(|status| status.session_id.as_u64());
        // What the service ended is not taken up again.
        let youngest = youngest.filter(|_| !self.shared.known.lock().is_stopped);
        match (&mut self.current, youngest) {
            (Some(current), found) => {
                let id = current.open.session_id;
                let there = seen.sessions.iter().find(|status| status.session_id == id && is_there(status));
                current.is_lapsed = there.is_some_and(|status| status.state == SessionState::Lapsed);
                if there.is_none() || current.life.is_over(now) {
                    tracing::info!(session = %id, "the session is over at the sidecar");
                    self.current = None;
                } else if let Some(found) = found.filter(|found| found.session_id.as_u64() > id.as_u64()) {
                    // Its answer was lost and it arrived all the same.
                    self.adopt(found, now);
                }
            }
            (None, Some(found)) => self.adopt(found, now),
            (None, None) => {}
        }
        self.knows_sidecar = true;
    }

    /// Writes down which sessions are over at the sidecar.
    fn note_ends(&mut self, seen: &Seen) {
        let auditor = &self.auditor;
        self.unended.retain(|id| {
            let why =
                match seen.sessions.iter().find(|status| status.session_id == *id).map(|found| found.state) {
                    Some(SessionState::Active | SessionState::Held | SessionState::Lapsed) => return true,
                    Some(SessionState::Flushed) => "flushed",
                    Some(_) => "its time is over",
                    None => "the sidecar does not have it any more",
                };
            auditor.session_ended(*id, why);
            false
        });
    }

    /// Takes over a session that the sidecar has: from before a restart, or one whose answer was lost. The next one is opened
    /// soon: only the service knows whether it still stands.
    fn adopt(&mut self, found: &SessionStatus, now: Reading) {
        let life = Life::adopted(now, found.expires_at.unix_seconds(), chance());
        if life.is_over(now) {
            return;
        }
        tracing::info!(session = %found.session_id, expires_at = %found.expires_at, "a session is there already");
        if self.unended.insert(found.session_id) {
            let (agent, end) = (found.agent_instance_id.as_str(), found.expires_at.unix_seconds());
            self.auditor.adopted(found.session_id, agent, end);
        }
        let open = OpenSession {
            session_id: found.session_id,
            agent_instance_id: found.agent_instance_id.clone(),
            algorithm_suite: found.algorithm_suite,
            expires_at: found.expires_at,
            approval_expires_at: self.approval_expires_at.map(UtcTime::from_unix_seconds),
        };
        let is_lapsed = found.state == SessionState::Lapsed;
        self.put(Current { open, life, is_adopted: true, is_lapsed }, Vec::new());
    }
}

/// Whether the sidecar has a session from which tokens are drawn, or will be once the service is heard.
pub(super) fn is_there(status: &SessionStatus) -> bool {
    matches!(status.state, SessionState::Active | SessionState::Lapsed)
}
