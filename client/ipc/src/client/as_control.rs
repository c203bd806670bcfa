//! The client of the Authentication Service's operator.

use obol_ipc::approvals::{ApprovalParams, ApprovalsResult, AskedApproval, DecideApprovalParams};
use obol_ipc::as_control::{
    ActivateParams, ActivateResult, AgentParams, AgentResult, AgentStatus, AgentsParams, ApproveParams,
    AsControlProtocol, AsControlReply, AsControlRequest, AsStatusResult, ConfirmationsParams,
    ConfirmationsResult, DenyParams, DisableParams, DisableResult, EnableParams, EnableResult,
    EndLoginParams, EndLoginResult, EventsResult, InviteParams, InviteServerParams, LoginsResult,
    PolicyPartParams, PolicyVersionsResult, RegistrationParams, RegistrationResult, RegistrationsResult,
    RemoveCopyParams, RemoveCopyResult, ServersResult, TestEventParams, TicketResult, WaitingRegistration,
};
use obol_ipc::control::HealthResult;
use obol_ipc::message::Empty;
use obol_ipc::names::Label;

use super::caller::BlockingClient;
use super::error::CallError;
use super::expect_reply;
use super::pages::MAX_PAGES;

/// A blocking client for the Authentication Service's control socket.
///
/// Every method answers [`CallError`] when it has no result. After [`CallError::Unanswered`] the service may have done what
/// was asked.
pub type AsControlClient = BlockingClient<AsControlProtocol>;

impl AsControlClient {
    /// The requests of agents for a human's yes to calls, as many as one answer holds.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn approvals(&mut self) -> Result<ApprovalsResult, CallError> {
        let request = AsControlRequest::Approvals(Empty {});
        expect_reply!(self.order(&request)?, AsControlReply::Approvals)
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn approval(&mut self, approval_id: Label) -> Result<AskedApproval, CallError> {
        let request = AsControlRequest::Approval(ApprovalParams { approval_id });
        expect_reply!(self.order(&request)?, AsControlReply::Approval)
    }

