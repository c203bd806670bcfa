//! The agent's half: what the Authentication Service hands to a token queue so that it may mint.
//!
//! `lease_secs`, `pop_key` and, in a grant, everything behind `resource` may be left out.
//!
//! ```json
//! {
//!   "obol_session": 1,
//!   "session_id": "00000000deadbeef",
//!   "suite": 1,
//!   "agent_instance_id": "agent-1",
//!   "org_id": "example",
//!   "iss": "https://auth.example",
//!   "sub": "IK:2f9c…",
//!   "established_at": 1780000000,
//!   "expires_at": 1780003600,
//!   "policy_epoch": 1,
//!   "lease_secs": 300,
//!   "pop_key": "<64 hex>",
//!   "resource_servers": [
//!     {"aud": "https://api.example", "K_session": "<64 hex>", "verifier_secret": "<64 hex>",
//!      "mutual_auth": "<64 hex>", "SEK_PK": "<64 hex>"}
//!   ],
//!   "grants": [
//!     {"tool": "search", "aud": "https://api.example", "action": "read", "resource": "docs/**", "ttl": 60}
//!   ]
//! }
//! ```

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use obol_secret::json;
use obol_secret::wipe::Wiped;
use obol_token::{SessionId, Suite};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{DocumentError, refuse};
use crate::grant::{AgentIdentity, Grant};
use crate::keys::{Hex, PopKey, ServerKeys};
use crate::limits::{
    MAX_DOCUMENT_BYTES, MAX_GRANTS, MAX_LEASE_SECS, MAX_NAME_BYTES, MAX_RESOURCE_SERVERS, is_name,
};

/// The format this build reads and writes.
const VERSION: u64 = 1;
const VERSION_FIELD: &str = "obol_session";

/// The half of a session that mints. Holds keys, which are wiped when it is dropped.
pub struct AgentHalf {
    /// The session's number.
    pub session_id: SessionId,
    /// The suite that was negotiated.
    pub suite: Suite,
    /// Who may use the tokens.
    pub agent: AgentIdentity,
    /// The organisation that owns the session.
    pub org_id: String,
    /// When the session was made, in Unix seconds.
    pub established_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The policy that the grants follow from.
    pub policy_epoch: u64,
    /// For how many seconds tokens are handed out while the service that opened it is not heard; without, to its end.
    pub lease_secs: Option<u64>,
    /// What proofs of possession are made with.
    pub pop_key: Option<PopKey>,
    /// The keys shared with each resource server.
    pub resource_servers: Vec<ServerKeys>,
    /// What may be minted; each for one of the resource servers. A tool has one grant at most that is minted ahead, at each.
    pub grants: Vec<Grant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "obol_session")]
    _version: u64,
    session_id: SessionId,
    suite: u8,
    agent_instance_id: String,
    org_id: String,
    iss: String,
    sub: String,
    established_at: u64,
    expires_at: u64,
    policy_epoch: u64,
    #[serde(default)]
    lease_secs: Option<u64>,
    #[serde(default)]
    pop_key: Option<PopKey>,
    resource_servers: Vec<ServerKeys>,
    grants: Vec<Grant>,
}

#[derive(Deserialize)]
struct VersionOnly {
    obol_session: u64,
}

