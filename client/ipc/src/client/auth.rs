//! The client of the authenticator's socket.

use core::time::Duration;

use obol_ipc::approvals::{ApprovalResult, ApprovalStatusParams, RequestApprovalParams};
use obol_ipc::auth::{
    AuthProtocol, AuthReply, AuthRequest, AuthStatusResult, CompleteRegistrationParams, OpenSession,
    RegisterParams, RegistrationResult, TokenStolenParams,
};
use obol_ipc::control::StatusParams;
use obol_ipc::message::Empty;
use obol_ipc::names::{Label, WishedName};
use obol_ipc::numbers::WaitMs;

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;
use super::pages::Pages;

/// How long the authenticator may take with the Authentication Service, beyond what an answer takes otherwise.
const AUTHORITY_PATIENCE: Duration = Duration::from_secs(50);

/// A blocking client for the authenticator's socket.
///
/// Every method answers [`CallError`] when it has no result; all of them may be called again.
pub type AuthClient = BlockingClient<AuthProtocol>;

impl AuthClient {
    /// Asks to be registered. While one waits for a human, a further request is answered with it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn register(&mut self, wishes: RegisterParams) -> Result<RegistrationResult, CallError> {
        let reply = self.call(&AuthRequest::Register(wishes), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::Register)
    }

    /// What became of the registration.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn registration_status(&mut self) -> Result<RegistrationResult, CallError> {
        let reply = self.call(&AuthRequest::RegistrationStatus(Empty {}), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::RegistrationStatus)
    }

    /// Gives the return code that the service's page showed after a human's yes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn complete_registration(&mut self, code: WishedName) -> Result<RegistrationResult, CallError> {
        let params = CompleteRegistrationParams { code };
        let reply = self.call(&AuthRequest::CompleteRegistration(params), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::CompleteRegistration)
    }

    /// Has a session opened; returns once the TQS mints from it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn authenticate(&mut self) -> Result<OpenSession, CallError> {
        let reply = self.call(&AuthRequest::Authenticate(Empty {}), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::Authenticate)
    }

    /// Sees to it that there is a session with some life left.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn ensure_authenticated(&mut self) -> Result<OpenSession, CallError> {
        let reply = self.call(&AuthRequest::EnsureAuthenticated(Empty {}), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::EnsureAuthenticated)
    }

    /// How the authenticator is: all pages.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn auth_status(&mut self) -> Result<AuthStatusResult, CallError> {
        let mut pages = Pages::begin(self.auth_status_page(None)?);
        while let Some(from) = pages.next() {
            pages.add(self.auth_status_page(Some(from))?);
        }
        Ok(pages.whole())
    }

    /// Tells that somebody else spent a token that this agent drew.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn token_stolen(&mut self, stolen: TokenStolenParams) -> Result<(), CallError> {
        let request = AuthRequest::TokenStolen(stolen);
        expect_reply!(self.order(&request)?, AuthReply::TokenStolen).map(|Empty {}| ())
    }

    /// Asks a human for a yes to calls.
    ///
    /// # Errors
    ///
    /// [`CallError`]. After [`CallError::Unanswered`] the request may wait for a human.
    pub fn request_approval(&mut self, wanted: RequestApprovalParams) -> Result<ApprovalResult, CallError> {
        let reply = self.call(&AuthRequest::RequestApproval(wanted), AUTHORITY_PATIENCE)?;
        expect_reply!(reply, AuthReply::RequestApproval)
    }

    /// How such a request stands, at once or after at most so long.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn approval_status(&mut self, approval: Label, wait: Duration) -> Result<ApprovalResult, CallError> {
        let wait_ms = WaitMs::try_from(wait).map_err(CallError::Argument)?;
        let request = AuthRequest::ApprovalStatus(ApprovalStatusParams { approval_id: approval, wait_ms });
        expect_reply!(self.call(&request, wait + AUTHORITY_PATIENCE)?, AuthReply::ApprovalStatus)
    }

    fn auth_status_page(&mut self, from: Option<u64>) -> Result<AuthStatusResult, CallError> {
        let request = AuthRequest::AuthStatus(StatusParams { from });
        expect_reply!(self.order(&request)?, AuthReply::AuthStatus)
    }
}
