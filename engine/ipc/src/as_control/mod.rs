//! The Authentication Service's control protocol: what its operator may say on `as-control.sock`.

mod agents;
mod events;
mod logins;
mod policies;
mod registrations;
mod servers;
mod ticket;

use serde::{Deserialize, Serialize};

pub use self::agents::{
    AgentParams, AgentResult, AgentSession, AgentState, AgentStatus, AgentWishes, AgentsParams, AgentsResult,
    DisableParams, DisableResult, DisableScope, EnableParams, EnableResult, EnableScope, HoldingServer,
};
pub use self::events::{EventsResult, OutletState, TestEventParams, TransmitterState};
pub use self::logins::{EndLoginParams, EndLoginResult, LoginStatus, LoginsResult};
pub use self::policies::{
    ActivateMode, ActivateParams, ActivateResult, PolicyImpact, PolicyPartParams, PolicyVersionStatus,
    PolicyVersionsResult,
};
pub use self::registrations::{
    ApproveParams, DenyParams, DenyTarget, GrantPreview, RegistrationParams, RegistrationResult,
    RegistrationsResult, WaitingRegistration,
};
pub use self::servers::{
    ConfirmationsParams, ConfirmationsResult, CopyStatus, RemoveCopyParams, RemoveCopyResult, ServerStatus,
    ServersResult, SidecarStatus,
};
pub use self::ticket::{InviteParams, InviteServerParams, TicketResult};
use crate::approvals::{ApprovalParams, ApprovalsResult, AskedApproval, DecideApprovalParams};
use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::control::HealthResult;
use crate::frame::EncodeError;
use crate::message::Empty;
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};

protocol! {
    /// The socket of the Authentication Service's operator.
    AsControlProtocol { AsControlMethod, AsControlRequest, AsControlReply }

    /// The registrations that wait for a human.
    Registrations "registrations" (Empty) -> RegistrationsResult;
    /// One of them, by the code that its agent shows, and what would follow from a yes.
    Registration "registration" (RegistrationParams) -> RegistrationResult;
    /// Approve a registration.
    Approve "approve" (ApproveParams) -> AgentStatus;
    /// Deny a registration.
    Deny "deny" (DenyParams) -> WaitingRegistration;
    /// All agents, a page at a time.
    Agents "agents" (AgentsParams) -> AgentsResult;
    /// One agent, with its live sessions.
    Agent "agent" (AgentParams) -> AgentResult;
    /// End an agent, a session, or the use of a tool.
    Disable "disable" (DisableParams) -> DisableResult;
    /// Let an agent or a tool in again.
    Enable "enable" (EnableParams) -> EnableResult;
    /// Let agents register by themselves.
    Invite "invite" (InviteParams) -> TicketResult;
    /// Let one copy of a resource server join, which is made known by it.
    InviteServer "inviteServer" (InviteServerParams) -> TicketResult;
    /// A part of a policy's text, which is activated afterwards.
    PolicyPart "policyPart" (PolicyPartParams) -> Empty;
    /// Put a policy in force, look at it beside the one in force, or say what it would change.
    Activate "activate" (ActivateParams) -> ActivateResult;
    /// The versions of the policy that there is a way back to.
    PolicyVersions "policyVersions" (Empty) -> PolicyVersionsResult;
    /// What the service is, and how much it knows.
    Status "status" (Empty) -> AsStatusResult;
    /// Whether sessions can be opened and ended.
    Health "health" (Empty) -> HealthResult;
    /// Who says that an end has reached it.
    Confirmations "confirmations" (ConfirmationsParams) -> ConfirmationsResult;
    /// The resource servers, and their copies that have joined.
    Servers "servers" (Empty) -> ServersResult;
    /// Let a copy of a resource server follow no more, for good.
    RemoveCopy "removeCopy" (RemoveCopyParams) -> RemoveCopyResult;
    /// Who is listened to about security events, and who is told.
    Events "events" (Empty) -> EventsResult;
    /// Say a security event as if somebody else had: it is carried out.
    TestEvent "testEvent" (TestEventParams) -> DisableResult;
    /// The requests of agents for a human's yes to calls, those that wait.
    Approvals "approvals" (Empty) -> ApprovalsResult;
    /// One of them.
    Approval "approval" (ApprovalParams) -> AskedApproval;
    /// Say yes or no.
    DecideApproval "decideApproval" (DecideApprovalParams) -> AskedApproval;
    /// The operators of other machines who are let in.
    Logins "logins" (Empty) -> LoginsResult;
    /// Let one in no more.
    EndLogin "endLogin" (EndLoginParams) -> EndLoginResult;
}

/// Result of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsStatusResult {
    /// The service's version.
    pub version: String,
    /// The service's process id.
    pub pid: u32,
    /// The service with its key, as agents pin it: `https://as.example#…`.
    pub pin: String,
    /// The key in words.
    pub words: String,
    /// The policy epoch.
    pub policy_epoch: u64,
    /// The digest of the policy in force, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The digest of the policy that is only looked at, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_policy: Option<String>,
    /// The newest event's number.
    pub last_event: u64,
    /// How many registrations wait, of the first thousand.
    pub waiting: u64,
    /// Tools that nobody is granted, the first of them.
    pub denied_tools: Vec<String>,
    /// The resource servers' audiences, the first of them.
    pub resource_servers: Vec<String>,
}

binary_struct! {
    AsStatusResult {
        version, pid, pin, words, policy_epoch, policy, observed_policy, last_event, waiting, denied_tools,
        resource_servers
    }
}
