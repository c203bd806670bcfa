//! What the service writes into its audit log. Whatever is done needs a place in it first; refusals have lines of their own
//! as far as the log's allowance goes.

use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event, Party, Reservation};
use obol_handshake::IdentityPublic;
use obol_secret::text::plain;
use obol_session::SessionId;

use super::alarms::Stolen;
use crate::directory::{
    Agent, Answer, AskedCall, Attested, CallApproval, Ended, HeardSet, Human, Opened, Registered,
    Registration, Replica, TakenSet, Unavailable,
};
use crate::id::AgentId;
use crate::refused::Refused;
use crate::remote::{AskedLogin, LiveLogin};

/// Writes lines, where there is a log.
#[derive(Debug)]
pub(super) struct Auditor {
    log: Option<Arc<AuditLog>>,
}

/// A place for one line, and the log for more about the same.
#[must_use]
pub(super) struct Reserved<'a> {
    log: Option<&'a AuditLog>,
    place: Option<Reservation<'a>>,
}

impl Auditor {
    pub(super) fn new(log: Option<Arc<AuditLog>>) -> Self {
        Self { log }
    }

    pub(super) fn log(&self) -> Option<&AuditLog> {
        self.log.as_deref()
    }

    pub(super) fn health(&self) -> Result<(), String> {
        let log = self.log.as_ref();
        log.map_or(Ok(()), |log| log.health().map_err(|suspended| suspended.to_string()))
    }

    /// Keeps a place for a line about what is going to be done; without one it must not be.
    pub(super) fn reserve(&self) -> Answer<Reserved<'_>> {
        let log = self.log.as_deref();
        let place = log.map(AuditLog::reserve).transpose().map_err(Unavailable::new)?;
        Ok(Reserved { log, place })
    }

    /// Writes what the policy that is only looked at would change of an agent's session.
    pub(super) fn would_change(&self, agent: &AgentId, change: &str) {
        tracing::info!(%agent, change, "the observed policy would decide otherwise; nothing was changed");
        let Some(log) = &self.log else { return };
        log.note(Entry {
            agent: Some(agent.as_str().into()),
            reason: Some(change.into()),
            ..Entry::new(Event::Observed)
        });
    }

    /// Writes that an agent reports that someone else spent one of its tokens.
    pub(super) fn token_stolen(&self, agent: &AgentId, stolen: &Stolen) {
        let Stolen { session, audience, tool, times } = stolen;
        let session_id = session.map(tracing::field::display);
        tracing::error!(
            %agent, tool, audience, session = session_id, times,
            "the agent reports that someone else spent one of its tokens; `obol agent disable` ends what it has"
        );
        let Some(log) = &self.log else { return };
        log.note(Entry {
            agent: Some(agent.as_str().into()),
            session: session.map(SessionId::as_u64),
            audience: Some(audience.as_str().into()),
            tool: Some(tool.as_str().into()),
            count: Some(*times).filter(|times| *times > 1),
            ..Entry::new(Event::TokenStolen)
        });
    }

    /// Writes that a security event of somebody who is listened to was refused: it may be one that should have had an effect.
    pub(super) fn event_refused(&self, issuer: &str, why: &str) {
        tracing::error!(issuer, why, "a security event was refused");
        let Some(log) = &self.log else { return };
        log.refusal(Party::Known, "SECURITY_EVENT", || Entry {
            decision: Some(Decision::Deny),
            client: Some(issuer.into()),
            code: Some("SECURITY_EVENT"),
            reason: Some(why.into()),
            ..Entry::new(Event::SecurityEvent)
        });
    }

    /// Writes that logins of operators elsewhere ended with something else, which has a line of its own.
    pub(super) fn logged_out(&self, why: &str, ended: &[LiveLogin]) {
        for live in ended {
            tracing::warn!(human = %live.human, login = %live.id, why, "an operator's login ended");
            let Some(log) = &self.log else { continue };
            log.note(logout(&live.human.to_string(), why, core::slice::from_ref(live)));
        }
    }

    /// Writes that somebody who is let in from elsewhere may not do what they asked for.
    pub(super) fn may_not_operate(&self, live: &LiveLogin, verb: &str, refused: &Refused) {
        tracing::warn!(human = %live.human, login = %live.id, verb, code = refused.code(), "an operator was refused");
        let Some(log) = &self.log else { return };
        log.refusal(Party::Known, refused.code(), || Entry {
            decision: Some(Decision::Deny),
            client: Some(live.human.to_string().into()),
            scope: Some(verb.into()),
            reason: Some(live.id.as_str().into()),
            code: Some(refused.code()),
            ..Entry::new(Event::Operate)
        });
    }

    /// Writes, or counts, that somebody who proved this key was refused.
    pub(super) fn refused(&self, identity: &IdentityPublic, refused: &Refused) {
        tracing::debug!(code = refused.code(), subject = identity.subject(), "refused");
        let Some(log) = &self.log else { return };
        let party = match refused {
            Refused::Suspended
            | Refused::Revoked
            | Refused::ApprovalExpired
            | Refused::NoGrants
            | Refused::SuiteRequired { .. }
            | Refused::SekProof
            | Refused::AssertionUsed => Party::Known,
            _ => Party::Stranger,
        };
        log.refusal(party, refused.code(), || Entry {
            decision: Some(Decision::Deny),
            scope: Some(identity.subject().into()),
            code: Some(refused.code()),
            ..Entry::new(Event::Denial)
        });
    }
}

