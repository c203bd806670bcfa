//! What the agent's three methods do.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use obol_audit::Suspended;
use obol_ipc::message::{
    AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult, SessionInfoResult,
    TokenChannel, TokenProof, TokenStatusParams, TokenStatusResult,
};
use obol_ipc::names::{AgentInstanceId, ChannelAlgorithm, ToolName, ValueError};
use obol_ipc::numbers::AlgorithmSuite;
use obol_ipc::proof::{ArgumentsHash, ProofAlgorithm, ProofSignature};
use obol_ipc::refusal::{ErrorCode, Refusal, retry_after_ms};
use obol_ipc::secret::{ChannelText, TokenText};
use obol_ipc::time::UtcTime;
use obol_probe::stop::Stop;
use obol_queue::{ChannelKeys, DequeueError, Draw, Queue, SessionInfo, Token};
use obol_token::text::to_base64url;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use crate::audit::{self, Auditor};
use crate::connection::{Answer, Answerer, Requester};
use crate::denials::Denials;
use crate::turns::{Turns, Wanted};

/// Answers the agent's requests from the queue.
pub(crate) struct Agent {
    pub(crate) queue: Arc<Queue>,
    pub(crate) stop: Stop,
    pub(crate) audit: Option<Auditor>,
    pub(crate) denials: Arc<Denials>,
    pub(crate) turns: Arc<Turns<Waiter>>,
}

/// A request that waits for a token.
pub(crate) struct Waiter {
    params: DequeueTokenParams,
    requester: Requester,
    span: Span,
    answer: oneshot::Sender<Result<Drawn, Denied>>,
}

/// Draws for those that wait before others have their turn.
const TURN: usize = 32;

