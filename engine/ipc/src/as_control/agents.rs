//! Agents: who they are, what they have open, and how that ends.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_enum, binary_struct};
use crate::frame::EncodeError;
use crate::names::{Label, Reason, SessionId, either_case, list_in_either_case};
use crate::scope::scope;
use crate::time::UtcTime;

/// What an agent says of itself and asks for. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentWishes {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Roles that it would like.
    pub roles: Vec<String>,
    /// Tools that it would like to use.
    pub tools: Vec<String>,
    /// The machine it runs on.
    pub host: String,
    /// The user it runs as.
    pub user: String,
    /// Its software and version.
    pub software: String,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its id, the `agent_instance_id` of its tokens.
    pub agent_id: String,
    /// What it said of itself when it was approved.
    pub wishes: AgentWishes,
    /// The roles that it has.
    pub roles: Vec<String>,
    /// Who answers for it.
    pub owner: String,
    /// Whether it may open sessions.
    pub state: AgentState,
    /// Its key in words.
    pub words: String,
    /// When it was approved last.
    pub approved_at: UtcTime,
    /// When the approval ends.
    pub expires_at: UtcTime,
    /// When it opened a session last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_session_at: Option<UtcTime>,
    /// Whether a copy of its key is suspected.
    pub clone_suspected: bool,
}

/// Whether an agent may open sessions. In JSON: `active`, `expired`, `suspended` or `revoked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AgentState {
    /// It may.
    Active,
    /// Its approval has ended.
    Expired,
    /// It may not until it is enabled.
    Suspended,
    /// It may never again.
    Revoked,
}

/// Parameters of `agents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentsParams {
    /// The id behind which the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Label>,
}

/// Result of `agents`: as many as one answer holds, by id. There may be more where there are none: those that whoever asks may not see
/// are looked through for a while, and not for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentsResult {
    /// The agents.
    pub agents: Vec<AgentStatus>,
    /// Whether there may be more.
    pub more: bool,
    /// The id behind which the next page begins, where there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Parameters of `agent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentParams {
    /// Its name or id.
    pub agent: Label,
}

/// Result of `agent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentResult {
    /// The agent, if there is one of this name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// Its live sessions.
    pub sessions: Vec<AgentSession>,
}

/// A live session of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSession {
    /// The session.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// Its suite, 1 to 4.
    pub suite: u32,
    /// When it was opened.
    pub established_at: UtcTime,
    /// When it ends.
    pub expires_at: UtcTime,
    /// The policy epoch that its grants follow from.
    pub policy_epoch: u64,
    /// The resource servers it is for, the first of them.
    pub audiences: Vec<String>,
    /// The tools that it grants, the first of them.
    pub tools: Vec<String>,
}

scope! {
    /// What is ended. In JSON an object with exactly one of the members `agent`, `agentForGood`, `session` and `tool`.
    DisableScope {
        /// An agent, by name or id: no new session until it is enabled, and its sessions end.
        Agent(Label) = 1,
        /// An agent, by name or id, for good.
        AgentForGood(Label) = 2,
        /// One session.
        Session(SessionId, read by "either_case") = 3,
        /// A tool: no agent is granted it until it is enabled, and sessions that grant it end.
        Tool(Label) = 4,
    }
}

/// Parameters of `disable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisableParams {
    /// What.
    pub scope: DisableScope,
    /// Why, for the log.
    pub reason: Reason,
}

/// Result of `disable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisableResult {
    /// Whether there was such an agent or session. A tool that nothing names is denied all the same.
    pub matched: bool,
    /// The agents that may open no session any more.
    pub agents: Vec<String>,
    /// How many sessions ended.
    pub sessions_ended: u64,
    /// Which they are, the first [`MAX_NAMED_SESSIONS`](crate::control::MAX_NAMED_SESSIONS) of them.
    #[serde(deserialize_with = "list_in_either_case")]
    pub sessions: Vec<SessionId>,
    /// The event's number by which others hear of it.
    pub event: u64,
    /// The resource servers that hold those sessions, the first of them.
    pub servers: Vec<HoldingServer>,
    /// How many more there are.
    pub more_servers: u64,
}

/// A resource server that holds sessions which were ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldingServer {
    /// Its audience.
    pub audience: String,
    /// Whether every copy of it has confirmed that it accepts their tokens no more.
    pub confirmed: bool,
    /// How many of the sessions it holds.
    pub sessions: u64,
    /// When the last of them ends by itself.
    pub until: UtcTime,
}

scope! {
    /// What is let in again. In JSON an object with exactly one of the members `agent` and `tool`.
    EnableScope {
        /// An agent, by name or id.
        Agent(Label) = 1,
        /// A tool.
        Tool(Label) = 2,
    }
}

/// Parameters of `enable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnableParams {
    /// What.
    pub scope: EnableScope,
}

/// Result of `enable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnableResult {
    /// Whether there was such an agent, or such a denied tool.
    pub matched: bool,
}

binary_struct! {
    AgentWishes { name, class, roles, tools, host, user, software }
    AgentStatus {
        agent_id, wishes, roles, owner, state, words, approved_at, expires_at, last_session_at, clone_suspected
    }
    AgentsParams { after }
    AgentsResult { agents, more, next }
    AgentParams { agent }
    AgentResult { agent, sessions }
    AgentSession { session_id, suite, established_at, expires_at, policy_epoch, audiences, tools }
    DisableParams { scope, reason }
    DisableResult { matched, agents, sessions_ended, sessions, event, servers, more_servers }
    HoldingServer { audience, confirmed, sessions, until }
    EnableParams { scope }
    EnableResult { matched }
}

binary_enum! {
    AgentState "state of an agent" { Active = 0, Expired = 1, Suspended = 2, Revoked = 3 }
}
