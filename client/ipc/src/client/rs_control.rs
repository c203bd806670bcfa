//! The client of a resource server's operator.

use std::time::Duration;

use super::caller::Caller;
use super::{CallError, ConnectError, ConnectOptions, MAX_STATUS_PAGES, expect_reply};
use crate::control::{HealthResult, StatusParams};
use crate::endpoint::Endpoint;
use crate::message::Empty;
use crate::rs_control::{
    ReloadResult, RevokeParams, RevokeResult, RevokeScope, RsControlProtocol, RsControlReply,
    RsControlRequest, RsStatusResult,
};
use crate::value::Reason;

/// A blocking client for a resource server's control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] the server may have done
/// what was asked; all of it may be asked for again.
#[derive(Debug)]
pub struct RsControlClient(Caller<RsControlProtocol>);

impl RsControlClient {
    /// Connects to the server at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; one attempt is made.
    pub fn connect(endpoint: Endpoint, options: ConnectOptions) -> Result<Self, ConnectError> {
        Caller::connect(endpoint, options).map(Self)
    }

    fn call(&mut self, request: &RsControlRequest) -> Result<RsControlReply, CallError> {
        self.0.call(request, Duration::ZERO)
    }

    /// Has no token in `scope` accepted any more, for good; once this returns, none is.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn revoke(&mut self, scope: RevokeScope, reason: Reason) -> Result<RevokeResult, CallError> {
        let request = RsControlRequest::Revoke(RevokeParams { scope, reason });
        expect_reply!(self.call(&request)?, RsControlReply::Revoke)
    }

    /// The sessions, without their keys: all pages.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status(&mut self) -> Result<RsStatusResult, CallError> {
        let mut whole = self.status_page(None)?;
        // A server that never comes to an end is not followed for ever.
        for _ in 1..MAX_STATUS_PAGES {
            let Some(next) = whole.next.take() else { break };
            let page = self.status_page(Some(next))?;
            whole.sessions.extend(page.sessions);
            whole.next = page.next;
        }
        Ok(whole)
    }

    fn status_page(&mut self, from: Option<u64>) -> Result<RsStatusResult, CallError> {
        let request = RsControlRequest::Status(StatusParams { from });
        expect_reply!(self.call(&request)?, RsControlReply::Status)
    }

    /// Whether the server can verify and spend tokens.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn health(&mut self) -> Result<HealthResult, CallError> {
        expect_reply!(self.call(&RsControlRequest::Health(Empty {}))?, RsControlReply::Health)
    }

    /// Has the file of sessions read again.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn reload(&mut self) -> Result<ReloadResult, CallError> {
        expect_reply!(self.call(&RsControlRequest::Reload(Empty {}))?, RsControlReply::Reload)
    }
}