    /// Says yes or no to one of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn decide_approval(&mut self, decision: DecideApprovalParams) -> Result<AskedApproval, CallError> {
        let request = AsControlRequest::DecideApproval(decision);
        expect_reply!(self.order(&request)?, AsControlReply::DecideApproval)
    }

    /// The registrations that wait for a human.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn registrations(&mut self) -> Result<RegistrationsResult, CallError> {
        let request = AsControlRequest::Registrations(Empty {});
        expect_reply!(self.order(&request)?, AsControlReply::Registrations)
    }

    /// The registration with this code, and what would follow from a yes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn registration(&mut self, params: RegistrationParams) -> Result<RegistrationResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Registration(params))?, AsControlReply::Registration)
    }

    /// Approves a registration.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn approve(&mut self, params: ApproveParams) -> Result<AgentStatus, CallError> {
        expect_reply!(self.order(&AsControlRequest::Approve(params))?, AsControlReply::Approve)
    }

    /// Denies a registration.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn deny(&mut self, params: DenyParams) -> Result<WaitingRegistration, CallError> {
        expect_reply!(self.order(&AsControlRequest::Deny(params))?, AsControlReply::Deny)
    }

    /// All agents: all pages, also where there is none on one of them.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn agents(&mut self) -> Result<Vec<AgentStatus>, CallError> {
        let (mut agents, mut after) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let request = AsControlRequest::Agents(AgentsParams { after });
            let page = expect_reply!(self.order(&request)?, AsControlReply::Agents)?;
            agents.extend(page.agents);
            after = page.next.and_then(|next| Label::new(next).ok());
            if after.is_none() {
                break;
            }
        }
        Ok(agents)
    }

    /// The agent with this name or id.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn agent(&mut self, agent: Label) -> Result<AgentResult, CallError> {
        let request = AsControlRequest::Agent(AgentParams { agent });
        expect_reply!(self.order(&request)?, AsControlReply::Agent)
    }

    /// Ends an agent, a session, or the use of a tool.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn disable(&mut self, params: DisableParams) -> Result<DisableResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Disable(params))?, AsControlReply::Disable)
    }

    /// Who says that an end has reached it, after waiting a while for those who follow.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn confirmations(&mut self, params: ConfirmationsParams) -> Result<ConfirmationsResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Confirmations(params))?, AsControlReply::Confirmations)
    }

    /// The resource servers, and their copies that have joined.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn servers(&mut self) -> Result<ServersResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Servers(Empty {}))?, AsControlReply::Servers)
    }

    /// Lets a copy of a resource server follow no more, for good.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn remove_copy(&mut self, copy_id: Label) -> Result<RemoveCopyResult, CallError> {
        let request = AsControlRequest::RemoveCopy(RemoveCopyParams { copy_id });
        expect_reply!(self.order(&request)?, AsControlReply::RemoveCopy)
    }

    /// Who is listened to about security events, and who is told.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn events(&mut self) -> Result<EventsResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Events(Empty {}))?, AsControlReply::Events)
    }

    /// Says a security event as if somebody else had, which is carried out.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn test_event(&mut self, params: TestEventParams) -> Result<DisableResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::TestEvent(params))?, AsControlReply::TestEvent)
    }

    /// Lets an agent or a tool in again.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn enable(&mut self, params: EnableParams) -> Result<EnableResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Enable(params))?, AsControlReply::Enable)
    }

    /// Lets agents register by themselves.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn invite(&mut self, params: InviteParams) -> Result<TicketResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Invite(params))?, AsControlReply::Invite)
    }

    /// Lets one copy of a resource server join.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn invite_server(&mut self, params: InviteServerParams) -> Result<TicketResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::InviteServer(params))?, AsControlReply::InviteServer)
    }

    /// Sends a part of a policy's text.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn policy_part(&mut self, params: PolicyPartParams) -> Result<(), CallError> {
        let sent =
            expect_reply!(self.order(&AsControlRequest::PolicyPart(params))?, AsControlReply::PolicyPart);
        sent.map(|Empty {}| ())
    }

    /// Puts a policy in force, looks at it, or asks what it would change.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn activate(&mut self, params: ActivateParams) -> Result<ActivateResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Activate(params))?, AsControlReply::Activate)
    }

    /// The versions of the policy that there is a way back to.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn policy_versions(&mut self) -> Result<PolicyVersionsResult, CallError> {
        let request = AsControlRequest::PolicyVersions(Empty {});
        expect_reply!(self.order(&request)?, AsControlReply::PolicyVersions)
    }

    /// The operators of other machines who are let in.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn logins(&mut self) -> Result<LoginsResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Logins(Empty {}))?, AsControlReply::Logins)
    }

    /// Lets one in no more, or all of a human.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn end_login(&mut self, login: Label) -> Result<EndLoginResult, CallError> {
        let request = AsControlRequest::EndLogin(EndLoginParams { login });
        expect_reply!(self.order(&request)?, AsControlReply::EndLogin)
    }

    /// What the service is.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn status(&mut self) -> Result<AsStatusResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Status(Empty {}))?, AsControlReply::Status)
    }

    /// Whether sessions can be opened and ended.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn health(&mut self) -> Result<HealthResult, CallError> {
        expect_reply!(self.order(&AsControlRequest::Health(Empty {}))?, AsControlReply::Health)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use obol_ipc::as_control::AgentsResult;
    use obol_ipc::names::PeerName;

    use super::*;
    use crate::client::Way;
    use crate::connect::ConnectOptions;

    /// Answers by pages, each with the names on it and where the next begins; and notes where those began that were asked for.
    #[derive(Debug)]
    struct Pages(Vec<(&'static [&'static str], Option<&'static str>)>, Vec<Option<Label>>);

    impl Way<AsControlProtocol> for Pages {
        fn call(&mut self, request: &AsControlRequest, _: Duration) -> Result<AsControlReply, CallError> {
            let AsControlRequest::Agents(AgentsParams { after }) = request else { panic!("{request:?}") };
            let expected = self.1.last().cloned().flatten();
            assert_eq!(*after, expected, "it goes on where it was told");
            let (names, next) = self.0.remove(0);
            self.1.push(next.map(|next| Label::new(next).unwrap()));
            let agents = names.iter().map(|name| agent(name)).collect();
            let next = next.map(str::to_owned);
            Ok(AsControlReply::Agents(AgentsResult { agents, more: next.is_some(), next }))
        }
    }

    fn agent(name: &str) -> AgentStatus {
        let text = serde_json::json!({
            "agentId": name, "wishes": { "name": name, "class": "c", "roles": [], "tools": [], "host": "h", "user": "u",
            "software": "s" }, "roles": [], "owner": "local:anna", "state": "active", "words": "w",
            "approvedAt": "2026-06-01T12:01:00Z", "expiresAt": "2026-07-01T12:01:00Z", "cloneSuspected": false,
        });
        serde_json::from_value(text).unwrap()
    }

    fn listed(pages: &[(&'static [&'static str], Option<&'static str>)]) -> Vec<String> {
        let options = ConnectOptions::new(PeerName::new("test/1").unwrap());
        let way = Pages(pages.to_vec(), Vec::new());
        let agents = AsControlClient::over(Box::new(way), options).agents().unwrap();
        agents.into_iter().map(|agent| agent.agent_id).collect()
    }

    /// A service looks through so many agents for one that whoever asks may see, and says how far it came.
    #[test]
    fn agents_behind_a_page_that_holds_none_are_listed() {
        assert_eq!(
            listed(&[(&[], Some("b")), (&["c"], Some("d")), (&[], Some("f")), (&["g"], None)]),
            ["c", "g"]
        );
        assert_eq!(listed(&[(&["a", "b"], None)]), ["a", "b"], "control");
        assert_eq!(listed(&[(&[], None)]), [""; 0]);
    }
}
