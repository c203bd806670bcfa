//! What the daemon writes into its audit log.
//!
//! Hand-outs and denials are written by whoever answers the request, operators' deeds likewise; denials within the log's
//! allowance, since an agent can bring about as many as it likes. Renewals and the ends of sessions happen inside the
//! queue, where nobody asks; [`Watch`] looks at the queue every now and then and writes what has changed.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use obol_audit::{AuditLog, Decision, Entry, Event, Party, Reservation, Suspended};
use obol_ipc::approvals::MintApprovedParams;
use obol_ipc::control::{FlushResult, ProvisionResult, ResumeResult};
use obol_ipc::message::{DequeueTokenParams, Empty};
use obol_ipc::names::ToolName;
use obol_ipc::refusal::Refusal;
use obol_probe::metrics::Audit;
use obol_queue::{DequeueError, FlushScope, Queue, SessionState, Token};
use tokio::time::{MissedTickBehavior, interval};

use crate::connection::Requester;

/// How often sessions are looked at. The log says within a second that one has ended.
const LOOK: Duration = Duration::from_millis(250);
/// After how many looks the numbers of all tools are read as well.
const LOOKS_FOR_RENEWALS: u32 = 4;
/// When a caller should ask again where the disk cannot keep up.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Writes lines.
#[derive(Clone, Debug)]
pub(crate) struct Auditor(Arc<AuditLog>);

impl Auditor {
    pub(crate) fn new(log: Arc<AuditLog>) -> Self {
        Self(log)
    }

    /// A place for what is about to happen; without one it must not.
    pub(crate) fn reserve(&self) -> Result<Reservation<'_>, Suspended> {
        self.0.reserve()
    }

    pub(crate) fn health(&self) -> Result<(), Refusal> {
        self.0.health().map_err(|suspended| refuse(&suspended))
    }

    /// How the log is.
    pub(crate) fn seen(&self) -> Audit {
        let totals = self.0.totals();
        Audit { is_suspended: self.0.health().is_err(), refused: totals.refused, dropped: totals.dropped }
    }

    /// Writes that a token was handed out, or that somebody was denied one. An empty queue is not a denial, nor is a
    /// request that makes no sense.
    pub(crate) fn drawn(
        &self,
        place: Reservation<'_>,
        params: &DequeueTokenParams,
        requester: &Requester,
        outcome: Result<&Token, &DequeueError>,
    ) {
        let about = |event| Entry {
            request: Some(requester.tag),
            client: Some(Arc::clone(&requester.client)),
            tool: Some(params.tool.as_str().into()),
            audience: params.audience.as_ref().map(|audience| audience.as_str().into()),
            ..Entry::new(event)
        };
        match outcome {
            Ok(token) => place.put(Entry {
                decision: Some(Decision::Allow),
                session: Some(token.session_id().as_u64()),
                jti: token.jti().map(|jti| *jti.as_bytes()),
                expires_at: Some(token.expires_at()),
                ..about(Event::HandOut)
            }),
            Err(error) => {
                drop(place);
                let Some(code) = denial(error) else { return };
                self.0.refusal(Party::Known, code, || Entry {
                    decision: Some(Decision::Deny),
                    code: Some(code),
                    ..about(Event::Denial)
                });
            }
        }
    }

    pub(crate) fn provisioned(
        &self,
        queue: &Queue,
        requester: &Requester,
        outcome: &Result<ProvisionResult, Refusal>,
    ) {
        let mut entry = by(Event::SessionStart, requester, outcome);
        if let Ok(done) = outcome {
            let id = done.session_id.as_u64();
            entry.session = Some(id);
            entry.agent = agent_of(queue, id);
        }
        self.0.note(entry);
    }

    pub(crate) fn flushed(
        &self,
        event: Event,
        requester: &Requester,
        scope: &FlushScope,
        reason: &str,
        outcome: &Result<FlushResult, Refusal>,
    ) {
        let done = outcome.as_ref().ok();
        self.0.note(Entry {
            scope: Some(scope.to_string().into()),
            reason: Some(reason.into()),
            tokens: done.map(|done| done.tokens_discarded),
            sessions_ended: done.map(|done| done.sessions_ended),
            ..by(event, requester, outcome)
        });
    }

    pub(crate) fn resumed(&self, requester: &Requester, outcome: &Result<ResumeResult, Refusal>) {
        let hold = outcome.as_ref().ok().and_then(|done| done.hold.as_ref());
        let scope = hold.map(|hold| hold.scope.as_str().into());
        self.0.note(Entry { scope, ..by(Event::Resume, requester, outcome) });
    }

    /// A change of the operator's own list of denials, which then has this many.
    pub(crate) fn denials<T>(
        &self,
        requester: &Requester,
        tool: &ToolName,
        denied: usize,
        outcome: &Result<T, Refusal>,
    ) {
        self.0.note(Entry {
            tool: Some(tool.as_str().into()),
            scope: Some(format!("{denied} tools denied by the operator").into()),
            ..by(Event::Policy, requester, outcome)
        });
    }

    /// A human said yes to a call, whose tokens can be drawn now.
    pub(crate) fn approved(
        &self,
        requester: &Requester,
        call: &MintApprovedParams,
        outcome: &Result<Empty, Refusal>,
    ) {
        self.0.note(Entry {
            tool: Some(call.tool.as_str().into()),
            audience: Some(call.audience.as_str().into()),
            scope: Some(call.approval_id.as_str().into()),
            tokens: Some(call.uses.len() as u64),
            expires_at: Some(call.expires_at),
            ..by(Event::ApprovalGiven, requester, outcome)
        });
    }

    pub(crate) fn policy(
        &self,
        requester: &Requester,
        epoch: u64,
        denied: usize,
        outcome: &Result<Empty, Refusal>,
    ) {
        let scope = Some(format!("{denied} tools denied").into());
        self.0.note(Entry { epoch: Some(epoch), scope, ..by(Event::Policy, requester, outcome) });
    }
}

