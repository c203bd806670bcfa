//! What the operator of a resource server may ask for on `rs-control.sock`.

use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event};
use obol_ipc::control::{HealthResult, MAX_NAMED_SESSIONS, StatusParams};
use obol_ipc::names::{AgentInstanceId, ValueError};
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_ipc::rs_control::{
    AuthorityStanding, Kept, ReloadResult, RevokeParams, RevokeResult, RevokeScope, RsControlProtocol,
    RsControlReply, RsControlRequest, RsSessionState, RsSessionStatus, RsStatusResult,
};
use obol_ipc::time::UtcTime;
use obol_resource::Gate;
use obol_resource::provision::Following;
use obol_sidecar::{Answer, Answerer, Requester};
use obol_verify::{Clock, Session, SessionStore, SystemClock};
use tracing::Span;

use super::reload::Reloader;

/// Space for sessions in one answer: half a frame. The other half is for characters that JSON writes as two.
const PAGE_BYTES: usize = obol_ipc::frame::MAX_BODY_BYTES / 2;
/// What a session takes besides its agent's name, as JSON, at most.
const ITEM_BYTES: usize = 160;

/// Answers the operator.
pub(crate) struct Control {
    pub(crate) sessions: Arc<dyn SessionStore>,
    /// Where those are kept.
    pub(super) kept: Kept,
    pub(super) reloader: Arc<Reloader>,
    pub(super) gate: Gate,
    pub(super) clock: Arc<SystemClock>,
    pub(super) audit: Option<Arc<AuditLog>>,
    /// How it stands with the service that it follows, if it follows one.
    pub(super) following: Option<Following>,
}

