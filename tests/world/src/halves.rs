//! A session's two halves as documents: the agent's, whose keys come from its number, and the resource server's of
//! [`KEYS`].

use obol_session::AgentHalf;
use obol_token::text::to_hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{AUDIENCE, KEYS, ORG, TOOL};

/// A session as an agent gets it.
pub struct AgentSession {
    pub session_id: String,
    pub established_at: u64,
    pub expires_at: u64,
    pub grants: Vec<Value>,
}

impl AgentSession {
    /// A session that began at `now` and lasts an hour, with a grant for each tool.
    pub fn new(number: u64, now: u64, tools: &[&str]) -> Self {
        let grants = tools
            .iter()
            .map(|tool| json!({"tool": tool, "aud": AUDIENCE, "action": "read", "resource": "**"}))
            .collect();
        Self { session_id: format!("{number:016x}"), established_at: now, expires_at: now + 3600, grants }
    }

    fn secret(&self, what: &str) -> String {
        to_hex(&Sha256::digest(format!("{}/{what}", self.session_id)))
    }

    /// The document for the queue.
    pub fn agent_json(&self) -> Value {
        json!({
            "obol_session": 1, "session_id": self.session_id, "suite": 1,
            "agent_instance_id": "agent-1", "org_id": ORG, "iss": "https://auth.example", "sub": "IK:1",
            "established_at": self.established_at, "expires_at": self.expires_at, "policy_epoch": 1,
            "resource_servers": [{
                "aud": AUDIENCE, "K_session": self.secret("key"), "verifier_secret": self.secret("verifier"),
                "mutual_auth": self.secret("mutual"), "SEK_PK": self.secret("sek"),
            }],
            "grants": self.grants,
        })
    }

    pub fn document(&self) -> AgentHalf {
        AgentHalf::from_json(self.agent_json().to_string().as_bytes()).unwrap()
    }
}

/// The document of a resource server's sessions: the one of [`KEYS`], from before `now` on, with other or more fields.
pub fn resource_server_sessions(now: u64, fields: &Value) -> Value {
    let mut session = json!({
        "session_id": format!("{:016x}", KEYS.session_id), "suite": 1, "aud": AUDIENCE, "org_id": ORG,
        "K_session": to_hex(&KEYS.session_key), "verifier_secret": to_hex(&KEYS.verifier_secret),
        "mutual_auth": to_hex(&KEYS.mutual_auth), "SEK_PK": to_hex(&KEYS.sek_public),
        "window": {"start": now - 100, "end": now + 100_000},
        "agent_instance_id": "agent-1", "iss": "as.example", "sub": "agent-key:1",
        "grants": [{"tool": TOOL, "aud": AUDIENCE, "action": "read", "resource": "docs/**", "trust_level": 1}],
    });
    session.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"obol_rs_sessions": 1, "sessions": [session]})
}
