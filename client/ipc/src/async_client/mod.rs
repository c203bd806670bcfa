//! The agent's client for tokio: one connection shared by many tasks (feature `tokio`).
//!
//! Requests of all clones go out on one connection as they come, without waiting for each other's answers, which may
//! come in any order. The rule about repeating is the blocking client's: only a request of which not a byte went out
//! is sent again, once, on a new connection.
//!
//! A call that is dropped before its answer has come (a timeout around it, a lost `select!`) cannot be taken back: the
//! token it asked for, if there is one, is wiped on arrival.

mod pipeline;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::Endpoint;
use obol_ipc::Protocol;
use obol_ipc::message::{
    AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult, Empty,
    SessionInfoResult, TokenStatusParams, TokenStatusResult,
};
use obol_ipc::names::{Audience, Label, ToolName};
use obol_ipc::proof::ArgumentsHash;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::pipeline::{Failure, Pipeline};
use crate::client::{CallError, Pages, dequeue_params, expect_reply, status_params_for};
use crate::connect::{ConnectError, ConnectOptions, Link, Lost, Reconnect};

/// Most requests of one client, clones included, that wait for an answer at the same time. Further calls wait their
/// turn. Enough to keep a daemon busy; small enough that a stuck one does not hold much.
pub const MAX_IN_FLIGHT: usize = 128;

/// A client for the agent's socket that many tasks can share. Cloning it is cheap; all clones use one connection.
///
/// Needs a tokio runtime with I/O and time enabled.
#[derive(Clone)]
pub struct AsyncClient(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    options: ConnectOptions,
    in_flight: Arc<Semaphore>,
    /// The connection in use. A call keeps the one it was sent on alive until it is answered.
    pipeline: Mutex<Option<Arc<Pipeline<AgentProtocol>>>>,
}

impl AsyncClient {
    /// Connects to the daemon at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; one attempt is made.
    pub async fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<Self, ConnectError> {
        let pipeline = open(&endpoint, &options).await?;
        Ok(Self(Arc::new(Shared {
            endpoint,
            options,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            pipeline: Mutex::new(Some(pipeline)),
        })))
    }

    /// Draws one token for `tool`, waiting for up to `wait` (at most 30 s) if none is ready.
    ///
    /// # Errors
    ///
    /// [`CallError::MayHaveBeenHandedOut`] when the request went out and no answer came: the token, if there was one,
    /// is lost; calling again draws another. Otherwise as for every call.
    pub async fn dequeue_token(
        &self,
        tool: &ToolName,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, None, None, wait).await
    }

    /// Draws one token for `tool` at the resource server `audience`, for tools that are granted for several.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub async fn dequeue_token_for(
        &self,
        tool: &ToolName,
        audience: &Audience,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, Some(audience), None, wait).await
    }

    /// Draws one token for `tool` with a proof of possession for a call with the arguments of this hash, where the grant asks
    /// for one; `audience` where the tool is granted for several.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub async fn dequeue_token_with_proof(
        &self,
        tool: &ToolName,
        audience: Option<&Audience>,
        arguments: ArgumentsHash,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, audience, Some(arguments), wait).await
    }

    /// Draws the token of a call that a human said yes to, by what it is drawn by; `arguments` where the grant asks for a proof
    /// of possession.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub async fn dequeue_approved(
        &self,
        tool: &ToolName,
        audience: Option<&Audience>,
        approval: Label,
        arguments: Option<ArgumentsHash>,
    ) -> Result<DequeueTokenResult, CallError> {
        let params = dequeue_params(tool, audience, arguments, Duration::ZERO)?;
        self.draw(DequeueTokenParams { approval_id: Some(approval), ..params }).await
    }

    async fn dequeue(
        &self,
        tool: &ToolName,
        audience: Option<&Audience>,
        pop_for: Option<ArgumentsHash>,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.draw(dequeue_params(tool, audience, pop_for, wait)?).await
    }

    async fn draw(&self, params: DequeueTokenParams) -> Result<DequeueTokenResult, CallError> {
        let wait = params.wait_ms.as_duration();
        let reply = self.0.call(AgentRequest::DequeueToken(params), wait).await;
        reply
            .and_then(|reply| expect_reply!(reply, AgentReply::DequeueToken))
            .map_err(CallError::of_a_dequeue)
    }

    /// How many tokens are ready: for `tool`, or for all tools and each of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn token_status(&self, tool: Option<&ToolName>) -> Result<TokenStatusResult, CallError> {
        let mut pages = Pages::begin(self.token_status_page(tool, None).await?);
        while let Some(from) = pages.next() {
            pages.add(self.token_status_page(tool, Some(from)).await?);
        }
        Ok(pages.whole())
    }

    /// The same, with one page of the tools; `from` is `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn token_status_page(
        &self,
        tool: Option<&ToolName>,
        from: Option<u64>,
    ) -> Result<TokenStatusResult, CallError> {
        let request =
            AgentRequest::TokenStatus(TokenStatusParams { tool: tool.cloned(), from, audience: None });
        expect_reply!(self.0.call(request, Duration::ZERO).await?, AgentReply::TokenStatus)
    }

    /// The same for `tool` at the resource server `audience`, for tools that are granted for several.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn token_status_for(
        &self,
        tool: &ToolName,
        audience: &Audience,
    ) -> Result<TokenStatusResult, CallError> {
        let request = AgentRequest::TokenStatus(status_params_for(tool, audience));
        expect_reply!(self.0.call(request, Duration::ZERO).await?, AgentReply::TokenStatus)
    }

    /// What session the tokens come from.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn session_info(&self) -> Result<SessionInfoResult, CallError> {
        let request = AgentRequest::SessionInfo(Empty {});
        expect_reply!(self.0.call(request, Duration::ZERO).await?, AgentReply::SessionInfo)
    }
}