impl Answerer<RsControlProtocol> for Control {
    fn answer(self: &Arc<Self>, call: RsControlRequest, requester: &Requester) -> Answer<RsControlProtocol> {
        match call {
            RsControlRequest::Revoke(params) => {
                let requester = requester.clone();
                self.where_it_may_wait(move |control| {
                    let outcome = control.revoke(&params.scope);
                    control.note(&params, &requester, &outcome);
                    outcome.map(RsControlReply::Revoke)
                })
            }
            RsControlRequest::Reload(_) => self.where_it_may_wait(|control| {
                let sessions = control.reloader.read_again().map_err(Refusal::invalid_argument)?;
                Ok(RsControlReply::Reload(ReloadResult { sessions: sessions as u64 }))
            }),
            RsControlRequest::Status(params) => {
                let page = self.page(params).map_err(Refusal::unavailable);
                Answer::Now(page.map(RsControlReply::Status))
            }
            RsControlRequest::Authority(_) => Answer::Now(Ok(RsControlReply::Authority(self.authority()))),
            RsControlRequest::Health(_) => {
                let reason = self.gate.health().err().map(|denial| denial.detail.into_owned());
                Answer::Now(Ok(RsControlReply::Health(HealthResult { ready: reason.is_none(), reason })))
            }
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::info_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Control {
    /// Does what waits for a disk or a network on a thread that may wait.
    fn where_it_may_wait(
        self: &Arc<Self>,
        act: impl FnOnce(&Self) -> Result<RsControlReply, Refusal> + Send + 'static,
    ) -> Answer<RsControlProtocol> {
        let (control, span) = (Arc::clone(self), Span::current());
        Answer::later(async move {
            tokio::task::spawn_blocking(move || span.in_scope(|| act(&control)))
                .await
                .unwrap_or_else(|_| Err(Refusal::unavailable("internal error; see the server's log")))
        })
    }

    /// Revokes what `scope` names. A session that is not here is revoked all the same where revocations are kept, so that
    /// it does not come later.
    fn revoke(&self, scope: &RevokeScope) -> Result<RevokeResult, Refusal> {
        let now = self.clock.now();
        let mut found = self.sessions.list();
        found.retain(|session| matches(session, scope));
        // All at once in memory first: while one waits for the disk the next must not be accepted.
        found.iter().for_each(|session| session.revoke());
        let mut ids: Vec<_> = found.iter().map(|session| session.session_id()).collect();
        let mut failed = None;
        for id in ids.iter().copied() {
            failed = self.sessions.revoke(id, now).err().or(failed);
        }
        if let (&RevokeScope::Session(id), []) = (scope, ids.as_slice()) {
            let was_revoked = self.sessions.was_revoked(id).unwrap_or(false);
            match self.sessions.revoke(id, now) {
                Ok(known) if known || was_revoked => ids.push(id),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(Refusal::new(ErrorCode::Unavailable, error.to_string()));
        }
        let named = ids.iter().take(MAX_NAMED_SESSIONS).copied();
        Ok(RevokeResult { revoked: ids.len() as u64, sessions: named.collect(), kept: self.kept })
    }

    fn note(&self, params: &RevokeParams, requester: &Requester, outcome: &Result<RevokeResult, Refusal>) {
        let (revoked, reason) = (outcome.as_ref().map_or(0, |done| done.revoked), params.reason.as_str());
        let scope = match &params.scope {
            RevokeScope::All => "all".to_owned(),
            RevokeScope::Session(id) => format!("session {id}"),
            RevokeScope::Agent(agent) => format!("agent {agent}"),
        };
        tracing::warn!(%scope, reason, revoked, "revoke");
        let Some(audit) = &self.audit else { return };
        let entry = || Entry {
            request: Some(requester.tag),
            client: Some(Arc::clone(&requester.client)),
            scope: Some(scope.as_str().into()),
            ..Entry::new(Event::Revoke)
        };
        match outcome {
            Ok(done) => audit.note(Entry {
                decision: Some(Decision::Allow),
                reason: Some(reason.into()),
                sessions_ended: Some(done.revoked),
                session: done.sessions.first().filter(|_| done.revoked == 1).map(|id| id.as_u64()),
                ..entry()
            }),
            Err(refusal) => audit.note(Entry {
                decision: Some(Decision::Deny),
                reason: Some(refusal.message().into()),
                ..entry()
            }),
        }
    }

    fn authority(&self) -> AuthorityStanding {
        let Some(following) = &self.following else { return AuthorityStanding::default() };
        let standing = following.standing();
        AuthorityStanding {
            service: Some(following.service().to_owned()),
            follows: standing.follows,
            lease_ends_at: standing.lease_ends.map(UtcTime::from_unix_seconds),
            event: following.cursor().map(|cursor| cursor.seq),
            problem: standing.problem,
        }
    }

    fn page(&self, params: StatusParams) -> Result<RsStatusResult, ValueError> {
        let from = params.from.unwrap_or(0);
        let now = self.clock.now();
        let known = self.sessions.list();
        let (mut sessions, mut bytes, mut next) = (Vec::new(), 0, None);
        for session in known.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            let shown = describe(session, now)?;
            bytes += ITEM_BYTES + shown.agent_instance_id.as_ref().map_or(0, |agent| agent.as_str().len());
            if bytes > PAGE_BYTES {
                next = Some(from + sessions.len() as u64);
                break;
            }
            sessions.push(shown);
        }
        Ok(RsStatusResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            audience: self.gate.verifier().audience().clone(),
            kept: self.kept,
            sessions,
            next,
        })
    }
}

fn matches(session: &Session, scope: &RevokeScope) -> bool {
    match scope {
        RevokeScope::All => true,
        RevokeScope::Session(id) => session.session_id() == *id,
        RevokeScope::Agent(agent) => agent_of(session) == Some(agent.as_str()),
    }
}

fn agent_of(session: &Session) -> Option<&str> {
    session.agent().map(|agent| agent.agent_instance_id.as_str())
}

fn describe(session: &Session, now: u64) -> Result<RsSessionStatus, ValueError> {
    let end = session.window().map(|window| window.end);
    let state = match end {
        _ if !session.is_active() => RsSessionState::Revoked,
        Some(end) if now > end => RsSessionState::Expired,
        _ => RsSessionState::Active,
    };
    Ok(RsSessionStatus {
        session_id: session.session_id(),
        agent_instance_id: agent_of(session).map(AgentInstanceId::new).transpose()?,
        expires_at: end.map(UtcTime::from_unix_seconds),
        state,
    })
}
