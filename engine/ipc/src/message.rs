//! The agent's protocol: what may be said on `agent.sock`. Three methods and no others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::binary::{Binary, BinaryError, Input, Output, binary_struct};
use crate::frame::EncodeError;
use crate::names::{AgentInstanceId, Audience, ChannelAlgorithm, Label, SessionId, ToolName, either_case};
use crate::numbers::{AlgorithmSuite, WaitMs, optional_whole_number};
use crate::proof::{ArgumentsHash, ProofAlgorithm, ProofSignature};
use crate::protocol::protocol;
use crate::protocol::sealed::{BodyReader, BodyWriter};
use crate::secret::{ChannelText, TokenText};
use crate::time::UtcTime;

protocol! {
    /// The agent's socket.
    AgentProtocol { AgentMethod, AgentRequest, AgentReply }

    /// Draw one token for one tool. Not repeatable: each answer is another token, gone from the queue for good.
    DequeueToken "dequeueToken" (DequeueTokenParams) -> DequeueTokenResult;
    /// How many tokens are ready.
    TokenStatus "tokenStatus" (TokenStatusParams) -> TokenStatusResult;
    /// What session the tokens come from.
    SessionInfo "sessionInfo" (Empty) -> SessionInfoResult;
}

/// No parameters, or a result that says nothing but that it is done. In JSON: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Parameters of `dequeueToken`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DequeueTokenParams {
    /// The tool to be called.
    pub tool: ToolName,
    /// How long to wait if no token is ready.
    #[serde(default)]
    pub wait_ms: WaitMs,
    /// The resource server to be called; needed only where the tool is granted for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// What the call's arguments hash to, where the grant asks for a proof of possession.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop_for: Option<ArgumentsHash>,
    /// What the call's tokens are drawn by, where a human said yes to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<Label>,
}

/// Result of `dequeueToken`: a token that no one else has been given or will be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DequeueTokenResult {
    /// The token.
    pub token: TokenText,
    /// The tool it is for.
    pub tool: ToolName,
    /// When it expires, in Unix seconds.
    pub expires_at: u64,
    /// What to seal the request with, and to open the response. Only for a token that asks for channel encryption; a
    /// request in the clear is refused with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<TokenChannel>,
    /// The proof that the request must carry beside the token. Only for a token that asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop: Option<TokenProof>,
}

/// A proof of possession for one token and the arguments that it was asked for (TBAC r41, section 3.5), as it stands in a
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenProof {
    /// `Ed25519`.
    pub alg: ProofAlgorithm,
    /// The signature.
    pub sig: ProofSignature,
}

/// The channel of one token, for one request and its response (TBAC r41, section 9). The nonce of a request is 12 fresh
/// random bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenChannel {
    /// The AEAD: `AES-256-GCM` or `ChaCha20-Poly1305`.
    pub alg: ChannelAlgorithm,
    /// Key of the request, 32 bytes.
    pub request_key: ChannelText,
    /// Additional data of the request.
    pub request_aad: ChannelText,
    /// Key of the response, 32 bytes.
    pub response_key: ChannelText,
    /// Nonce of the response, 12 bytes.
    pub response_iv: ChannelText,
    /// Additional data of the response.
    pub response_aad: ChannelText,
}

/// Parameters of `tokenStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenStatusParams {
    /// The tool to ask about; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
    /// Where the page of tools begins: `next` of the page before; the first page if absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_whole_number")]
    pub from: Option<u64>,
    /// The resource server, where a tool is named that is granted for several; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
}

/// Result of `tokenStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenStatusResult {
    /// Tokens that can be drawn.
    pub queue_depth: u64,
    /// Seconds of life left in the token that would be drawn next; 0 if there is none.
    pub ttl: u64,
    /// Whether there is a session to draw from.
    pub session_active: bool,
    /// Whether tokens are being minted or granted right now, or will be once that is tried again after a failure.
    pub renewal_pending: bool,
    /// Where a renewal is pending: in how many milliseconds it makes sense to ask again. Long where minting fails and backs
    /// off; the longest of all tools where none was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Tokens that can be drawn for each tool, as many tools as one answer holds. Only when no tool was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<ToolName, u64>>,
    /// Where the next page of tools begins; absent on the last. What comes or goes between two pages may be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The tool's bodies are sealed: its tokens ask for channel encryption, so who cannot seal need not draw one. Only when a tool
    /// was asked about; of several resource servers where one asks for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// Result of `sessionInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfoResult {
    /// The session.
    #[serde(deserialize_with = "either_case")]
    pub session_id: SessionId,
    /// The running agent it belongs to.
    pub agent_instance_id: AgentInstanceId,
    /// When it was established. In JSON: ISO 8601, UTC.
    pub established_at: UtcTime,
    /// The negotiated suite, 1 to 4.
    pub algorithm_suite: AlgorithmSuite,
    /// When it ends. In JSON: ISO 8601, UTC.
    pub expires_at: UtcTime,
}

binary_struct! {
    Empty {}
    DequeueTokenParams { tool, wait_ms, audience, pop_for, approval_id }
    DequeueTokenResult { token, tool, expires_at, channel, pop }
    TokenProof { alg, sig }
    TokenChannel { alg, request_key, request_aad, response_key, response_iv, response_aad }
    TokenStatusParams { tool, from, audience }
    TokenStatusResult { queue_depth, ttl, session_active, renewal_pending, retry_after_ms, tools, next, sealed }
    SessionInfoResult { session_id, agent_instance_id, established_at, algorithm_suite, expires_at }
}