impl AgentHalf {
    /// Reads and checks a document.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], which names the field and repeats no key.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLong(MAX_DOCUMENT_BYTES));
        }
        // The version first: a newer document may have fields that would only confuse.
        let version: VersionOnly = json::parse(text)?;
        if version.obol_session != VERSION {
            return Err(DocumentError::Version(VERSION_FIELD, version.obol_session));
        }
        let document: Document = json::parse(text)?;
        let Some(suite) = Suite::from_number(document.suite) else {
            return refuse("suite", format!("suite {} is not supported", document.suite));
        };
        let half = Self {
            session_id: document.session_id,
            suite,
            agent: AgentIdentity {
                agent_instance_id: document.agent_instance_id,
                iss: document.iss,
                sub: document.sub,
            },
            org_id: document.org_id,
            established_at: document.established_at,
            expires_at: document.expires_at,
            policy_epoch: document.policy_epoch,
            lease_secs: document.lease_secs,
            pop_key: document.pop_key,
            resource_servers: document.resource_servers,
            grants: document.grants,
        };
        half.check()?;
        Ok(half)
    }

    /// The document that [`from_json`](Self::from_json) reads, on one line.
    pub fn to_json(&self) -> Wiped {
        let mut text = Wiped::default();
        // Memory takes everything, and nothing here fails to be written.
        let _written = serde_json::to_writer(&mut text, self);
        text
    }

    /// The document on lines, for a file that people look at.
    pub fn to_json_lines(&self) -> Wiped {
        let mut text = Wiped::default();
        let _written = serde_json::to_writer_pretty(&mut text, self);
        text.append(b"\n");
        text
    }

    /// The session's number.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// How many grants the document holds, those included that nothing is minted ahead for.
    pub fn grants(&self) -> usize {
        self.grants.len()
    }

    /// Checks the rules that hold for a session made by hand as well as for one that was read.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Rule`].
    pub fn check(&self) -> Result<(), DocumentError> {
        if !is_name(&self.agent.agent_instance_id) {
            return refuse(
                "agent_instance_id",
                format!("agent_instance_id must be 1 to {MAX_NAME_BYTES} bytes of visible ASCII"),
            );
        }
        if self.expires_at <= self.established_at {
            return refuse("expires_at", "expires_at must lie after established_at");
        }
        if self.lease_secs.is_some_and(|secs| secs == 0 || secs > MAX_LEASE_SECS) {
            return refuse("lease_secs", format!("lease_secs must be 1 to {MAX_LEASE_SECS} seconds"));
        }
        if self.grants.is_empty() || self.grants.len() > MAX_GRANTS {
            return refuse("grants", format!("it must hold 1 to {MAX_GRANTS} grants"));
        }
        if self.resource_servers.is_empty() || self.resource_servers.len() > MAX_RESOURCE_SERVERS {
            return refuse(
                "resource_servers",
                format!("it must hold 1 to {MAX_RESOURCE_SERVERS} resource_servers"),
            );
        }
        let servers = self.check_servers()?;
        self.check_grants(&servers)
    }

    fn check_servers(&self) -> Result<BTreeSet<&str>, DocumentError> {
        let mut servers = BTreeSet::new();
        for (index, server) in self.resource_servers.iter().enumerate() {
            let field = format!("resource_servers[{index}]");
            server.check(&field)?;
            if !servers.insert(server.aud.as_str()) {
                return refuse(
                    format!("{field}.aud"),
                    format!("resource server {:?} is listed twice", server.aud),
                );
            }
        }
        Ok(servers)
    }

    fn check_grants(&self, servers: &BTreeSet<&str>) -> Result<(), DocumentError> {
        let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (index, grant) in self.grants.iter().enumerate() {
            let field = format!("grants[{index}]");
            let (tool, aud) = (grant.tool.as_str(), grant.aud.as_str());
            // Beside it there may be stronger ones that a human is asked about.
            if !grant.is_per_call() && !seen.entry(tool).or_default().insert(aud) {
                return refuse(field, format!("tool {tool:?} is granted twice for {aud:?}"));
            }
            if !servers.contains(aud) {
                return refuse(
                    format!("{field}.aud"),
                    format!("tool {tool:?} names {aud:?}, which is not one of the resource_servers"),
                );
            }
            grant.check_minted_ahead(&field)?;
            if let Err(error) = grant.scope(&self.agent, &self.org_id).to_tlv() {
                return refuse(field, format!("tool {tool:?}: {error}"));
            }
        }
        Ok(())
    }
}

