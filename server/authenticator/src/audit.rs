//! What the authenticator writes into its audit log, where it has one: who was registered and what became of that, which sessions
//! were opened and why each ended, and what the operator and the service decided.
//!
//! Nobody is registered and no session is opened without a place in it first. What ends something is carried out all the same.

use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event, Party, Reservation, Suspended};
use obol_probe::metrics::Audit;
use obol_session::{AgentHalf, SessionId};

/// Writes lines, where there is a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Auditor(Option<Arc<AuditLog>>);

/// A place for one line about what is about to be done.
#[must_use]
pub(crate) struct Reserved<'a>(Option<Reservation<'a>>);

impl Auditor {
    pub(crate) fn new(log: Option<Arc<AuditLog>>) -> Self {
        Self(log)
    }

    pub(crate) fn health(&self) -> Result<(), Suspended> {
        self.0.as_ref().map_or(Ok(()), |log| log.health())
    }

    /// How the log is, where there is one.
    pub(crate) fn seen(&self) -> Option<Audit> {
        self.0.as_ref().map(|log| {
            let totals = log.totals();
            Audit { is_suspended: log.health().is_err(), refused: totals.refused, dropped: totals.dropped }
        })
    }

    /// Keeps a place for what is about to be done; without one it must not be.
    pub(crate) fn reserve(&self) -> Result<Reserved<'_>, Suspended> {
        self.0.as_deref().map(AuditLog::reserve).transpose().map(Reserved)
    }

    /// Whose session it is: the line about its end names the agent too.
    fn introduce(&self, session: SessionId, agent: &str) {
        if let Some(log) = &self.0 {
            log.introduce(session.as_u64(), agent);
        }
    }

    fn note(&self, entry: Entry) {
        if let Some(log) = &self.0 {
            log.note(entry);
        }
    }

    /// What a human said to a registration, or that nobody said anything in time.
    pub(crate) fn approved(&self, agent: &str, expires_at: u64) {
        self.note(Entry {
            agent: Some(agent.into()),
            expires_at: Some(expires_at),
            ..allowed(Event::Approve)
        });
    }

    /// No human let the agent in.
    pub(crate) fn not_approved(&self, subject: &str, why: &str) {
        self.note(Entry {
            decision: Some(Decision::Deny),
            scope: Some(subject.into()),
            reason: Some(why.into()),
            ..Entry::new(Event::Approve)
        });
    }

    /// The sidecar had a session already: from before this process, or one whose answer was lost.
    pub(crate) fn adopted(&self, session: SessionId, agent: &str, expires_at: u64) {
        self.introduce(session, agent);
        self.note(Entry {
            session: Some(session.as_u64()),
            agent: Some(agent.into()),
            expires_at: Some(expires_at),
            reason: Some("the sidecar had it already".into()),
            ..allowed(Event::SessionOpen)
        });
    }

    pub(crate) fn session_ended(&self, session: SessionId, why: &str) {
        self.note(Entry {
            session: Some(session.as_u64()),
            reason: Some(why.into()),
            ..Entry::new(Event::SessionEnd)
        });
    }

    /// The service said no to somebody who asked for a session.
    pub(crate) fn refused(&self, code: &'static str) {
        let Some(log) = &self.0 else { return };
        let line = || Entry { decision: Some(Decision::Deny), code: Some(code), ..Entry::new(Event::Denial) };
        log.refusal(Party::Known, code, line);
    }

    /// The service ended the agent.
    pub(crate) fn agent_ended(&self, agent: Option<&str>, code: &str, why: &str) {
        self.note(Entry {
            agent: agent.map(Into::into),
            scope: Some(code.into()),
            reason: Some(why.into()),
            ..Entry::new(Event::Disable)
        });
    }

    /// The service lets the agent in again.
    pub(crate) fn agent_let_in(&self, agent: Option<&str>) {
        self.note(Entry { agent: agent.map(Into::into), ..Entry::new(Event::Enable) });
    }

    /// No session is opened from here on.
    pub(crate) fn held(&self, scope: &str, why: &str) {
        self.note(Entry { scope: Some(scope.into()), reason: Some(why.into()), ..Entry::new(Event::Hold) });
    }

    /// Another identity key is in force.
    pub(crate) fn key_rotated(&self, agent: Option<&str>, subject: &str) {
        self.note(Entry {
            agent: agent.map(Into::into),
            scope: Some(subject.into()),
            reason: Some("the new key is in use".into()),
            ..allowed(Event::KeyRotate)
        });
    }

    pub(crate) fn resumed(&self) {
        self.note(Entry::new(Event::Resume));
    }

    /// The service knows of the flush.
    pub(crate) fn flush_told(&self, scope: &str, why: &str) {
        self.note(Entry {
            scope: Some(scope.into()),
            reason: Some(why.into()),
            ..Entry::new(Event::FlushTold)
        });
    }
}

fn allowed(event: Event) -> Entry {
    Entry { decision: Some(Decision::Allow), ..Entry::new(event) }
}

impl Reserved<'_> {
    fn put(self, entry: Entry) {
        if let Some(place) = self.0 {
            place.put(entry);
        }
    }

    /// Somebody asked for the agent to be registered: a human has to decide, unless an invitation made it this agent.
    pub(crate) fn registered(self, name: &str, subject: &str, agent: Option<&str>) {
        let reason = if agent.is_some() { "by invitation" } else { "a human has to approve it" };
        self.put(Entry {
            agent: agent.map(Into::into),
            scope: Some(format!("{name} {subject}").into()),
            reason: Some(reason.into()),
            ..allowed(Event::Register)
        });
    }

    pub(crate) fn opened(self, auditor: &Auditor, half: &AgentHalf) {
        auditor.introduce(half.session_id, &half.agent.agent_instance_id);
        let mut granted: Vec<_> =
            half.grants.iter().map(|grant| format!("{} at {}", grant.tool, grant.aud)).collect();
        granted.sort();
        self.put(Entry {
            session: Some(half.session_id.as_u64()),
            agent: Some(half.agent.agent_instance_id.as_str().into()),
            scope: Some(format!("suite {}: {}", half.suite.number(), granted.join(", ")).into()),
            expires_at: Some(half.expires_at),
            epoch: Some(half.policy_epoch),
            ..allowed(Event::SessionOpen)
        });
    }
}
