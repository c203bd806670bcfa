//! The operator's client.

use obol_ipc::approvals::MintApprovedParams;
use obol_ipc::control::{
    AllowResult, ControlProtocol, ControlReply, ControlRequest, DenyResult, FlushParams, FlushResult,
    FlushScope, HealthResult, LeaseParams, PolicyParams, ProvisionParams, ProvisionPartParams,
    ProvisionResult, ResumeResult, SecurityEventParams, StatusParams, StatusResult, ToolParams,
};
use obol_ipc::message::Empty;
use obol_ipc::names::{EventKind, Reason, ToolName, ValueError};
use obol_ipc::proof::PopPublic;
use obol_ipc::secret::{SessionDocumentText, SessionPartText};

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;
use super::pages::Pages;

/// A blocking client for the control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] the daemon may have done
/// what was asked: look at [`status`](ControlClient::status) before repeating it.
pub type ControlClient = BlockingClient<ControlProtocol>;

impl ControlClient {
    /// Gives the daemon a session to mint from.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn provision(&mut self, session: SessionDocumentText) -> Result<ProvisionResult, CallError> {
        self.give(session, false)
    }

    /// As [`provision`](Self::provision), also where a flush holds new sessions back; none is held back after it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn provision_and_resume(
        &mut self,
        session: SessionDocumentText,
    ) -> Result<ProvisionResult, CallError> {
        self.give(session, true)
    }

    /// Makes a key for proofs of possession, for a session that is to come: the public half. The private half stays in the
    /// daemon.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn pop_key(&mut self) -> Result<PopPublic, CallError> {
        let reply = self.order(&ControlRequest::PopKey(Empty {}))?;
        expect_reply!(reply, ControlReply::PopKey).map(|made| made.pop_pub)
    }

    /// Notes a call that a human said yes to: its tokens can be drawn then.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn mint_approved(&mut self, call: MintApprovedParams) -> Result<(), CallError> {
        let reply = self.order(&ControlRequest::MintApproved(call))?;
        expect_reply!(reply, ControlReply::MintApproved).map(|Empty {}| ())
    }

    /// The Authentication Service was heard so many seconds ago: the leases of its sessions begin anew then.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn lease(&mut self, heard_seconds_ago: u64) -> Result<(), CallError> {
        let reply = self.order(&ControlRequest::Lease(LeaseParams { heard_seconds_ago }))?;
        expect_reply!(reply, ControlReply::Lease).map(|Empty {}| ())
    }

    /// As [`provision`](Self::provision), for a document of any length, which goes in pieces; `pop_pub` names the key of
    /// [`pop_key`](Self::pop_key) that the session's proofs are made with.
    ///
    /// # Errors
    ///
    /// [`CallError`]; nothing was provisioned unless the last piece went unanswered.
    pub fn provision_in_parts(
        &mut self,
        document: &str,
        pop_pub: Option<PopPublic>,
    ) -> Result<ProvisionResult, CallError> {
        let mut pieces = SessionPartText::pieces(document).enumerate().peekable();
        while let Some((number, text)) = pieces.next() {
            let last = pieces.peek().is_none();
            let params =
                ProvisionPartParams { number: number as u64, text, last, pop_pub: pop_pub.filter(|_| last) };
            let reply = self.order(&ControlRequest::ProvisionPart(params))?;
            let done = expect_reply!(reply, ControlReply::ProvisionPart)?;
            if last {
                return done.session.ok_or_else(|| CallError::mismatched("provisionPart"));
            }
        }
        Err(CallError::Argument(ValueError::new("session", "one JSON object, the session document")))
    }

    fn give(&mut self, session: SessionDocumentText, resume: bool) -> Result<ProvisionResult, CallError> {
        let request = ControlRequest::Provision(ProvisionParams { session, resume });
        expect_reply!(self.order(&request)?, ControlReply::Provision)
    }

    /// Takes new sessions again after a flush.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn resume(&mut self) -> Result<ResumeResult, CallError> {
        expect_reply!(self.order(&ControlRequest::Resume(Empty {}))?, ControlReply::Resume)
    }

    /// Denies a tool, whether it is granted or not, until [`allow`](Self::allow).
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn deny(&mut self, tool: ToolName) -> Result<DenyResult, CallError> {
        expect_reply!(self.order(&ControlRequest::Deny(ToolParams { tool }))?, ControlReply::Deny)
    }

    /// Takes a tool off the operator's own list of denials.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn allow(&mut self, tool: ToolName) -> Result<AllowResult, CallError> {
        expect_reply!(self.order(&ControlRequest::Allow(ToolParams { tool }))?, ControlReply::Allow)
    }

    /// Destroys what was minted ahead in `scope`. Once this returns, none of it will ever be handed out; and if sessions
    /// ended, or everything was flushed, no new session is taken until [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn flush(&mut self, scope: FlushScope, reason: Reason) -> Result<FlushResult, CallError> {
        let request = ControlRequest::Flush(FlushParams { scope, reason });
        expect_reply!(self.order(&request)?, ControlReply::Flush)
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
        expect_reply!(self.order(&request)?, ControlReply::SecurityEvent)
    }

    /// Puts policy epoch `epoch` into force, under which `denied_tools` are denied.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn policy(&mut self, epoch: u64, denied_tools: Vec<ToolName>) -> Result<(), CallError> {
        let request = ControlRequest::Policy(PolicyParams { epoch, denied_tools });
        expect_reply!(self.order(&request)?, ControlReply::Policy).map(|Empty {}| ())
    }

    /// Sessions and queues, without secrets: all pages.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status(&mut self) -> Result<StatusResult, CallError> {
        let mut pages = Pages::begin(self.status_page(None)?);
        while let Some(from) = pages.next() {
            pages.add(self.status_page(Some(from))?);
        }
        Ok(pages.whole())
    }

    /// One page of sessions and queues; `from` is `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status_page(&mut self, from: Option<u64>) -> Result<StatusResult, CallError> {
        let request = ControlRequest::Status(StatusParams { from });
        expect_reply!(self.order(&request)?, ControlReply::Status)
    }

    /// Whether the daemon can do its job.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn health(&mut self) -> Result<HealthResult, CallError> {
        expect_reply!(self.order(&ControlRequest::Health(Empty {}))?, ControlReply::Health)
    }

    /// Makes the daemon hand out nothing more, finish what is under way, and exit.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn drain(&mut self) -> Result<(), CallError> {
        expect_reply!(self.order(&ControlRequest::Drain(Empty {}))?, ControlReply::Drain).map(|Empty {}| ())
    }
}
