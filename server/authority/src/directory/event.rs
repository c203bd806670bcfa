//! What happened, numbered, for those who follow: resource servers and agents. No event holds a key.

use obol_session::SessionId;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, ApprovalId, ReplicaId};

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its number: one more than that of the event before it.
    pub seq: u64,
    /// When, in Unix seconds.
    pub at: u64,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happening {
    /// A human approved an agent, or approved it again.
    AgentApproved {
        /// The agent.
        agent: AgentId,
    },
    /// An agent may open no session any more.
    AgentEnd {
        /// The agent.
        agent: AgentId,
        /// Whether for good.
        revoked: bool,
        /// Why.
        reason: String,
    },
    /// A suspended agent may open sessions again.
    AgentEnabled {
        /// The agent.
        agent: AgentId,
    },
    /// Somebody presented a value that only a copy of the agent's key explains, or a disk that was put back.
    CloneSuspected {
        /// The agent.
        agent: AgentId,
    },
    /// An agent has another identity key.
    KeyRotated {
        /// The agent.
        agent: AgentId,
    },
    /// A session was opened.
    SessionOpen {
        /// The session.
        session: SessionId,
        /// The agent.
        agent: AgentId,
        /// The resource servers it is for.
        audiences: Vec<String>,
    },
    /// A session was ended before its time.
    SessionEnd {
        /// The session.
        session: SessionId,
        /// The agent.
        agent: AgentId,
        /// The resource servers it was for.
        audiences: Vec<String>,
        /// Why.
        reason: String,
    },
    /// A tool is granted to nobody until it is enabled again.
    ToolDenied {
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
    /// A tool may be granted again.
    ToolEnabled {
        /// The tool.
        tool: String,
    },
    /// A policy came into force.
    PolicyActivated {
        /// Its number.
        version: u64,
        /// The epoch from then on.
        epoch: u64,
    },
    /// Something became of a request for a human's yes. What, its row says.
    CallsDecided {
        /// The request.
        approval: ApprovalId,
        /// The agent that asked.
        agent: AgentId,
        /// The resource servers that hear of it.
        audiences: Vec<String>,
    },
    /// A resource server's replica joined.
    Joined {
        /// The replica.
        replica: ReplicaId,
        /// Its resource server.
        audience: String,
    },
    /// A resource server's replica was removed: its key follows nothing any more.
    Removed {
        /// The replica.
        replica: ReplicaId,
        /// Its resource server.
        audience: String,
    },
}