impl Serialize for AgentHalf {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let fields = 12 + usize::from(self.pop_key.is_some()) + usize::from(self.lease_secs.is_some());
        let mut object = to.serialize_struct("AgentHalf", fields)?;
        object.serialize_field(VERSION_FIELD, &VERSION)?;
        object.serialize_field("session_id", &self.session_id)?;
        object.serialize_field("suite", &self.suite.number())?;
        object.serialize_field("agent_instance_id", &self.agent.agent_instance_id)?;
        object.serialize_field("org_id", &self.org_id)?;
        object.serialize_field("iss", &self.agent.iss)?;
        object.serialize_field("sub", &self.agent.sub)?;
        object.serialize_field("established_at", &self.established_at)?;
        object.serialize_field("expires_at", &self.expires_at)?;
        object.serialize_field("policy_epoch", &self.policy_epoch)?;
        if let Some(secs) = &self.lease_secs {
            object.serialize_field("lease_secs", secs)?;
        }
        if let Some(key) = &self.pop_key {
            object.serialize_field("pop_key", &Hex(key.expose()))?;
        }
        object.serialize_field("resource_servers", &self.resource_servers)?;
        object.serialize_field("grants", &self.grants)?;
        object.end()
    }
}

impl fmt::Debug for AgentHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHalf")
            .field("session_id", &self.session_id)
            .field("agent_instance_id", &self.agent.agent_instance_id)
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEFAULT_TTL_SECS;
    use serde_json::{Value, json};

    fn document() -> Value {
        let key = "11".repeat(32);
        json!({
            "obol_session": 1, "session_id": "0000000000000007", "suite": 1,
            "agent_instance_id": "agent-1", "org_id": "example", "iss": "auth", "sub": "key",
            "established_at": 1000, "expires_at": 2000, "policy_epoch": 1,
            "resource_servers": [{"aud": "https://api", "K_session": key, "verifier_secret": key,
                                  "mutual_auth": key, "SEK_PK": key}],
            "grants": [{"tool": "search", "aud": "https://api", "action": "read", "resource": "**"}],
        })
    }

    fn read(document: &Value) -> Result<AgentHalf, DocumentError> {
        AgentHalf::from_json(document.to_string().as_bytes())
    }

    #[test]
    fn a_document_is_read_with_its_defaults() {
        let session = read(&document()).unwrap();
        assert_eq!(session.grants.len(), 1);
        assert_eq!(session.grants[0].ttl, DEFAULT_TTL_SECS);
        assert_eq!(session.grants[0].scope(&session.agent, &session.org_id).org_id, "example");
        assert!(session.pop_key.is_none());
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let mut full = document();
        full["pop_key"] = json!("22".repeat(32));
        full["lease_secs"] = json!(300);
        full["grants"][0] = json!({
            "tool": "search", "aud": "https://api", "action": ["read", "list"], "resource": "docs/**",
            "constraints": {"max_rows": 5, "allowed_parameters": {"q": "*"}}, "delegation_depth": 1,
            "require_pop": true, "trust_level": 2, "purpose": "support", "ttl": 30,
        });
        for document in [document(), full] {
            let half = read(&document).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&half.to_json()).unwrap(), document);
            assert_eq!(serde_json::from_slice::<Value>(&half.to_json_lines()).unwrap(), document);
            assert!(half.to_json().len() <= document.to_string().len());
        }
    }

    #[test]
    fn a_name_twice_and_a_list_for_an_object_are_refused_at_every_level() {
        let text = document().to_string();
        let twice = |name: &str| text.replacen(name, &format!("{name}\"x\",{name}"), 1);
        for name in ["\"org_id\":", "\"aud\":", "\"tool\":", "\"K_session\":"] {
            let error = AgentHalf::from_json(twice(name).as_bytes()).unwrap_err().to_string();
            assert!(error.contains("duplicate field"), "{name}: {error}");
        }
        let mut limits = document();
        limits["grants"][0]["constraints"] = json!({"allowed_parameters": {"path": "/a", "q": "x"}});
        let text = limits.to_string().replace("\"q\":\"x\"", "\"path\":\"**\"");
        let error = AgentHalf::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("duplicate field"), "{error}");
        for place in ["/resource_servers/0", "/grants/0"] {
            let mut listed = document();
            let fields = listed.pointer(place).unwrap().as_object().unwrap().values().cloned().collect();
            *listed.pointer_mut(place).unwrap() = Value::Array(fields);
            let error = read(&listed).unwrap_err().to_string();
            assert!(error.contains("expected an object"), "{place}: {error}");
        }
    }

    #[test]
    fn each_wrong_field_is_refused_with_a_reason() {
        let cases: &[(&str, Value, &str)] = &[
            ("/obol_session", json!(2), "obol_session is 2"),
            ("/suite", json!(9), "suite 9"),
            ("/session_id", json!("7"), "16 lower-case hex digits"),
            ("/agent_instance_id", json!(""), "agent_instance_id must be"),
            ("/resource_servers/0/aud", json!("a\nb"), "without control characters"),
            ("/expires_at", json!(1000), "expires_at must lie after"),
            ("/lease_secs", json!(0), "lease_secs must be 1 to 900"),
            ("/lease_secs", json!(901), "lease_secs must be 1 to 900"),
            ("/grants", json!([]), "1 to 4096 grants"),
            ("/resource_servers/0/K_session", json!("zz"), "64 lower-case hex digits"),
            ("/grants/0/tool", json!("two words"), "visible ASCII"),
            ("/grants/0/tool", json!(""), "visible ASCII"),
            ("/grants/0/ttl", json!(0), "ttl must be"),
            ("/grants/0/trust_level", json!(3), "cannot be minted ahead"),
            ("/grants/0/constraints", json!({"max_calls": 2}), "max_calls must be 1"),
            ("/grants/0/constraints", json!({"max_cells": 2}), "there is no constraint `max_cells`"),
            ("/grants/0/aud", json!("https://other"), "not one of the resource_servers"),
            ("/grants/0/resource", json!(""), "resource is empty"),
        ];
        for (place, value, reason) in cases {
            let mut document = document();
            match document.pointer_mut(place) {
                Some(field) => *field = value.clone(),
                None => {
                    let (parent, name) = place.rsplit_once('/').unwrap();
                    document.pointer_mut(parent).unwrap()[name] = value.clone();
                }
            }
            let error = read(&document).unwrap_err().to_string();
            assert!(error.contains(reason), "{place}: {error}");
        }
    }

    #[test]
    fn no_refusal_repeats_a_key() {
        let secret = "abcd".repeat(16) + "0";
        let mut document = document();
        document["resource_servers"][0]["K_session"] = json!(secret);
        assert!(!read(&document).unwrap_err().to_string().contains("abcd"));
    }

    #[test]
    fn no_refusal_repeats_a_key_that_stands_in_the_wrong_place() {
        let secret = "0123456789abcdef".repeat(4);
        for place in ["obol_session", "suite", "grants", "expires_at", "agent_instance_id", &secret] {
            let mut document = document();
            document[place] = json!(secret);
            // Without this, the agent's instance would be a name like any other.
            document["expires"] = json!(secret);
            let error = read(&document).unwrap_err().to_string();
            assert!(!error.contains(&secret[..32]), "{place}: {error}");
        }
        for place in ["tool", "aud"] {
            let mut document = document();
            document["grants"][0][place] = json!(secret);
            document["grants"][0]["ttl"] = json!(0);
            let error = read(&document).unwrap_err().to_string();
            assert!(!error.contains(&secret[..32]), "{place}: {error}");
        }
    }

    #[test]
    fn duplicates_and_unknown_fields_are_refused() {
        let mut twice = document();
        let grant = twice["grants"][0].clone();
        twice["grants"].as_array_mut().unwrap().push(grant);
        assert!(read(&twice).unwrap_err().to_string().contains("granted twice"));
        let mut unknown = document();
        unknown["expires"] = json!(5);
        assert!(read(&unknown).unwrap_err().to_string().contains("expires: expected one of"));
    }
}