fn agent_of(queue: &Queue, session: u64) -> Option<Box<str>> {
    let sessions = queue.sessions();
    sessions
        .into_iter()
        .find(|known| known.session_id.as_u64() == session)
        .map(|known| known.agent_instance_id.into())
}

/// What an operator asked for.
fn by<T>(event: Event, requester: &Requester, outcome: &Result<T, Refusal>) -> Entry {
    Entry {
        decision: Some(if outcome.is_ok() { Decision::Allow } else { Decision::Deny }),
        request: Some(requester.tag),
        client: Some(Arc::clone(&requester.client)),
        reason: outcome.as_ref().err().map(|refusal| refusal.message().into()),
        ..Entry::new(event)
    }
}

/// The refusal of what could not be audited.
pub(crate) fn refuse(suspended: &Suspended) -> Refusal {
    match suspended {
        Suspended::Full => Refusal::overloaded(RETRY_AFTER),
        failing => Refusal::unavailable(failing),
    }
}

/// The code of a refusal that lies with who asks.
pub(crate) fn denial(error: &DequeueError) -> Option<&'static str> {
    match error {
        DequeueError::PolicyDenied => Some("POLICY_DENY"),
        DequeueError::ApprovalRequired | DequeueError::NotApproved => Some("APPROVAL_REQUIRED"),
        DequeueError::NoSession | DequeueError::SessionEnded(_) | DequeueError::Lapsed { .. } => {
            Some("NO_SESSION")
        }
        DequeueError::SessionFlushed | DequeueError::Held => Some("SESSION_FLUSHED"),
        _ => None,
    }
}

/// A tool for an audience in a session.
type Row = (u64, Box<str>, Box<str>);

/// Notices what happens inside the queue.
pub(crate) struct Watch {
    audit: Auditor,
    queue: Arc<Queue>,
    minted: HashMap<Row, u64>,
    active: HashSet<u64>,
}

impl Watch {
    pub(crate) fn new(audit: Auditor, queue: Arc<Queue>) -> Self {
        let mut watch = Self { audit, queue, minted: HashMap::new(), active: HashSet::new() };
        watch.note_sessions();
        watch
    }

    /// Looks again and again.
    pub(crate) async fn run(&mut self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in (0..LOOKS_FOR_RENEWALS).cycle() {
            ticks.tick().await;
            self.note_sessions();
            if look == 0 {
                self.note_renewals();
            }
        }
    }

    /// Writes what has changed since the last time.
    pub(crate) fn look(&mut self) {
        self.note_renewals();
        self.note_sessions();
    }

    fn note_renewals(&mut self) {
        let mut seen = HashMap::with_capacity(self.minted.len());
        for tool in self.queue.tools() {
            let place =
                (tool.session_id.as_u64(), tool.tool.into_boxed_str(), tool.audience.into_boxed_str());
            let before = self.minted.get(&place).copied().unwrap_or(0);
            if tool.minted > before {
                self.audit.0.note(Entry {
                    session: Some(place.0),
                    tool: Some(place.1.clone()),
                    audience: Some(place.2.clone()),
                    tokens: Some(tool.minted - before),
                    ..Entry::new(Event::Renewal)
                });
            }
            seen.insert(place, tool.minted);
        }
        self.minted = seen;
    }

    fn note_sessions(&mut self) {
        let mut active = HashSet::new();
        let mut flushed = HashSet::new();
        for session in self.queue.sessions() {
            let id = session.session_id.as_u64();
            match session.state {
                SessionState::Active | SessionState::Held | SessionState::Lapsed => {
                    active.insert(id);
                    if !self.active.contains(&id) {
                        self.audit.0.introduce(id, &session.agent_instance_id);
                    }
                }
                SessionState::Flushed => _ = flushed.insert(id),
                SessionState::Expired => {}
            }
        }
        for id in self.active.difference(&active) {
            let why = if flushed.contains(id) { "flushed" } else { "its time is over" };
            self.audit.0.note(Entry {
                session: Some(*id),
                reason: Some(why.into()),
                ..Entry::new(Event::SessionEnd)
            });
        }
        self.active = active;
    }
}
