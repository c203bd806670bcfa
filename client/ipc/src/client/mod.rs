//! Blocking clients for all sockets.
//!
//! A client holds one connection and has one request on it at a time. When the daemon has restarted, the next call
//! connects again by itself, and waits some seconds for a daemon that is still starting. What it never does is send a request twice of which a byte was written: a `dequeueToken`
//! whose answer is lost may have taken a token out of the queue, and asking again would take another.

mod caller;
mod control;
mod rs_control;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::time::Duration;

use self::caller::Caller;
pub use self::control::ControlClient;
pub use self::rs_control::RsControlClient;
use crate::codec::ResponseError;
pub use crate::connect::{ConnectError, ConnectOptions, Lost};
use crate::endpoint::Endpoint;
use crate::frame::EncodeError;
use crate::message::{
    AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult, Empty,
    SessionInfoResult, TokenStatusParams, TokenStatusResult,
};
use crate::proof::ArgumentsHash;
use crate::refusal::Refusal;
use crate::value::{Audience, Tool, ValueError, WaitMs};

/// The most pages of one status that are asked for.
pub(crate) const MAX_STATUS_PAGES: usize = 10_000;

/// Takes the reply of one method out of the protocol's replies.
macro_rules! expect_reply {
    ($reply:expr, $protocol:ident :: $method:ident) => {
        match $reply {
            $protocol::$method(result) => Ok(result),
            _ => Err($crate::client::CallError::mismatched(stringify!($method))),
        }
    };
}
pub(crate) use expect_reply;

/// A blocking client for the agent's socket.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use obol_ipc::{Client, ConnectOptions, Endpoint};
/// use obol_ipc::value::{PeerName, Tool};
///
/// let endpoint = Endpoint::agent_to_connect(None, |name| std::env::var_os(name))?;
/// let mut client = Client::connect(endpoint, ConnectOptions::new(PeerName::new("my-agent/1.0")?))?;
/// let drawn = client.dequeue_token(&Tool::new("mail.send")?, Duration::from_secs(2))?;
/// call_the_tool_with(drawn.token.reveal());
/// # fn call_the_tool_with(_: &str) {}
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client(Caller<AgentProtocol>);

impl Client {
    /// Connects to the daemon at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; one attempt is made.
    pub fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<Self, ConnectError> {
        Caller::connect(endpoint, options).map(Self)
    }

    /// Draws one token for `tool`, waiting for up to `wait` (at most 30 s) if none is ready.
    ///
    /// # Errors
    ///
    /// [`CallError::MayHaveBeenHandedOut`] when the request went out and no answer came: the token, if there was one,
    /// is lost; calling again draws another. Otherwise as for every call.
    pub fn dequeue_token(&mut self, tool: &Tool, wait: Duration) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, None, None, wait)
    }

    /// Draws one token for `tool` at the resource server `audience`, for tools that are granted for several.
    ///
    /// # Errors
    ///
    /// As for [`dequeue_token`](Self::dequeue_token).
    pub fn dequeue_token_for(
        &mut self,
        tool: &Tool,
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
        tool: &Tool,
        audience: Option<&Audience>,
        arguments: ArgumentsHash,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        self.dequeue(tool, audience, Some(arguments), wait)
    }

    fn dequeue(
        &mut self,
        tool: &Tool,
        audience: Option<&Audience>,
        pop_for: Option<ArgumentsHash>,
        wait: Duration,
    ) -> Result<DequeueTokenResult, CallError> {
        let params = dequeue_params(tool, audience, pop_for, wait)?;
        let wait = params.wait_ms.as_duration();
        let reply = self
            .0
            .call(&AgentRequest::DequeueToken(params), wait)
            .and_then(|reply| expect_reply!(reply, AgentReply::DequeueToken));
        reply.map_err(CallError::of_a_dequeue)
    }

    /// How many tokens are ready: for `tool`, or for all tools and each of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_status(&mut self, tool: Option<&Tool>) -> Result<TokenStatusResult, CallError> {
        let mut whole = self.token_status_page(tool, None)?;
        // A daemon that never comes to an end is not followed for ever.
        for _ in 1..MAX_STATUS_PAGES {
            let Some(next) = whole.next.take() else { break };
            let page = self.token_status_page(tool, Some(next))?;
            whole.tools.get_or_insert_default().extend(page.tools.unwrap_or_default());
            whole.next = page.next;
        }
        Ok(whole)
    }

    /// The same, with one page of the tools; `from` is `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_status_page(
        &mut self,
        tool: Option<&Tool>,
        from: Option<u64>,
    ) -> Result<TokenStatusResult, CallError> {
        let request = AgentRequest::TokenStatus(TokenStatusParams { tool: tool.cloned(), from });
        expect_reply!(self.0.call(&request, Duration::ZERO)?, AgentReply::TokenStatus)
    }

    /// What session the tokens come from.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn session_info(&mut self) -> Result<SessionInfoResult, CallError> {
        let request = AgentRequest::SessionInfo(Empty {});
        expect_reply!(self.0.call(&request, Duration::ZERO)?, AgentReply::SessionInfo)
    }
}

pub(crate) fn dequeue_params(
    tool: &Tool,
    audience: Option<&Audience>,
    pop_for: Option<ArgumentsHash>,
    wait: Duration,
) -> Result<DequeueTokenParams, CallError> {
    let wait_ms = WaitMs::try_from(wait).map_err(CallError::Argument)?;
    Ok(DequeueTokenParams { tool: tool.clone(), wait_ms, audience: audience.cloned(), pop_for })
}

/// Why a call has no result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// An argument is out of range. Nothing was sent.
    Argument(ValueError),
    /// The request does not fit a frame. Nothing was sent.
    Encode(EncodeError),
    /// There was no connection to send the request on. Nothing was sent; calling again is safe.
    NotSent(ConnectError),
    /// Too many requests of this client are waiting for an answer. Nothing was sent; calling again is safe.
    TooManyInFlight,
    /// The daemon refused the request.
    Refused(Refusal),
    /// A `dequeueToken` went out, at least in part, and no answer came. The daemon may have handed out a token, which
    /// is then lost. This client will not ask again on its own: calling again draws another token.
    MayHaveBeenHandedOut(Lost),
    /// Any other request went out, at least in part, and no answer came. The daemon may have carried it out.
    Unanswered(Lost),
}

impl CallError {
    /// Gives a lost answer its meaning where a token was asked for.
    pub(crate) fn of_a_dequeue(self) -> Self {
        match self {
            Self::Unanswered(lost) => Self::MayHaveBeenHandedOut(lost),
            other => other,
        }
    }

    pub(crate) fn mismatched(method: &str) -> Self {
        Self::Unanswered(Lost::Answer(ResponseError::new(format_args!("not an answer to {method}"))))
    }

    /// The daemon's refusal, if that is what this is.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::NotSent(error) => error.fmt(f),
            Self::TooManyInFlight => {
                f.write_str("too many requests wait for an answer on this connection; ask again later")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::MayHaveBeenHandedOut(lost) => write!(
                f,
                "{lost} after the request for a token was sent; the token may have been handed out and is lost. \
                 Asking again draws another"
            ),
            Self::Unanswered(lost) => {
                write!(
                    f,
                    "{lost} after the request was sent; it may have been carried out. Check before repeating it"
                )
            }
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Argument(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::NotSent(error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::MayHaveBeenHandedOut(lost) | Self::Unanswered(lost) => Some(lost),
            Self::TooManyInFlight => None,
        }
    }
}
