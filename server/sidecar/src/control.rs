//! What the operator's methods do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use obol_audit::Event;
use obol_ipc::approvals::MintApprovedParams;
use obol_ipc::control::{
    AllowResult, ControlProtocol, ControlReply, ControlRequest, DeniedTool, DenyResult, FlushResult,
    FlushScope, HealthResult, HoldStatus, LeaseParams, MAX_NAMED_SESSIONS, PolicyParams, PopKeyResult,
    ProvisionPartParams, ProvisionPartResult, ProvisionResult, ResumeResult, SessionState, SessionStatus,
    StatusParams, StatusResult, ToolStatus,
};
use obol_ipc::message::Empty;
use obol_ipc::names::{AgentInstanceId, Audience, ToolName, ValueError};
use obol_ipc::numbers::AlgorithmSuite;
use obol_ipc::refusal::{ErrorCode, Refusal, retry_after_ms};
use obol_ipc::time::UtcTime;
use obol_probe::health::Health as _;
use obol_probe::stop::Stop;
use obol_queue::{AgentHalf, DenyError, Flushed, Hold, ProvisionError, Queue, Unavailable};
use obol_session::PopKey;
use tracing::Span;

use crate::approved;
use crate::audit::Auditor;
use crate::connection::{Answer, Answerer, Requester};
use crate::counters::Counters;
use crate::denials::Denials;
use crate::http::Health;
use crate::parts::{PATIENCE, Parts, Taken};
use crate::pop_keys::PopKeys;

/// Stands for an agent whose name went with its flushed session.
const UNKNOWN_AGENT: &str = "-";

/// Answers the operator's requests.
pub(crate) struct Control {
    pub(crate) queue: Arc<Queue>,
    /// As configured; none where agents and daemon are one user.
    pub(crate) agent_users: Vec<String>,
    pub(crate) started: Instant,
    pub(crate) stop: Stop,
    pub(crate) counters: Arc<Counters>,
    pub(crate) audit: Option<Auditor>,
    pub(crate) denials: Arc<Denials>,
    pub(crate) health: Arc<Health>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) pop_keys: PopKeys,
}

