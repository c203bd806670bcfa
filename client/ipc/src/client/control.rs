//! The operator's client.

use std::time::Duration;

use super::caller::Caller;
use super::{CallError, ConnectError, ConnectOptions, MAX_STATUS_PAGES, expect_reply};
use crate::control::{
    ControlProtocol, ControlReply, ControlRequest, FlushParams, FlushResult, FlushScope, HealthResult,
    PolicyParams, ProvisionParams, ProvisionResult, SecurityEventParams, StatusParams, StatusResult,
};
use crate::endpoint::Endpoint;
use crate::message::Empty;
use crate::secret::SessionDocument;
use crate::value::{EventKind, Reason, Tool};

/// A blocking client for the control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] the daemon may have done
/// what was asked: look at [`status`](Self::status) before repeating it.
#[derive(Debug)]
pub struct ControlClient(Caller<ControlProtocol>);

impl ControlClient {
    /// Connects to the daemon at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; one attempt is made.
    pub fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<Self, ConnectError> {
        Caller::connect(endpoint, options).map(Self)
    }

    fn call(&mut self, request: &ControlRequest) -> Result<ControlReply, CallError> {
        self.0.call(request, Duration::ZERO)
    }

    /// Gives the daemon a session to mint from.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn provision(&mut self, session: SessionDocument) -> Result<ProvisionResult, CallError> {
        let request = ControlRequest::Provision(ProvisionParams { session });
        expect_reply!(self.call(&request)?, ControlReply::Provision)
    }

    /// Destroys what was minted ahead in `scope`. Once this returns, none of it will ever be handed out.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn flush(&mut self, scope: FlushScope, reason: Reason) -> Result<FlushResult, CallError> {
        let request = ControlRequest::Flush(FlushParams { scope, reason });
        expect_reply!(self.call(&request)?, ControlReply::Flush)
    }

    /// Tells the daemon of a security event about `subject`, which destroys what was minted ahead for it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn security_event(
        &mut self,
        kind: EventKind,
        subject: FlushScope,
        reason: Reason,
    ) -> Result<FlushResult, CallError> {
        let request = ControlRequest::SecurityEvent(SecurityEventParams { kind, subject, reason });
        expect_reply!(self.call(&request)?, ControlReply::SecurityEvent)
    }

    /// Puts policy epoch `epoch` into force, under which `denied_tools` are denied.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn policy(&mut self, epoch: u64, denied_tools: Vec<Tool>) -> Result<(), CallError> {
        let request = ControlRequest::Policy(PolicyParams { epoch, denied_tools });
        expect_reply!(self.call(&request)?, ControlReply::Policy).map(|Empty {}| ())
    }

    /// Sessions and queues, without secrets: all pages.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status(&mut self) -> Result<StatusResult, CallError> {
        let mut whole = self.status_page(None)?;
        // A daemon that never comes to an end is not followed for ever.
        for _ in 1..MAX_STATUS_PAGES {
            let Some(next) = whole.next.take() else { break };
            let page = self.status_page(Some(next))?;
            whole.sessions.extend(page.sessions);
            whole.tools.extend(page.tools);
            whole.next = page.next;
        }
        Ok(whole)
    }

    /// One page of sessions and queues; `from` is `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status_page(&mut self, from: Option<u64>) -> Result<StatusResult, CallError> {
        let request = ControlRequest::Status(StatusParams { from });
        expect_reply!(self.call(&request)?, ControlReply::Status)
    }

    /// Whether the daemon can do its job.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn health(&mut self) -> Result<HealthResult, CallError> {
        expect_reply!(self.call(&ControlRequest::Health(Empty {}))?, ControlReply::Health)
    }

    /// Makes the daemon hand out nothing more, finish what is under way, and exit.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn drain(&mut self) -> Result<(), CallError> {
        expect_reply!(self.call(&ControlRequest::Drain(Empty {}))?, ControlReply::Drain).map(|Empty {}| ())
    }
}
