//! The client of a resource server's operator.

use obol_ipc::control::{HealthResult, StatusParams};
use obol_ipc::message::Empty;
use obol_ipc::names::Reason;
use obol_ipc::rs_control::{
    AuthorityStanding, ReloadResult, RevokeParams, RevokeResult, RevokeScope, RsControlProtocol,
    RsControlReply, RsControlRequest, RsStatusResult,
};

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;
use super::pages::Pages;

/// A blocking client for a resource server's control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] the server may have done
/// what was asked; all of it may be asked for again.
pub type RsControlClient = BlockingClient<RsControlProtocol>;

impl RsControlClient {
    /// Has no token in `scope` accepted any more, for good; once this returns, none is.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn revoke(&mut self, scope: RevokeScope, reason: Reason) -> Result<RevokeResult, CallError> {
        let request = RsControlRequest::Revoke(RevokeParams { scope, reason });
        expect_reply!(self.order(&request)?, RsControlReply::Revoke)
    }

    /// The sessions, without their keys: all pages.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status(&mut self) -> Result<RsStatusResult, CallError> {
        let mut pages = Pages::begin(self.status_page(None)?);
        while let Some(from) = pages.next() {
            pages.add(self.status_page(Some(from))?);
        }
        Ok(pages.whole())
    }

    fn status_page(&mut self, from: Option<u64>) -> Result<RsStatusResult, CallError> {
        let request = RsControlRequest::Status(StatusParams { from });
        expect_reply!(self.order(&request)?, RsControlReply::Status)
    }

    /// Whether the server can verify and spend tokens.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn health(&mut self) -> Result<HealthResult, CallError> {
        expect_reply!(self.order(&RsControlRequest::Health(Empty {}))?, RsControlReply::Health)
    }

    /// Has the file of sessions read again.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn reload(&mut self) -> Result<ReloadResult, CallError> {
        expect_reply!(self.order(&RsControlRequest::Reload(Empty {}))?, RsControlReply::Reload)
    }

    /// How the server stands with the Authentication Service that it follows.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn authority(&mut self) -> Result<AuthorityStanding, CallError> {
        expect_reply!(self.order(&RsControlRequest::Authority(Empty {}))?, RsControlReply::Authority)
    }
}