impl Answerer<AgentProtocol> for Agent {
    fn answer(self: &Arc<Self>, call: AgentRequest, requester: &Requester) -> Answer<AgentProtocol> {
        // Also while the daemon stops: what reaches us then was sent before, and refusing it would only make the agent
        // ask again.
        match call {
            AgentRequest::DequeueToken(params) => self.dequeue(params, requester),
            AgentRequest::TokenStatus(params) => {
                Answer::Now(self.status(&params).map(AgentReply::TokenStatus))
            }
            AgentRequest::SessionInfo(_) => Answer::Now(self.session().map(AgentReply::SessionInfo)),
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::debug_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Agent {
    fn dequeue(self: &Arc<Self>, params: DequeueTokenParams, requester: &Requester) -> Answer<AgentProtocol> {
        let patience = params.wait_ms.as_duration();
        // A call that was approved has a token of its own: nobody else waits for it.
        let outcome = if params.approval_id.is_none() && self.turns.anyone_waits() {
            self.draw_in_turn(&params, requester)
        } else {
            self.draw(&params, requester)
        };
        match outcome {
            Err(Denied::Queue(empty @ DequeueError::Empty { .. })) if patience > Duration::ZERO => {
                let (agent, requester) = (Arc::clone(self), requester.clone());
                Answer::later(
                    async move { agent.wait(params, requester, Instant::now() + patience, empty).await },
                )
            }
            outcome => Answer::Now(reply(outcome, params.tool)),
        }
    }

    /// Draws a token, or says why not; either way it is audited, or nothing is drawn.
    fn draw(&self, params: &DequeueTokenParams, requester: &Requester) -> Result<Drawn, Denied> {
        let place = self.audit.as_ref().map(Auditor::reserve).transpose().map_err(Denied::Audit)?;
        let over = params.pop_for.as_ref().map(ArgumentsHash::as_bytes);
        let outcome = match &params.approval_id {
            Some(approval) => self
                .queue
                .dequeue_approved(draw(params), approval.as_str(), over)
                .map(|(token, channel, proof)| Drawn { token, channel, proof }),
            None => self.queue.dequeue_proven(draw(params), over).and_then(|(token, proof)| {
                let channel = self.queue.channel_keys(draw(params), &token)?;
                Ok(Drawn { token, channel, proof })
            }),
        };
        if let Some((audit, place)) = self.audit.as_ref().zip(place) {
            audit.drawn(place, params, requester, outcome.as_ref().map(|drawn| &drawn.token));
        }
        if let Some(code) = outcome.as_ref().err().and_then(audit::denial) {
            self.denials.count(&params.tool);
            if let Some(unsaid) = self.denials.may_be_said(std::time::Instant::now()) {
                let (tool, client) = (params.tool.as_str(), &*requester.client);
                tracing::info!(tool, code, client, unsaid, "denied");
            }
        }
        match &outcome {
            Ok(_) => tracing::debug!(tool = params.tool.as_str(), "handed out"),
            Err(error) => tracing::debug!(tool = params.tool.as_str(), %error, "not handed out"),
        }
        outcome.map_err(Denied::Queue)
    }

    /// As [`draw`](Self::draw), where others wait for the same, if it is the process's turn.
    #[cold]
    fn draw_in_turn(&self, params: &DequeueTokenParams, requester: &Requester) -> Result<Drawn, Denied> {
        let Ok(wanted) = self.wanted(params) else { return self.draw(params, requester) };
        self.turns.may_draw(&wanted, requester.owner).map_err(Denied::Queue)?;
        let drawn = self.draw(params, requester)?;
        self.turns.served(&wanted, requester.owner);
        Ok(drawn)
    }

    fn wanted(&self, params: &DequeueTokenParams) -> Result<Wanted, DequeueError> {
        let tool = self.queue.tool(draw(params))?;
        Ok(Wanted { tool: tool.name().into(), audience: tool.audience().into() })
    }

    /// Waits in line for a token.
    async fn wait(
        self: Arc<Self>,
        params: DequeueTokenParams,
        requester: Requester,
        deadline: Instant,
        empty: DequeueError,
    ) -> Result<AgentReply, Refusal> {
        let wanted = self.wanted(&params).map_err(refuse)?;
        let (tool, owner) = (params.tool.clone(), requester.owner);
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { params, requester, span: Span::current(), answer };
        let place = self.turns.join(wanted.clone(), owner, waiter, empty.clone());
        if place.is_first {
            tokio::spawn(Arc::clone(&self).serve_line(wanted.clone()));
        }
        tokio::select! {
            biased;
            outcome = timeout_at(deadline, answered) => match outcome {
                Ok(Ok(outcome)) => reply(outcome, tool),
                Ok(Err(_)) => Err(Refusal::unavailable("internal error; see the daemon's log")),
                // What ended meanwhile, a lease for instance, is no queue that fills again.
                Err(_) => {
                    let draw = Draw { tool: &wanted.tool, audience: Some(&wanted.audience), session: None };
                    let ended = self.queue.tool(draw).err();
                    Err(refuse(ended.or_else(|| place.why_empty()).unwrap_or(empty)))
                }
            },
            () = self.stop.said() => Err(stopping()),
        }
    }

    /// Draws for those who wait in one line, in their turn, for as long as there are any.
    async fn serve_line(self: Arc<Self>, wanted: Wanted) {
        let draw = Draw { tool: &wanted.tool, audience: Some(&wanted.audience), session: None };
        loop {
            // Drawn after the watch began: a token that comes in between is not missed. Where there is nothing to watch, the
            // session has ended for instance, each is told.
            let ready = self.queue.watch(draw);
            let mut left = TURN;
            let nobody_waits = loop {
                let Some(next) = self.turns.next(&wanted) else { return };
                let (owner, waiter) = (next.owner, &next.waiter);
                if waiter.answer.is_closed() {
                    continue;
                }
                let outcome = waiter.span.in_scope(|| self.draw(&waiter.params, &waiter.requester));
                match outcome {
                    Err(Denied::Queue(empty @ DequeueError::Empty { .. })) if ready.is_ok() => {
                        break self.turns.put_back(&wanted, next, empty);
                    }
                    outcome => {
                        if outcome.is_ok() {
                            self.turns.served(&wanted, owner);
                        }
                        let _gone_at_this_moment = next.waiter.answer.send(outcome);
                    }
                }
                left -= 1;
                if left == 0 {
                    yield_now().await;
                    left = TURN;
                }
            };
            let (Some(nobody_waits), Ok(ready)) = (nobody_waits, ready) else { return };
            tokio::select! {
                () = ready => {}
                () = nobody_waits.notified() => {}
            }
        }
    }

    fn status(&self, params: &TokenStatusParams) -> Result<TokenStatusResult, Refusal> {
        let tool = params.tool.as_ref().map(ToolName::as_str);
        let audience = params.audience.as_ref().map(AsRef::as_ref);
        if audience.is_some() && tool.is_none() {
            return Err(Refusal::invalid_argument("audience: say the tool as well"));
        }
        let status = self.queue.status_at(tool, audience).map_err(refuse)?;
        let (tools, next) = match tool {
            Some(_) => (None, None),
            None => {
                let (tools, next) = page(self.depths()?, params.from.unwrap_or(0));
                (Some(tools), next)
            }
        };
        Ok(TokenStatusResult {
            queue_depth: status.queue_depth,
            ttl: status.ttl,
            session_active: status.session_active,
            renewal_pending: status.renewal_pending,
            retry_after_ms: status.retry_after.map(retry_after_ms),
            tools,
            next,
            sealed: status.sealed,
        })
    }

    fn depths(&self) -> Result<BTreeMap<ToolName, u64>, Refusal> {
        let mut depths = BTreeMap::new();
        for (tool, depth) in self.queue.depths() {
            *depths.entry(ToolName::new(tool).map_err(inexpressible)?).or_default() += depth;
        }
        Ok(depths)
    }

    fn session(&self) -> Result<SessionInfoResult, Refusal> {
        describe(&self.queue.session_info().map_err(refuse)?).map_err(inexpressible)
    }
}

/// Space for tools in one answer: half a frame, less what stands around them. In JSON a character may take two bytes.
const PAGE_BYTES: usize = obol_ipc::frame::MAX_BODY_BYTES / 2 - 512;
/// What a tool takes besides its name: its depth, and what separates it from the next.
const ITEM_BYTES: usize = 28;

/// The depths from this place on that fit into one answer, and where those begin that do not.
fn page(depths: BTreeMap<ToolName, u64>, from: u64) -> (BTreeMap<ToolName, u64>, Option<u64>) {
    let skip = usize::try_from(from).unwrap_or(usize::MAX);
    let (mut page, mut bytes) = (BTreeMap::new(), 0);
    for (place, (tool, depth)) in depths.into_iter().enumerate().skip(skip) {
        bytes += tool.as_str().len() + ITEM_BYTES;
        if bytes > PAGE_BYTES {
            return (page, u64::try_from(place).ok());
        }
        page.insert(tool, depth);
    }
    (page, None)
}

fn draw(params: &DequeueTokenParams) -> Draw<'_> {
    Draw { tool: params.tool.as_str(), audience: params.audience.as_ref().map(AsRef::as_ref), session: None }
}

/// Why there is no token.
pub(crate) enum Denied {
    Queue(DequeueError),
    Audit(Suspended),
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Queue(error) => refuse(error),
            Denied::Audit(suspended) => audit::refuse(&suspended),
        }
    }
}

