//! The authenticator's control protocol: what the operator may say on `auth-control.sock`, which is not for agents.

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::message::Empty;
use crate::names::AgentInstanceId;
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};

protocol! {
    /// The socket of the authenticator's operator.
    AuthControlProtocol { AuthControlMethod, AuthControlRequest, AuthControlReply }

    /// Replace the agent's identity key by a fresh one. The service takes the old one for ten minutes more for sessions, and then
    /// never again.
    Rotate "rotate" (Empty) -> RotateResult;
    /// Have the service end the agent for good, and destroy what was minted ahead. Whoever registers again is another agent.
    Deregister "deregister" (Empty) -> DeregisterResult;
}

/// Result of `rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotateResult {
    /// The agent, which stays the same.
    pub agent_id: AgentInstanceId,
    /// The new key in words.
    pub words: String,
}

/// Result of `deregister`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeregisterResult {
    /// The agent that was ended.
    pub agent_id: AgentInstanceId,
    /// The words of the key that the next agent here would have.
    pub words: String,
}

binary_struct! {
    RotateResult { agent_id, words }
    DeregisterResult { agent_id, words }
}