impl fmt::Debug for AsyncClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncClient").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

impl Shared {
    async fn call(&self, request: AgentRequest, wait: Duration) -> Result<AgentReply, CallError> {
        let permit = self.permit().await?;
        let mut last_attempt = false;
        loop {
            let pipeline = self.pipeline().await.map_err(CallError::NotSent)?;
            let deadline = Instant::now() + wait + self.options.patience();
            let answer = match pipeline.send(&request, Arc::clone(&permit)) {
                Ok(answer) => timeout_at(deadline, answer).await,
                Err(error) => return Err(CallError::Encode(error)),
            };
            let failure = match answer {
                Ok(Ok(Ok(outcome))) => return outcome.map_err(CallError::Refused),
                Ok(Ok(Err(failure))) => failure,
                // The driver is gone without a word: the runtime is shutting down.
                Ok(Err(_)) => Failure::Lost(Lost::Closed),
                Err(_) => Failure::Lost(Lost::TimedOut),
            };
            self.forget(&pipeline).await;
            match failure {
                Failure::Lost(lost) => return Err(CallError::Unanswered(lost)),
                Failure::NotSent(error) if last_attempt => {
                    return Err(CallError::NotSent(ConnectError::Closed(error)));
                }
                Failure::NotSent(_) => last_attempt = true,
            }
        }
    }

    /// A place among the requests in flight. It is given back when the request is answered or its connection is gone,
    /// not when the caller stops waiting.
    async fn permit(&self) -> Result<Arc<OwnedSemaphorePermit>, CallError> {
        let turn = Arc::clone(&self.in_flight).acquire_owned();
        match timeout(self.options.patience(), turn).await {
            Ok(Ok(permit)) => Ok(Arc::new(permit)),
            _ => Err(CallError::TooManyInFlight),
        }
    }

    /// The connection in use, opened again if the last one is gone. One task opens it while the others wait for it.
    async fn pipeline(&self) -> Result<Arc<Pipeline<AgentProtocol>>, ConnectError> {
        let mut current = self.pipeline.lock().await;
        if let Some(pipeline) = current.as_ref().filter(|pipeline| pipeline.is_open()) {
            return Ok(Arc::clone(pipeline));
        }
        *current = None;
        let mut again = Reconnect::new(&self.options);
        loop {
            match open(&self.endpoint, &self.options).await {
                Ok(pipeline) => return Ok(Arc::clone(current.insert(pipeline))),
                Err(error) => sleep(again.pause_after(&error).ok_or(error)?).await,
            }
        }
    }

    /// Sends nothing more on a connection that failed or fell silent. Calls that still wait on it go on waiting.
    async fn forget(&self, failed: &Arc<Pipeline<AgentProtocol>>) {
        let mut current = self.pipeline.lock().await;
        if current.as_ref().is_some_and(|pipeline| Arc::ptr_eq(pipeline, failed)) {
            *current = None;
        }
    }
}

/// Opens a connection off the runtime's own threads: the checks and the hello are the blocking client's.
async fn open<P: Protocol>(
    endpoint: &Endpoint,
    options: &ConnectOptions,
) -> Result<Arc<Pipeline<P>>, ConnectError> {
    let (to, how) = (endpoint.clone(), options.clone());
    let link = spawn_blocking(move || Link::open(&to, &how)).await;
    let link = link.map_err(|_| ConnectError::NoHello(Lost::Closed))??;
    Pipeline::start(link).map_err(|error| ConnectError::NoHello(Lost::from_io(error)))
}
