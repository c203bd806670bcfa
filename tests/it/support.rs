//! What many tests need: sessions for both sides, and a place to keep files.

use std::path::PathBuf;

use obol_queue::{AgentHalf, MasterKey};
use obol_token::text::to_hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const AUDIENCE: &str = "https://api.example/mcp";

/// A session as both sides know it.
pub(crate) struct World {
    pub(crate) session_id: String,
    pub(crate) established_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) grants: Vec<Value>,
}

impl World {
    /// A session that began at `now` and lasts an hour, with a grant for each tool.
    pub(crate) fn new(number: u64, now: u64, tools: &[&str]) -> Self {
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
    pub(crate) fn agent_json(&self) -> Value {
        json!({
            "obol_session": 1, "session_id": self.session_id, "suite": 1,
            "agent_instance_id": "agent-1", "org_id": "example", "iss": "https://auth.example", "sub": "IK:1",
            "established_at": self.established_at, "expires_at": self.expires_at, "policy_epoch": 1,
            "resource_servers": [{
                "aud": AUDIENCE, "K_session": self.secret("key"), "verifier_secret": self.secret("verifier"),
                "mutual_auth": self.secret("mutual"), "SEK_PK": self.secret("sek"),
            }],
            "grants": self.grants,
        })
    }

    pub(crate) fn document(&self) -> AgentHalf {
        AgentHalf::from_json(self.agent_json().to_string().as_bytes()).unwrap()
    }
}

/// A folder with the paths of a store in it.
pub(crate) struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("tokens.redb")
    }

    pub(crate) fn master_key(&self) -> MasterKey {
        MasterKey::load_or_create(self.path("master.key")).unwrap()
    }
}
