//! A session as the service tells it, and the agent's half that follows from it and from the handshake.

use core::ops::RangeInclusive;

use obol_handshake::{IdentityKey, SekKey};
use obol_secret::json::parse;
use obol_session::limits::MAX_LEASE_SECS;
use obol_session::{AgentHalf, AgentIdentity, Establish, Grant, SessionId};
use obol_uplink::{AuthError, Pinned, Proven};
use serde::Deserialize;
use serde_json::Value;

/// How long a lease may be, in seconds.
const LEASE_SECS: RangeInclusive<u64> = 30..=MAX_LEASE_SECS;

/// A session as the service tells it: all but its keys.
#[derive(Debug, Deserialize)]
struct SessionDocument {
    session_id: SessionId,
    suite: u8,
    agent_instance_id: String,
    org_id: String,
    iss: String,
    sub: String,
    established_at: u64,
    expires_at: u64,
    policy_epoch: u64,
    audiences: Vec<String>,
    grants: Vec<Grant>,
    /// A service of an older version does not say.
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(rename = "lease_sec")]
    lease_secs: u64,
    #[serde(rename = "approval_expires_at")]
    approval_expires_at: u64,
    #[serde(rename = "as_keys")]
    _as_keys: Vec<Value>,
}

/// Requests that are calls of a tool.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Route {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub aud: String,
    /// What they lie under; absent: the resource server's own URL.
    #[serde(default)]
    pub url: Option<String>,
    /// The method; absent: any.
    #[serde(default)]
    pub method: Option<String>,
    /// The path, as a pattern.
    pub path: String,
    /// The gateway that they are sent to instead.
    #[serde(default)]
    pub via: Option<String>,
}

/// A session, with its keys.
pub(crate) struct OpenedSession {
    pub(crate) half: AgentHalf,
    pub(crate) routes: Vec<Route>,
    pub(crate) approval_expires_at: u64,
}

/// Derives the agent's half from what the service says and what the handshake left. The session's secret is gone then.
#[expect(clippy::needless_pass_by_value, reason = "what was proven is used once")]
pub(crate) fn derive(
    service: &Pinned,
    proven: Proven,
    document: &[u8],
    own: &IdentityKey,
    sek: &SekKey,
) -> Result<OpenedSession, AuthError> {
    let wrong = |why: &str| Err(AuthError::Answer(why.to_owned()));
    let told: SessionDocument = parse(document).map_err(|error| AuthError::Answer(error.to_string()))?;
    if told.suite != proven.suite.number() {
        return wrong("the session is of another suite than the handshake");
    }
    if told.iss != service.origin() || told.sub != own.public().subject() {
        return wrong("the session is another's, or of another service");
    }
    let Some(lifetime_secs) = told.expires_at.checked_sub(told.established_at) else {
        return wrong("the session ends before it begins");
    };
    if !LEASE_SECS.contains(&told.lease_secs) {
        return wrong("the session's lease is shorter than 30 seconds or longer than 900");
    }
    let establish = Establish {
        session_id: told.session_id,
        suite: proven.suite,
        agent: AgentIdentity { agent_instance_id: told.agent_instance_id, iss: told.iss, sub: told.sub },
        org_id: told.org_id,
        lifetime_secs,
        policy_epoch: told.policy_epoch,
        sek_public: sek.public().0,
        // Whoever mints has it.
        pop_key: None,
    };
    let audiences: Vec<&str> = told.audiences.iter().map(String::as_str).collect();
    let secret = &proven.established.secret;
    let (mut half, _) = establish.from_secret(secret, &audiences, told.grants, told.established_at)?;
    half.lease_secs = Some(told.lease_secs);
    Ok(OpenedSession { half, routes: told.routes, approval_expires_at: told.approval_expires_at })
}