impl Answerer<ControlProtocol> for Control {
    fn answer(self: &Arc<Self>, call: ControlRequest, requester: &Requester) -> Answer<ControlProtocol> {
        match call {
            ControlRequest::Provision(params) => self.provision(requester, move |queue| {
                let outcome = read(params.session.expose().as_bytes())
                    .and_then(|half| provision(queue, half, params.resume));
                (outcome.clone(), outcome.map(ControlReply::Provision))
            }),
            ControlRequest::ProvisionPart(params) => self.provision_part(requester, &params),
            ControlRequest::PopKey(_) => {
                let made = self.pop_keys.make(Instant::now());
                Answer::Now(made.map(|pop_pub| ControlReply::PopKey(PopKeyResult { pop_pub })))
            }
            ControlRequest::Lease(params) => Answer::Now(Ok(self.heard(params))),
            ControlRequest::Flush(params) => {
                let flushed = (queue_scope(params.scope), params.reason.as_str().to_owned());
                self.flush(Event::Flush, requester, flushed, Queue::flush_and_hold, ControlReply::Flush)
            }
            ControlRequest::SecurityEvent(params) => {
                let reason = format!("{}: {}", params.kind, params.reason);
                let flushed = (queue_scope(params.subject), reason);
                // Whether the agent may come back, whoever reported the event decides.
                self.flush(
                    Event::SecurityEvent,
                    requester,
                    flushed,
                    Queue::flush,
                    ControlReply::SecurityEvent,
                )
            }
            ControlRequest::MintApproved(params) => self.mint_approved(requester, &params),
            ControlRequest::Policy(params) => {
                let (audit, requester) = (self.audit.clone(), requester.clone());
                self.on_disk(move |queue| {
                    let (epoch, denied) = (params.epoch, params.denied_tools.len());
                    let outcome = policy(queue, params);
                    if let Some(audit) = audit {
                        audit.policy(&requester, epoch, denied, &outcome);
                    }
                    outcome.map(ControlReply::Policy)
                })
            }
            ControlRequest::Resume(_) => {
                let (audit, requester) = (self.audit.clone(), requester.clone());
                self.on_disk(move |queue| {
                    let outcome = resume(queue);
                    if let Some(audit) = audit {
                        audit.resumed(&requester, &outcome);
                    }
                    outcome.map(ControlReply::Resume)
                })
            }
            ControlRequest::Deny(params) => self.change_denials(requester, params.tool, |queue, tool| {
                deny(queue, tool).map(ControlReply::Deny)
            }),
            ControlRequest::Allow(params) => self.change_denials(requester, params.tool, |queue, tool| {
                allow(queue, tool).map(ControlReply::Allow)
            }),
            ControlRequest::Status(params) => Answer::Now(self.status(params).map(ControlReply::Status)),
            ControlRequest::Health(_) => {
                let reason = self.health.ready().err();
                Answer::Now(Ok(ControlReply::Health(HealthResult { ready: reason.is_none(), reason })))
            }
            ControlRequest::Drain(_) => {
                tracing::info!("the operator asked to drain");
                self.stop.say();
                Answer::Now(Ok(ControlReply::Drain(Empty {})))
            }
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::info_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Control {
    /// Does what waits for the disk on a thread that may wait.
    fn on_disk(
        &self,
        act: impl FnOnce(&Queue) -> Result<ControlReply, Refusal> + Send + 'static,
    ) -> Answer<ControlProtocol> {
        let (queue, span) = (Arc::clone(&self.queue), Span::current());
        Answer::later(async move {
            tokio::task::spawn_blocking(move || span.in_scope(|| act(&queue)))
                .await
                .unwrap_or_else(|_| Err(Refusal::unavailable("internal error; see the daemon's log")))
        })
    }

    /// Notes calls that a human said yes to. Nothing waits for a disk: they are held in memory alone.
    fn mint_approved(&self, requester: &Requester, params: &MintApprovedParams) -> Answer<ControlProtocol> {
        let outcome = approved::note(&self.queue, params);
        if let Some(audit) = &self.audit {
            audit.approved(requester, params, &outcome);
        }
        Answer::Now(outcome.map(ControlReply::MintApproved))
    }

    /// Flushes a scope for a reason, counts it and writes it down.
    fn flush(
        &self,
        event: Event,
        requester: &Requester,
        (scope, reason): (obol_queue::FlushScope, String),
        act: fn(&Queue, &obol_queue::FlushScope, &str) -> Result<Flushed, Unavailable>,
        reply: fn(FlushResult) -> ControlReply,
    ) -> Answer<ControlProtocol> {
        let (audit, requester, counters) =
            (self.audit.clone(), requester.clone(), Arc::clone(&self.counters));
        self.on_disk(move |queue| {
            let flushed = act(queue, &scope, &reason);
            let outcome = flush_result(queue, flushed).inspect(|_| counters.flushed());
            if let Some(audit) = audit {
                audit.flushed(event, &requester, &scope, &reason, &outcome);
            }
            outcome.map(reply)
        })
    }

    /// Takes a session, and writes down what came of it.
    fn provision(
        &self,
        requester: &Requester,
        act: impl FnOnce(&Queue) -> (Result<ProvisionResult, Refusal>, Result<ControlReply, Refusal>)
        + Send
        + 'static,
    ) -> Answer<ControlProtocol> {
        let (audit, requester) = (self.audit.clone(), requester.clone());
        self.on_disk(move |queue| {
            // A session that cannot be audited is not taken.
            audit.as_ref().map(Auditor::health).transpose()?;
            let (outcome, reply) = act(queue);
            if let Some(audit) = audit {
                audit.provisioned(queue, &requester, &outcome);
            }
            reply
        })
    }

    /// Holds a piece of a session document, and takes the session once it is whole.
    fn provision_part(&self, requester: &Requester, piece: &ProvisionPartParams) -> Answer<ControlProtocol> {
        let now = Instant::now();
        let text = match self.parts.take(requester.tag.connection, piece, now) {
            Err(refusal) => return Answer::Now(Err(refusal)),
            Ok(Taken::Whole(text)) => text,
            Ok(Taken::Some(received)) => {
                self.forget_later(piece.number);
                return Answer::Now(Ok(part_reply(received, None)));
            }
        };
        let pop_key = match piece.pop_pub.map(|public| self.pop_keys.take(&public, now)).transpose() {
            Ok(key) => key,
            Err(refusal) => return Answer::Now(Err(refusal)),
        };
        self.provision(requester, move |queue| {
            let half = read(&text).and_then(|half| with_pop_key(half, pop_key));
            let outcome = half.and_then(|half| provision(queue, half, false));
            let reply = outcome.clone().map(|session| part_reply(text.len() as u64, Some(session)));
            (outcome, reply)
        })
    }

    /// Whoever does not go on leaves keys behind, but not for long.
    fn forget_later(&self, number: u64) {
        if number == 0 {
            let parts = Arc::clone(&self.parts);
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                parts.forget(Instant::now());
            });
        }
    }

    /// Changes the operator's own list.
    fn change_denials(
        &self,
        requester: &Requester,
        tool: ToolName,
        act: fn(&Queue, &ToolName) -> Result<ControlReply, Refusal>,
    ) -> Answer<ControlProtocol> {
        let (audit, requester) = (self.audit.clone(), requester.clone());
        self.on_disk(move |queue| {
            let outcome = act(queue, &tool);
            if let Some(audit) = audit {
                audit.denials(&requester, &tool, queue.denied_tools().0.len(), &outcome);
            }
            outcome
        })
    }

    fn heard(&self, params: LeaseParams) -> ControlReply {
        self.queue.heard(params.heard_seconds_ago);
        ControlReply::Lease(Empty {})
    }

    fn status(&self, params: StatusParams) -> Result<StatusResult, Refusal> {
        self.describe(params.from.unwrap_or(0)).map_err(Refusal::unavailable)
    }

    fn describe(&self, from: u64) -> Result<StatusResult, ValueError> {
        let page = self.page(from)?;
        Ok(StatusResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            agent_users: if from == 0 { self.agent_users.clone() } else { Vec::new() },
            uptime_seconds: self.started.elapsed().as_secs(),
            sessions: page.sessions,
            tools: page.tools,
            denials: if from == 0 { self.denials.counts() } else { BTreeMap::new() },
            next: page.next,
            hold: self.queue.hold().filter(|_| from == 0).map(hold_status),
            denied: page.denied,
        })
    }
}