fn allowed(event: Event) -> Entry {
    Entry { decision: Some(Decision::Allow), ..Entry::new(event) }
}

fn logout(by: &str, why: &str, ended: &[LiveLogin]) -> Entry {
    let names: Vec<String> =
        ended.iter().map(|live| format!("{} of {}", live.id, live.human)).take(MAX_LOGINS).collect();
    Entry {
        client: Some(by.into()),
        scope: Some(plain(&names.join(", ")).as_ref().into()),
        reason: Some(why.into()),
        count: Some(ended.len() as u64).filter(|ended| *ended > 1),
        ..allowed(Event::OperatorLogout)
    }
}

/// The most logins that a line names.
const MAX_LOGINS: usize = 8;
/// The longest list of calls in a line, in characters.
const MAX_CALLS_CHARS: usize = 512;

/// A request, and what it is about.
fn calls_of(approval: &CallApproval) -> String {
    let call = |call: &AskedCall| {
        let (scope, times) = (&call.scope, call.uses.len());
        format!(" {times}x {} at {} {} {}", scope.tool, scope.aud, scope.action.join(","), scope.resource)
    };
    let calls: String = approval.calls.iter().map(call).collect();
    let calls: String = plain(&calls).chars().take(MAX_CALLS_CHARS).collect();
    format!("{}{calls}", approval.id)
}

/// What is said of an agent for which another answers now.
fn changed_hands(agent: &Agent, before: Option<&Human>) -> Option<String> {
    let before = before.filter(|before| **before != agent.owner)?;
    Some(format!("until now of {before}; what it had open has ended"))
}

