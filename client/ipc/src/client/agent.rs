//! The agent's calls: draw a token, ask what there is.

use core::time::Duration;

use obol_ipc::message::{
    AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult, Empty,
    SessionInfoResult, TokenStatusParams, TokenStatusResult,
};
use obol_ipc::names::{Audience, Label, ToolName};
use obol_ipc::numbers::WaitMs;
use obol_ipc::proof::ArgumentsHash;

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;
use super::pages::Pages;

/// A blocking client for the agent's socket.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// use core::time::Duration;
/// use obol_client::protocol::Endpoint;
/// use obol_client::protocol::names::{PeerName, ToolName};
/// use obol_client::{Client, ConnectOptions};
///
/// let endpoint = Endpoint::agent_to_connect(None, |name| std::env::var_os(name))?;
/// let mut client = Client::connect(endpoint, ConnectOptions::new(PeerName::new("my-agent/1.0")?))?;
/// let drawn = client.dequeue_token(&ToolName::new("mail.send")?, Duration::from_secs(2))?;
/// call_the_tool_with(drawn.token.expose());
/// # fn call_the_tool_with(_: &str) {}
/// # Ok(())
/// # }
/// ```
pub type Client = BlockingClient<AgentProtocol>;

impl Client {
    /// Draws one token for `tool`, waiting for up to `wait` (at most 30 s) if none is ready.
    ///
    /// # Errors
    ///
    /// [`CallError::MayHaveBeenHandedOut`] when the request went out and no answer came: the token, if there was one,
    /// is lost; calling again draws another. Otherwise as for every call.
    pub fn dequeue_token(
        &mut self,
        tool: &ToolName,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, None, None, wait)
    }

    /// Draws one token for `tool` at the resource server `audience`, for tools that are granted for several.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub fn dequeue_token_for(
        &mut self,
        tool: &ToolName,
        audience: &Audience,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, Some(audience), None, wait)
    }

    /// Draws one token for `tool` with a proof of possession for a call with the arguments of this hash, where the grant asks
    /// for one; `audience` where the tool is granted for several.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub fn dequeue_token_with_proof(
        &mut self,
        tool: &ToolName,
        audience: Option<&Audience>,
        arguments: ArgumentsHash,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, audience, Some(arguments), wait)
    }

    /// Draws the token of a call that a human said yes to, by what it is drawn by; `arguments` where the grant asks for a proof
    /// of possession.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub fn dequeue_approved(
        &mut self,
        tool: &ToolName,
        audience: Option<&Audience>,
        approval: Label,
        arguments: Option<ArgumentsHash>,
    ) -> Result<DequeueTokenResult, CallError> {
        let params = dequeue_params(tool, audience, arguments, Duration::ZERO)?;
        self.draw(DequeueTokenParams { approval_id: Some(approval), ..params })
    }

    fn dequeue(
        &mut self,
        tool: &ToolName,
        audience: Option<&Audience>,
        pop_for: Option<ArgumentsHash>,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.draw(dequeue_params(tool, audience, pop_for, wait)?)
    }

    fn draw(&mut self, params: DequeueTokenParams) -> Result<DequeueTokenResult, CallError> {
        let wait = params.wait_ms.as_duration();
        let reply = self
            .call(&AgentRequest::DequeueToken(params), wait)
            .and_then(|reply| expect_reply!(reply, AgentReply::DequeueToken));
        reply.map_err(CallError::of_a_dequeue)
    }

    /// How many tokens are ready: for `tool`, or for all tools and each of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_status(&mut self, tool: Option<&ToolName>) -> Result<TokenStatusResult, CallError> {
        let mut pages = Pages::begin(self.token_status_page(tool, None)?);
        while let Some(from) = pages.next() {
            pages.add(self.token_status_page(tool, Some(from))?);
        }
        Ok(pages.whole())
    }

    /// The same, with one page of the tools; `from` is `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_status_page(
        &mut self,
        tool: Option<&ToolName>,
        from: Option<u64>,
    ) -> Result<TokenStatusResult, CallError> {
        let request =
            AgentRequest::TokenStatus(TokenStatusParams { tool: tool.cloned(), from, audience: None });
        expect_reply!(self.order(&request)?, AgentReply::TokenStatus)
    }

    /// The same for `tool` at the resource server `audience`, for tools that are granted for several.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_status_for(
        &mut self,
        tool: &ToolName,
        audience: &Audience,
    ) -> Result<TokenStatusResult, CallError> {
        let request = AgentRequest::TokenStatus(status_params_for(tool, audience));
        expect_reply!(self.order(&request)?, AgentReply::TokenStatus)
    }

    /// What session the tokens come from.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn session_info(&mut self) -> Result<SessionInfoResult, CallError> {
        let request = AgentRequest::SessionInfo(Empty {});
        expect_reply!(self.order(&request)?, AgentReply::SessionInfo)
    }
}

pub(crate) fn dequeue_params(
    tool: &ToolName,
    audience: Option<&Audience>,
    pop_for: Option<ArgumentsHash>,
    wait: Duration,
) -> Result<DequeueTokenParams, CallError> {
    let wait_ms = WaitMs::try_from(wait).map_err(CallError::Argument)?;
    Ok(DequeueTokenParams {
        tool: tool.clone(),
        wait_ms,
        audience: audience.cloned(),
        pop_for,
        approval_id: None,
    })
}

pub(crate) fn status_params_for(tool: &ToolName, audience: &Audience) -> TokenStatusParams {
    TokenStatusParams { tool: Some(tool.clone()), from: None, audience: Some(audience.clone()) }
}
