//! What the operator's methods do.

use std::sync::Arc;
use std::time::Instant;

use obol_ipc::control::{
    ControlProtocol, ControlReply, ControlRequest, FlushResult, FlushScope, HealthResult, PolicyParams,
    ProvisionParams, ProvisionResult, SessionState, SessionStatus, StatusResult, ToolStatus,
};
use obol_ipc::message::Empty;
use obol_ipc::refusal::Refusal;
use obol_ipc::time::UtcTime;
use obol_ipc::value::{AgentInstanceId, AlgorithmSuite, Audience, SessionId, Tool, ValueError};
use obol_queue::{ProvisionError, Queue, SessionDocument};
use tokio::sync::watch;

use crate::connection::{Answer, Answerer};
use crate::counters::Counters;

/// Stands for an agent whose name went with its flushed session.
const UNKNOWN_AGENT: &str = "-";

/// Answers the operator's requests.
pub(crate) struct Control {
    pub(crate) queue: Arc<Queue>,
    pub(crate) started: Instant,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) counters: Arc<Counters>,
}

impl Answerer<ControlProtocol> for Control {
    fn answer(self: &Arc<Self>, call: ControlRequest) -> Answer<ControlProtocol> {
        match call {
            ControlRequest::Provision(params) => {
                self.on_disk(move |queue| provision(queue, &params).map(ControlReply::Provision))
            }
            ControlRequest::Flush(params) => {
                let counters = Arc::clone(&self.counters);
                self.on_disk(move |queue| {
                    let done = flush(queue, params.scope, params.reason.as_str())?;
                    counters.flushed();
                    Ok(ControlReply::Flush(done))
                })
            }
            ControlRequest::SecurityEvent(params) => {
                let counters = Arc::clone(&self.counters);
                self.on_disk(move |queue| {
                    let reason = format!("{}: {}", params.kind, params.reason);
                    let done = flush(queue, params.subject, &reason)?;
                    counters.flushed();
                    Ok(ControlReply::SecurityEvent(done))
                })
            }
            ControlRequest::Policy(params) => {
                self.on_disk(|queue| policy(queue, params).map(ControlReply::Policy))
            }
            ControlRequest::Status(_) => Answer::Now(self.status().map(ControlReply::Status)),
            ControlRequest::Health(_) => Answer::Now(Ok(ControlReply::Health(health(&self.queue)))),
            ControlRequest::Drain(_) => {
                tracing::info!("the operator asked to drain");
                self.stop.send_replace(true);
                Answer::Now(Ok(ControlReply::Drain(Empty {})))
            }
        }
    }
}

impl Control {
    /// Does what waits for the disk on a thread that may wait.
    fn on_disk(
        &self,
        act: impl FnOnce(&Queue) -> Result<ControlReply, Refusal> + Send + 'static,
    ) -> Answer<ControlProtocol> {
        let queue = Arc::clone(&self.queue);
        Answer::later(async move {
            tokio::task::spawn_blocking(move || act(&queue))
                .await
                .unwrap_or_else(|_| Err(Refusal::unavailable("the daemon failed inside")))
        })
    }

    fn status(&self) -> Result<StatusResult, Refusal> {
        self.describe().map_err(Refusal::unavailable)
    }

    fn describe(&self) -> Result<StatusResult, ValueError> {
        Ok(StatusResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            sessions: self.queue.sessions().iter().map(session_status).collect::<Result<_, _>>()?,
            tools: self.queue.tools().into_iter().map(tool_status).collect::<Result<_, _>>()?,
        })
    }
}

fn provision(queue: &Queue, params: &ProvisionParams) -> Result<ProvisionResult, Refusal> {
    let document =
        SessionDocument::from_json(params.session.reveal().as_bytes()).map_err(Refusal::invalid_argument)?;
    let grants = document.grants() as u64;
    match queue.provision(document) {
        Ok(id) => Ok(ProvisionResult { session_id: SessionId::from_u64(id.0), grants }),
        Err(ProvisionError::Unavailable(error)) => Err(Refusal::unavailable(error)),
        Err(error) => Err(Refusal::invalid_argument(error)),
    }
}

fn flush(queue: &Queue, scope: FlushScope, reason: &str) -> Result<FlushResult, Refusal> {
    let scope = match scope {
        FlushScope::All => obol_queue::FlushScope::All,
        FlushScope::Session(id) => obol_queue::FlushScope::Session(obol_queue::SessionId(id.as_u64())),
        FlushScope::Agent(agent) => obol_queue::FlushScope::Agent(agent.into_string()),
        FlushScope::Tool(tool) => obol_queue::FlushScope::Tool(tool.into_string()),
    };
    let flushed = queue.flush(&scope, reason).map_err(Refusal::unavailable)?;
    Ok(FlushResult {
        sessions_ended: flushed.sessions_ended,
        partitions: flushed.partitions,
        tokens_discarded: flushed.tokens_discarded,
    })
}

fn policy(queue: &Queue, params: PolicyParams) -> Result<Empty, Refusal> {
    let denied = params.denied_tools.into_iter().map(Tool::into_string).collect();
    queue.set_policy(params.epoch, denied).map_err(Refusal::unavailable)?;
    Ok(Empty {})
}

fn health(queue: &Queue) -> HealthResult {
    let failed = queue.health().err();
    HealthResult { ready: failed.is_none(), reason: failed.map(|error| error.to_string()) }
}

fn session_status(session: &obol_queue::SessionInfo) -> Result<SessionStatus, ValueError> {
    let agent = Some(session.agent_instance_id.as_str()).filter(|agent| !agent.is_empty());
    Ok(SessionStatus {
        session_id: SessionId::from_u64(session.session_id.0),
        agent_instance_id: AgentInstanceId::new(agent.unwrap_or(UNKNOWN_AGENT))?,
        algorithm_suite: AlgorithmSuite::new(session.suite.number())?,
        expires_at: UtcTime::from_unix_seconds(session.expires_at),
        state: match session.state {
            obol_queue::SessionState::Active => SessionState::Active,
            obol_queue::SessionState::Flushed => SessionState::Flushed,
        },
    })
}

fn tool_status(tool: obol_queue::ToolStatus) -> Result<ToolStatus, ValueError> {
    Ok(ToolStatus {
        tool: Tool::new(tool.tool)?,
        audience: Audience::new(tool.audience)?,
        ready: tool.ready,
        stored: tool.stored,
        handed_out: tool.handed_out,
        minted: tool.minted,
        expired: tool.expired,
        renewal_pending: tool.renewal_pending,
    })
}
