//! The client of an authenticator's operator.

use obol_ipc::auth_control::{
    AuthControlProtocol, AuthControlReply, AuthControlRequest, DeregisterResult, RotateResult,
};
use obol_ipc::message::Empty;

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;

/// A blocking client for an authenticator's control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] it may have been done; both may be
/// asked for again.
pub type AuthControlClient = BlockingClient<AuthControlProtocol>;

impl AuthControlClient {
    /// Has the agent's identity key replaced.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn rotate(&mut self) -> Result<RotateResult, CallError> {
        expect_reply!(self.order(&AuthControlRequest::Rotate(Empty {}))?, AuthControlReply::Rotate)
    }

    /// Has the agent ended for good.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn deregister(&mut self) -> Result<DeregisterResult, CallError> {
        expect_reply!(self.order(&AuthControlRequest::Deregister(Empty {}))?, AuthControlReply::Deregister)
    }
}