fn read(document: &[u8]) -> Result<AgentHalf, Refusal> {
    AgentHalf::from_json(document).map_err(Refusal::invalid_argument)
}

/// The session with a key of our own for its proofs, where it named one.
fn with_pop_key(mut half: AgentHalf, key: Option<PopKey>) -> Result<AgentHalf, Refusal> {
    if let Some(key) = key {
        if half.pop_key.is_some() {
            return Err(Refusal::invalid_argument(
                "popPub: the document already has a pop_key; leave one of them out",
            ));
        }
        half.pop_key = Some(key);
    }
    Ok(half)
}

fn part_reply(received: u64, session: Option<ProvisionResult>) -> ControlReply {
    ControlReply::ProvisionPart(ProvisionPartResult { received, session })
}

fn provision(queue: &Queue, document: AgentHalf, resume: bool) -> Result<ProvisionResult, Refusal> {
    let grants = document.grants() as u64;
    let provisioned = if resume { queue.provision_and_resume(document) } else { queue.provision(document) };
    match provisioned {
        Ok(id) => Ok(ProvisionResult { session_id: id, grants }),
        Err(ProvisionError::Unavailable(error)) => Err(Refusal::unavailable(error)),
        Err(error @ ProvisionError::Held(_)) => Err(Refusal::new(ErrorCode::PolicyDeny, error.to_string())),
        Err(error) => Err(Refusal::invalid_argument(error)),
    }
}

/// A scope in the queue's words.
fn queue_scope(scope: FlushScope) -> obol_queue::FlushScope {
    match scope {
        FlushScope::All => obol_queue::FlushScope::All,
        FlushScope::Session(id) => obol_queue::FlushScope::Session(id),
        FlushScope::Agent(agent) => obol_queue::FlushScope::Agent(agent.into_string()),
        FlushScope::Tool(tool) => obol_queue::FlushScope::Tool(tool.into_string()),
    }
}

fn flush_result(queue: &Queue, flushed: Result<Flushed, Unavailable>) -> Result<FlushResult, Refusal> {
    let flushed = flushed.map_err(Refusal::unavailable)?;
    let sessions = flushed.sessions.iter().take(MAX_NAMED_SESSIONS);
    Ok(FlushResult {
        sessions_ended: flushed.sessions_ended,
        partitions: flushed.partitions,
        tokens_discarded: flushed.tokens_discarded,
        sessions: sessions.copied().collect(),
        held: queue.hold().is_some(),
    })
}

fn resume(queue: &Queue) -> Result<ResumeResult, Refusal> {
    let hold = queue.resume().map_err(Refusal::unavailable)?;
    Ok(ResumeResult { hold: hold.map(hold_status) })
}

fn hold_status(hold: Hold) -> HoldStatus {
    let Hold { since, scope, reason } = hold;
    HoldStatus { since: UtcTime::from_unix_seconds(since), scope, reason }
}

fn deny(queue: &Queue, tool: &ToolName) -> Result<DenyResult, Refusal> {
    match queue.deny(tool.as_str()) {
        Ok(granted) => Ok(DenyResult { granted }),
        Err(DenyError::Unavailable(error)) => Err(Refusal::unavailable(error)),
        Err(error) => Err(Refusal::invalid_argument(error)),
    }
}

