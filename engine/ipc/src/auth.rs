//! The authenticator's protocol: what an agent may say on `auth.sock`. It can ask to be registered and for sessions, and how
//! that stands; no answer holds a key.

use serde::{Deserialize, Serialize};

use crate::approvals::{ApprovalResult, ApprovalStatusParams, RequestApprovalParams};
use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::control::{HoldStatus, StatusParams};
use crate::frame::EncodeError;
use crate::message::{Empty, is_false};
use crate::names::{
    AgentInstanceId, Audience, SessionId, ToolName, WishedName, either_case, maybe_in_either_case,
};
use crate::numbers::AlgorithmSuite;
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};
use crate::secret::{AssertionText, TicketText};
use crate::time::UtcTime;

protocol! {
    /// The authenticator's socket.
    AuthProtocol { AuthMethod, AuthRequest, AuthReply }

    /// Ask the Authentication Service to register the agent, which a human approves. While one waits for a human, a
    /// further request is answered with it.
    Register "register" (RegisterParams) -> RegistrationResult;
    /// What became of the registration.
    RegistrationStatus "registrationStatus" (Empty) -> RegistrationResult;
    /// Open a session and provision the TQS with it. One that is only seconds old is answered instead.
    Authenticate "authenticate" (Empty) -> OpenSession;
    /// The session there is; opens one where there is none, or where it is almost over.
    EnsureAuthenticated "ensureAuthenticated" (Empty) -> OpenSession;
    /// How the authenticator is, a page at a time.
    AuthStatus "authStatus" (StatusParams) -> AuthStatusResult;
    /// Tell that a resource server says of a token that it was spent, which this agent had not sent before. It is told to the service,
    /// and nothing else follows from it.
    TokenStolen "tokenStolen" (TokenStolenParams) -> Empty;
    /// Give the return code that the service's page showed after a human's yes. A wrong one may be tried again, twice.
    CompleteRegistration "completeRegistration" (CompleteRegistrationParams) -> RegistrationResult;
    /// Ask a human for a yes to calls that are granted with one alone. Not repeatable: each is another request.
    RequestApproval "requestApproval" (RequestApprovalParams) -> ApprovalResult;
    /// How such a request stands.
    ApprovalStatus "approvalStatus" (ApprovalStatusParams) -> ApprovalResult;
}

/// How a human's word in a browser comes back to the agent. In JSON: `loopback` or `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RegistrationFlow {
    /// The browser runs on this machine, and brings it.
    Loopback,
    /// The browser runs elsewhere: the human types a code there, and another one here.
    Code,
}

/// Parameters of `completeRegistration`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteRegistrationParams {
    /// The three words, with dashes between them.
    pub code: WishedName,
}

/// Parameters of `register`. What the operator set in the authenticator's settings need not be said, and cannot be said
/// otherwise.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterParams {
    /// What humans call the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WishedName>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<WishedName>,
    /// Roles that it would like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<WishedName>,
    /// Tools that it would like to use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolName>,
    /// An invitation's ticket, which stands in for the human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketText>,
    /// How a human's word in a browser should come back, where the service has pages for that; `loopback` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<RegistrationFlow>,
    /// A signed token of somebody whom the service takes at their word, which stands in for the human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<AssertionText>,
}

/// What has become of a registration. In JSON: `none`, `waiting`, `denied`, `expired` or `active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RegistrationState {
    /// The agent is not registered, and has not asked to be.
    None,
    /// A human has yet to decide.
    Waiting,
    /// A human said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The agent is registered.
    Active,
}

/// Result of `register` and `registrationStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResult {
    /// How it stands.
    pub state: RegistrationState,
    /// While it waits: what the human types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The agent's key in words. The human sees the same, or it is not this agent.
    pub words: String,
    /// While it waits: until when the code is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UtcTime>,
    /// Of a registered agent: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentInstanceId>,
    /// When a human has to approve the agent again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_expires_at: Option<UtcTime>,
    /// While it waits: where a human decides in a browser. Without it, whoever runs the service decides, on its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// While it waits: the human has to type the return code here, by `completeRegistration`, once the page shows it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub return_code: bool,
}

/// Result of `authenticate` and `ensureAuthenticated`: a session that the TQS mints from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenSession {
    /// The session.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// The agent it belongs to.
    pub agent_instance_id: AgentInstanceId,
    /// The negotiated suite, 1 to 4.
    pub algorithm_suite: AlgorithmSuite,
    /// When it ends.
    pub expires_at: UtcTime,
    /// When a human has to approve the agent again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_expires_at: Option<UtcTime>,
}