/// A token, and its channel and its proof where it asks for them.
struct Drawn {
    token: Token,
    channel: Option<ChannelKeys>,
    proof: Option<[u8; 64]>,
}

fn describe_channel(keys: &ChannelKeys) -> Result<TokenChannel, ValueError> {
    let text = |bytes: &[u8]| ChannelText::new(to_base64url(bytes));
    Ok(TokenChannel {
        alg: ChannelAlgorithm::from_name(keys.algorithm())?,
        request_key: text(keys.request_key())?,
        request_aad: text(&keys.request_aad())?,
        response_key: text(keys.response_key())?,
        response_iv: text(keys.response_iv())?,
        response_aad: text(&keys.response_aad())?,
    })
}

fn reply(outcome: Result<Drawn, Denied>, tool: ToolName) -> Result<AgentReply, Refusal> {
    let Drawn { token, channel, proof } = outcome?;
    let proved =
        |signature| TokenProof { alg: ProofAlgorithm::Ed25519, sig: ProofSignature::from_bytes(signature) };
    Ok(AgentReply::DequeueToken(DequeueTokenResult {
        token: TokenText::encode(token.as_bytes()).map_err(inexpressible)?,
        tool,
        expires_at: token.expires_at(),
        channel: channel.as_ref().map(describe_channel).transpose().map_err(inexpressible)?,
        pop: proof.map(proved),
    }))
}

fn describe(session: &SessionInfo) -> Result<SessionInfoResult, ValueError> {
    Ok(SessionInfoResult {
        session_id: session.session_id,
        agent_instance_id: AgentInstanceId::new(session.agent_instance_id.as_str())?,
        established_at: UtcTime::from_unix_seconds(session.established_at),
        algorithm_suite: AlgorithmSuite::new(session.suite.number())?,
        expires_at: UtcTime::from_unix_seconds(session.expires_at),
    })
}

/// The queue's refusal in the protocol's words.
pub(crate) fn refuse(error: DequeueError) -> Refusal {
    match error {
        // A draw that finds nothing has asked for more.
        DequeueError::Empty { retry_after } => Refusal::queue_empty(true, retry_after),
        DequeueError::PolicyDenied => Refusal::new(ErrorCode::PolicyDeny, error.to_string()),
        DequeueError::ApprovalRequired | DequeueError::NotApproved => {
            Refusal::new(ErrorCode::ApprovalRequired, error.to_string())
        }
        DequeueError::NoSession | DequeueError::SessionEnded(_) | DequeueError::Lapsed { .. } => {
            Refusal::new(ErrorCode::NoSession, why_no_session(&error))
        }
        DequeueError::SessionFlushed | DequeueError::Held => {
            Refusal::new(ErrorCode::SessionFlushed, error.to_string())
        }
        DequeueError::AudienceNeeded(_) => Refusal::invalid_argument(format_args!("audience: {error}")),
        DequeueError::ProofNeeded => {
            Refusal::invalid_argument(format_args!("popFor is missing: {error}, in base64url"))
        }
        // Also what the queue may learn to say one day: nothing is handed out.
        error => Refusal::unavailable(error),
    }
}

/// Why nothing can be drawn, with times as people write them.
pub(crate) fn why_no_session(error: &DequeueError) -> String {
    match error {
        DequeueError::SessionEnded(end) => format!(
            "the last session gives no more tokens, its end is {}; authenticate again, or provision the \
             next session",
            UtcTime::from_unix_seconds(*end)
        ),
        error => error.to_string(),
    }
}

fn stopping() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the daemon is stopping; connect again once it is back")
}

/// Something the queue holds does not fit the protocol, which checked documents cannot cause.
fn inexpressible(error: ValueError) -> Refusal {
    Refusal::unavailable(error)
}