impl Reserved<'_> {
    fn put(self, entry: Entry) {
        if let Some(place) = self.place {
            place.put(entry);
        }
    }

    pub(super) fn opened(self, name: &str, opened: &Opened) {
        let session = &opened.session;
        tracing::info!(agent = %session.agent, name, session = %session.id, suite = session.suite, "a session was opened");
        if opened.clone_suspected {
            tracing::error!(
                agent = %session.agent,
                name,
                "a copy of this agent's key is suspected, or its disk was put back; `obol agent disable` stops both"
            );
            if let Some(log) = self.log {
                let agent = Some(session.agent.as_str().into());
                log.note(Entry { agent, ..Entry::new(Event::CloneSuspected) });
            }
        }
        if let Some(log) = self.log {
            log.introduce(session.id.as_u64(), session.agent.as_str());
        }
        self.put(Entry {
            agent: Some(session.agent.as_str().into()),
            session: Some(session.id.as_u64()),
            scope: Some(format!("{} at {}", session.tools.join(" "), session.audiences.join(" ")).into()),
            expires_at: Some(session.expires_at),
            epoch: Some(session.policy_epoch),
            sessions_ended: Some(opened.superseded.len() as u64).filter(|ended| *ended > 0),
            ..allowed(Event::SessionOpen)
        });
    }

    pub(super) fn registered(
        self,
        (identity, name, source): (&IdentityPublic, &str, &str),
        attested: Option<&Attested>,
        before: Option<&Human>,
        done: &Registered,
    ) {
        let how = attested.map_or_else(
            || "by invitation".to_owned(),
            |word| format!("by a word of {} for {}", word.issuer, word.subject),
        );
        let (agent, reason) = match done {
            Registered::Waits(_) => (None, "a human has to approve it".to_owned()),
            Registered::Active(agent) => {
                let moved = changed_hands(agent, before).map(|moved| format!("; {moved}"));
                (Some(agent.id.as_str().into()), how + &moved.unwrap_or_default())
            }
        };
        tracing::info!(name, source, subject = identity.subject(), reason, "an agent registered");
        self.put(Entry {
            client: Some(plain(source).as_ref().into()),
            scope: Some(format!("{name} {}", identity.subject()).into()),
            agent,
            reason: Some(reason.as_str().into()),
            ..allowed(Event::Register)
        });
    }

    /// `before`: who answered for it until now, if somebody did.
    pub(super) fn approved(self, agent: &Agent, before: Option<&Human>) {
        tracing::info!(agent = %agent.id, name = agent.wanted.name, by = %agent.approved_by, "an agent was approved");
        self.put(Entry {
            agent: Some(agent.id.as_str().into()),
            client: Some(agent.approved_by.to_string().into()),
            scope: Some(
                format!("{} {} roles {}", agent.wanted.name, agent.identity.subject(), agent.roles.join(" "))
                    .into(),
            ),
            reason: changed_hands(agent, before).map(Into::into),
            expires_at: Some(agent.expires_at),
            ..allowed(Event::Approve)
        });
    }

    /// A human said yes; the agent has yet to show that it heard so.
    pub(super) fn confirmed(self, registration: &Registration, by: &Human) {
        tracing::info!(name = registration.wanted.name, source = registration.source, %by, "a human said yes in a browser");
        self.put(Entry {
            client: Some(by.to_string().into()),
            scope: Some(format!("{} {}", registration.wanted.name, registration.identity.subject()).into()),
            reason: Some(format!("the yes has to come back by {}", registration.flow.name()).into()),
            ..allowed(Event::Approve)
        });
    }

    pub(super) fn denied(self, registration: &Registration, by: &Human) {
        tracing::warn!(name = registration.wanted.name, source = registration.source, %by, "a registration was denied");
        self.put(Entry {
            decision: Some(Decision::Deny),
            client: Some(by.to_string().into()),
            scope: Some(format!("{} {}", registration.wanted.name, registration.identity.subject()).into()),
            ..Entry::new(Event::Approve)
        });
    }

    pub(super) fn asked(self, agent: &Agent, approval: &CallApproval) {
        tracing::info!(agent = %agent.id, name = agent.wanted.name, approval = %approval.id, "a human's yes is asked for");
        self.put(Entry {
            agent: Some(agent.id.as_str().into()),
            scope: Some(calls_of(approval).into()),
            reason: approval.purpose.as_deref().map(Into::into),
            expires_at: Some(approval.expires_at),
            ..allowed(Event::ApprovalAsked)
        });
    }

    pub(super) fn decided(self, agent: &Agent, approval: &CallApproval, by: &Human, yes: bool) {
        tracing::info!(agent = %agent.id, name = agent.wanted.name, approval = %approval.id, %by, yes, "a human decided about calls");
        self.put(Entry {
            decision: Some(if yes { Decision::Allow } else { Decision::Deny }),
            agent: Some(agent.id.as_str().into()),
            client: Some(by.to_string().into()),
            scope: Some(calls_of(approval).into()),
            ..Entry::new(Event::ApprovalGiven)
        });
    }

    /// Somebody may operate from elsewhere.
    pub(super) fn logged_in(self, live: &LiveLogin) {
        let said = format!("{} from {}, {}@{}", live.id, live.source, live.said.user, live.said.host);
        tracing::warn!(human = %live.human, login = said, until = live.until, "an operator logged in from elsewhere");
        self.put(Entry {
            client: Some(live.human.to_string().into()),
            scope: Some(plain(&said).as_ref().into()),
            expires_at: Some(live.until),
            ..allowed(Event::OperatorLogin)
        });
    }

    /// A human said no to it.
    pub(super) fn login_denied(self, asked: &AskedLogin, by: &Human, is_foreign: bool) {
        let said = format!("{} from {}, {}@{}", asked.id, asked.source, asked.said.user, asked.said.host);
        if is_foreign {
            tracing::error!(%by, login = said, "somebody was asked to let in an operator that they did not start");
        } else {
            tracing::warn!(%by, login = said, "an operator's login was denied");
        }
        self.put(Entry {
            decision: Some(Decision::Deny),
            client: Some(by.to_string().into()),
            scope: Some(plain(&said).as_ref().into()),
            reason: Some(if is_foreign { "the human did not start it" } else { "a human said no" }.into()),
            ..Entry::new(Event::OperatorLogin)
        });
    }

    /// Logins of operators elsewhere ended.
    pub(super) fn logged_out(self, by: &str, why: &str, ended: &[LiveLogin]) {
        tracing::warn!(by, why, logins = ended.len(), "an operator's login ended");
        self.put(logout(by, why, ended));
    }

    /// An operator elsewhere does what this verb stands for.
    pub(super) fn operated(self, live: &LiveLogin, verb: &str) {
        tracing::info!(human = %live.human, login = %live.id, verb, "an operator of another machine asks");
        self.put(Entry {
            client: Some(live.human.to_string().into()),
            scope: Some(verb.into()),
            reason: Some(live.id.as_str().into()),
            ..allowed(Event::Operate)
        });
    }

    pub(super) fn ended(self, scope: &str, reason: &str, by: &str, ended: &Ended) {
        tracing::warn!(scope, reason, by, sessions = ended.sessions.len(), "ended");
        self.put(Entry {
            agent: ended.agents.first().map(|agent| agent.as_str().into()),
            client: Some(by.into()),
            scope: Some(scope.into()),
            reason: Some(reason.into()),
            sessions_ended: Some(ended.sessions.len() as u64),
            session: ended.sessions.first().filter(|_| ended.sessions.len() == 1).map(|id| id.as_u64()),
            ..allowed(Event::Disable)
        });
    }

    /// A security event, whether or not it had an effect.
    pub(super) fn heard(self, set: &HeardSet, events: &str, about: &str, taken: &TakenSet) {
        let issuer = set.issuer.as_str();
        let (what, ended) = match taken {
            TakenSet::Again => ("heard before: nothing was done again", None),
            TakenSet::Unknown => ("nobody whom it is about has agents here", None),
            TakenSet::Done(ended) if ended.agents.is_empty() && ended.sessions.is_empty() => {
                ("nothing to do", None)
            }
            TakenSet::Done(ended) => ("carried out", Some(ended)),
        };
        let sessions = ended.map(|ended| ended.sessions.len() as u64);
        match ended {
            Some(_) => tracing::warn!(issuer, events, about, sessions, what, "a security event was heard"),
            None => tracing::info!(issuer, events, about, what, "a security event was heard"),
        }
        self.put(Entry {
            agent: ended.and_then(|ended| ended.agents.first()).map(|agent| agent.as_str().into()),
            client: Some(plain(issuer).as_ref().into()),
            token_id: Some(set.jti.as_str().into()),
            scope: Some(format!("{}: {}", plain(events), plain(about)).into()),
            reason: Some(what.into()),
            sessions_ended: sessions,
            count: ended.map(|ended| ended.agents.len() as u64).filter(|agents| *agents > 1),
            ..allowed(Event::SecurityEvent)
        });
    }

    pub(super) fn enabled(self, scope: &str, by: &Human) {
        tracing::warn!(scope, %by, "enabled");
        self.put(Entry {
            client: Some(by.to_string().into()),
            scope: Some(scope.into()),
            ..allowed(Event::Enable)
        });
    }

    pub(super) fn invited(self, scope: &str, by: &Human, expires_at: u64) {
        tracing::info!(scope, %by, "an invitation was made");
        self.put(Entry {
            client: Some(by.to_string().into()),
            scope: Some(scope.into()),
            expires_at: Some(expires_at),
            ..allowed(Event::Invite)
        });
    }

    pub(super) fn rotated(self, agent: &str, proven: bool) {
        tracing::info!(agent, proven, "an identity key is being replaced");
        let reason = if proven { "the new key is in use" } else { "the old key named a new one" };
        self.put(Entry {
            agent: Some(agent.into()),
            reason: Some(reason.into()),
            ..allowed(Event::KeyRotate)
        });
    }

    pub(super) fn joined(self, replica: &Replica) {
        tracing::info!(replica = %replica.id, audience = replica.audience, "a resource server joined");
        self.put(Entry {
            audience: Some(replica.audience.as_str().into()),
            scope: Some(replica.id.as_str().into()),
            ..allowed(Event::Join)
        });
    }

    pub(super) fn removed(self, replica: &Replica, by: &Human) {
        tracing::warn!(replica = %replica.id, audience = replica.audience, %by, "a copy of a resource server was removed");
        self.put(Entry {
            client: Some(by.to_string().into()),
            audience: Some(replica.audience.as_str().into()),
            scope: Some(format!("copy {}", replica.id).into()),
            ..allowed(Event::Disable)
        });
    }

    /// `digest` is `None` where nothing is looked at any more.
    pub(super) fn observed(self, digest: Option<&str>, by: &Human) {
        tracing::warn!(digest, %by, "which policy is looked at has changed; none of it decides");
        self.put(Entry {
            client: Some(by.to_string().into()),
            scope: Some(digest.unwrap_or("none").into()),
            reason: Some("only looked at".into()),
            ..allowed(Event::Policy)
        });
    }

    pub(super) fn policy(self, epoch: u64, digest: &str, by: &Human) {
        tracing::warn!(epoch, digest, %by, "a policy is in force");
        self.put(Entry {
            client: Some(by.to_string().into()),
            scope: Some(digest.into()),
            epoch: Some(epoch),
            ..allowed(Event::Policy)
        });
    }
}