/// What the authenticator is about. In JSON: `unregistered`, `waiting`, `registered`, `authenticated`, `held` or `stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AuthState {
    /// The agent is not registered.
    Unregistered,
    /// A human has yet to decide about it.
    Waiting,
    /// The agent is registered and has no session; `problem` says why.
    Registered,
    /// There is a session, and the next is opened in time.
    Authenticated,
    /// An operator flushed the sidecar: no session is opened before `resume`.
    Held,
    /// The Authentication Service ended the agent, for now or for good: `problem` says which.
    Stopped,
}

/// What went wrong last, and has not gone well since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Its stable code.
    pub code: String,
    /// What it means and what to do.
    pub message: String,
    /// When it happened.
    pub at: UtcTime,
    /// When it is tried again, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UtcTime>,
}

/// Where tokens of the session can go: requests to one resource server that are calls of these tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The resource server that tokens are for.
    pub audience: Audience,
    /// The tools.
    pub tools: Vec<ToolName>,
    /// The origin of such requests, and a path that all of them lie under; absent: the audience, where that is a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Their method, in capitals; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Their path, as a pattern of segments: `*` is one, `**` any number; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The gateway that they are sent to instead, as an origin that may have a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Their bodies are sealed: their tokens ask for channel encryption.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

/// Result of `authStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthStatusResult {
    /// The authenticator's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The user it runs as.
    pub uid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The Authentication Service, as it is pinned: address and key.
    pub authority: String,
    /// What it is about.
    pub state: AuthState,
    /// How the registration stands.
    pub registration: RegistrationResult,
    /// The session that the TQS has from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<OpenSession>,
    /// When the next one is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<UtcTime>,
    /// How far this machine's clock was ahead of the service's when they last spoke, in seconds; negative where it was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<i64>,
    /// What went wrong last, and has not gone well since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Why the sidecar takes no new session, while it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// Where tokens of the session can go, as many as one answer holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Where the next page of routes begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Parameters of `tokenStolen`. The token itself is not said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenStolenParams {
    /// The tool that the token was for.
    pub tool: ToolName,
    /// The resource server that it was for.
    pub audience: Audience,
    /// The session that it was from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_in_either_case")]
    pub session_id: Option<SessionId>,
}

/// The assertion stands at the end, and only where there is one: a body without it is what it was before there were any.
impl Binary for RegisterParams {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let Self { name, class, roles, tools, ticket, flow, assertion } = self;
        name.put(output)?;
        class.put(output)?;
        roles.put(output)?;
        tools.put(output)?;
        ticket.put(output)?;
        flow.put(output)?;
        assertion.as_ref().map_or(Ok(()), |assertion| assertion.put(output))
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        let in_field = |name: &'static str| move |error: BinaryError| error.in_field(name);
        Ok(Self {
            name: Binary::take(input).map_err(in_field("name"))?,
            class: Binary::take(input).map_err(in_field("class"))?,
            roles: Binary::take(input).map_err(in_field("roles"))?,
            tools: Binary::take(input).map_err(in_field("tools"))?,
            ticket: Binary::take(input).map_err(in_field("ticket"))?,
            flow: Binary::take(input).map_err(in_field("flow"))?,
            assertion: match input.is_at_end() {
                true => None,
                false => Some(AssertionText::take(input).map_err(in_field("assertion"))?),
            },
        })
    }
}

binary_struct! {
    TokenStolenParams { tool, audience, session_id }
    CompleteRegistrationParams { code }
    RegistrationResult { state, code, words, expires_at, agent_id, approval_expires_at, page, return_code }
    OpenSession { session_id, agent_instance_id, algorithm_suite, expires_at, approval_expires_at }
    Problem { code, message, at, retry_at }
    Route { audience, tools, url, method, path, via, sealed }
    AuthStatusResult {
        version, pid, uid, uptime_seconds, authority, state, registration, session, renew_at, skew_seconds, problem, hold,
        routes, next
    }
}

binary_enum! {
    RegistrationFlow "way of a registration" { Loopback = 0, Code = 1 }
    RegistrationState "state of a registration" { None = 0, Waiting = 1, Denied = 2, Expired = 3, Active = 4 }
    AuthState "state of an authenticator" {
        Unregistered = 0, Waiting = 1, Registered = 2, Authenticated = 3, Held = 4, Stopped = 5
    }
}