fn allow(queue: &Queue, tool: &ToolName) -> Result<AllowResult, Refusal> {
    let was_denied = queue.allow(tool.as_str()).map_err(Refusal::unavailable)?;
    Ok(AllowResult { was_denied, denied_by_policy: queue.denied_tools().1.contains(tool.as_str()) })
}

fn policy(queue: &Queue, params: PolicyParams) -> Result<Empty, Refusal> {
    let denied = params.denied_tools.into_iter().map(ToolName::into_string).collect();
    queue.set_policy(params.epoch, denied).map_err(Refusal::unavailable)?;
    Ok(Empty {})
}

impl Control {
    /// Sessions, then tools, then denied tools from this place on, as many as fit into one answer.
    fn page(&self, from: u64) -> Result<Page, ValueError> {
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let mut page = Page::default();
        let (sessions, tools) = (self.queue.sessions(), self.queue.tools());
        let count = sessions.len();
        let before_denials = count + tools.len();
        for session in sessions.iter().skip(skip) {
            if !page.has_room_for(session.agent_instance_id.len()) {
                page.next = Some(from + page.items);
                return Ok(page);
            }
            page.sessions.push(session_status(session)?);
        }
        for tool in tools.into_iter().skip(skip.saturating_sub(count)) {
            if !page.has_room_for(tool.tool.len() + tool.audience.len()) {
                page.next = Some(from + page.items);
                return Ok(page);
            }
            page.tools.push(tool_status(tool)?);
        }
        let (by_operator, by_policy) = self.queue.denied_tools();
        for tool in by_operator.union(&by_policy).skip(skip.saturating_sub(before_denials)) {
            if !page.has_room_for(tool.len()) {
                page.next = Some(from + page.items);
                return Ok(page);
            }
            page.denied.push(DeniedTool {
                tool: ToolName::new(tool.as_str())?,
                by_operator: by_operator.contains(tool),
                by_policy: by_policy.contains(tool),
            });
        }
        Ok(page)
    }
}

/// Space for sessions and tools in one answer: half a frame. The other half is for the denials, and for characters that
/// JSON writes as two.
const PAGE_BYTES: usize = obol_ipc::frame::MAX_BODY_BYTES / 2;
/// What a session or a tool takes besides its names, as JSON, at most.
const ITEM_BYTES: usize = 420;

#[derive(Default)]
struct Page {
    sessions: Vec<SessionStatus>,
    tools: Vec<ToolStatus>,
    denied: Vec<DeniedTool>,
    items: u64,
    bytes: usize,
    next: Option<u64>,
}

impl Page {
    fn has_room_for(&mut self, names: usize) -> bool {
        let bytes = self.bytes + names + ITEM_BYTES;
        if bytes > PAGE_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.items += 1;
        true
    }
}

fn session_status(session: &obol_queue::SessionInfo) -> Result<SessionStatus, ValueError> {
    let agent = Some(session.agent_instance_id.as_str()).filter(|agent| !agent.is_empty());
    Ok(SessionStatus {
        session_id: session.session_id,
        agent_instance_id: AgentInstanceId::new(agent.unwrap_or(UNKNOWN_AGENT))?,
        algorithm_suite: AlgorithmSuite::new(session.suite.number())?,
        expires_at: UtcTime::from_unix_seconds(session.expires_at),
        state: match session.state {
            obol_queue::SessionState::Active => SessionState::Active,
            obol_queue::SessionState::Expired => SessionState::Expired,
            obol_queue::SessionState::Held => SessionState::Held,
            obol_queue::SessionState::Flushed => SessionState::Flushed,
            obol_queue::SessionState::Lapsed => SessionState::Lapsed,
        },
        lease_ends_at: session.lease_ends_at.map(UtcTime::from_unix_seconds),
    })
}

fn tool_status(tool: obol_queue::ToolStatus) -> Result<ToolStatus, ValueError> {
    Ok(ToolStatus {
        session_id: tool.session_id,
        tool: ToolName::new(tool.tool)?,
        audience: Audience::new(tool.audience)?,
        ready: tool.ready,
        stored: tool.stored,
        handed_out: tool.handed_out,
        minted: tool.minted,
        expired: tool.expired,
        discarded: tool.discarded,
        ttl: tool.ttl,
        denied: tool.denied,
        renewal_pending: tool.renewal_pending,
        retry_after_ms: tool.retry_after.map(retry_after_ms),
    })
}
