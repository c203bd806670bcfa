//! The session document: what the Authentication Service hands to a queue so that it may mint.
//!
//! JSON, strict: an unknown field is an error, and no message repeats a key.
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
//!   "resource_servers": [
//!     {"aud": "https://api.example", "K_session": "<64 hex>", "verifier_secret": "<64 hex>",
//!      "mutual_auth": "<64 hex>", "SEK_PK": "<64 hex>"}
//!   ],
//!   "grants": [
//!     {"tool": "search", "aud": "https://api.example", "action": "read", "resource": "docs/**", "ttl": 60}
//!   ]
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use obol_token::{
    Audience, Constraints, MutualAuth, Scope, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret,
};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The longest session document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// The most grants in one session.
pub const MAX_GRANTS: usize = 4096;
/// The most resource servers in one session.
pub const MAX_RESOURCE_SERVERS: usize = 256;
/// The longest tool name and agent instance id, in bytes of visible ASCII.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest audience, in bytes without control characters.
pub const MAX_AUDIENCE_BYTES: usize = 2048;
/// A token's life where the grant does not say, in seconds.
pub const DEFAULT_TTL_SECS: u64 = 60;
/// The longest life a token may have, in seconds.
pub const MAX_TTL_SECS: u64 = 3600;

/// A checked session document. Holds the keys to mint with; wiped when dropped.
pub struct SessionDocument {
    /// The text as it came: what is sealed into the store.
    pub(crate) text: Zeroizing<Vec<u8>>,
    pub(crate) session_id: SessionId,
    pub(crate) suite: Suite,
    pub(crate) agent_instance_id: String,
    pub(crate) established_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) grants: Vec<Grant>,
}

/// The right to mint tokens of one scope for one resource server: the first state of a token.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    pub(crate) audience: Audience,
    pub(crate) material: Arc<SessionMaterial>,
    /// Life of a token, in seconds.
    pub(crate) ttl: u64,
}

impl Grant {
    /// Whether its tokens ask for calls and answers to be sealed.
    pub(crate) fn asks_for_channel(&self) -> bool {
        self.scope.constraints.as_ref().is_some_and(|limits| limits.require_channel_encryption == Some(true))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    obol_session: u32,
    session_id: SessionId,
    suite: u8,
    agent_instance_id: String,
    org_id: String,
    iss: String,
    sub: String,
    established_at: u64,
    expires_at: u64,
    policy_epoch: u64,
    resource_servers: Vec<ResourceServer>,
    grants: Vec<GrantEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceServer {
    aud: String,
    #[serde(rename = "K_session")]
    session_key: SessionKey,
    verifier_secret: VerifierSecret,
    mutual_auth: MutualAuth,
    #[serde(rename = "SEK_PK", with = "obol_token::text::hex_array")]
    sek_public: [u8; 32],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantEntry {
    tool: String,
    aud: String,
    action: OneOrMany,
    resource: String,
    constraints: Option<Constraints>,
    #[serde(default)]
    delegation_depth: u64,
    #[serde(default)]
    require_pop: bool,
    #[serde(default)]
    trust_level: u64,
    purpose: Option<String>,
    #[serde(default = "default_ttl")]
    ttl: u64,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn default_ttl() -> u64 {
    DEFAULT_TTL_SECS
}

/// Why a session document was refused. Repeats names, and nothing that could be a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentError(String);

/// So many hex digits in a row may be a key, or half of one that was cut in two.
const KEY_LIKE_DIGITS: usize = 32;

impl DocumentError {
    /// Messages repeat what was found, and a key may stand in the wrong place: its digits are left out.
    fn new(message: &str) -> Self {
        let mut shown = String::with_capacity(message.len());
        for part in message.split_inclusive(|letter: char| !letter.is_ascii_hexdigit()) {
            let digits = part.trim_end_matches(|letter: char| !letter.is_ascii_hexdigit());
            if digits.len() < KEY_LIKE_DIGITS {
                shown.push_str(part);
            } else {
                shown.push_str("(not shown)");
                shown.push_str(part.get(digits.len()..).unwrap_or_default());
            }
        }
        Self(shown)
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session document is not valid: {}", self.0)
    }
}

impl core::error::Error for DocumentError {}

fn refuse<T>(what: impl AsRef<str>) -> Result<T, DocumentError> {
    Err(DocumentError::new(what.as_ref()))
}

impl SessionDocument {
    /// Reads and checks a document.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return refuse(format!("it is longer than {MAX_DOCUMENT_BYTES} bytes"));
        }
        let document: Document =
            serde_json::from_slice(text).map_err(|error| DocumentError::new(&error.to_string()))?;
        document.check()?;
        let suite = Suite::from_number(document.suite)
            .ok_or_else(|| DocumentError::new(&format!("suite {} is not supported", document.suite)))?;
        let session_id = document.session_id;
        let agent_instance_id = document.agent_instance_id.clone();
        let (established_at, expires_at) = (document.established_at, document.expires_at);
        let policy_epoch = document.policy_epoch;
        let grants = document.into_grants(suite)?;
        let text = Zeroizing::new(text.to_vec());
        Ok(Self {
            text,
            session_id,
            suite,
            agent_instance_id,
            established_at,
            expires_at,
            policy_epoch,
            grants,
        })
    }

    /// The session's number.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// How many grants the document holds.
    pub fn grants(&self) -> usize {
        self.grants.len()
    }
}

impl fmt::Debug for SessionDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDocument")
            .field("session_id", &self.session_id)
            .field("agent_instance_id", &self.agent_instance_id)
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

impl Document {
    fn check(&self) -> Result<(), DocumentError> {
        if self.obol_session != 1 {
            return refuse(format!("obol_session is {}, this build reads 1", self.obol_session));
        }
        if !is_name(&self.agent_instance_id) {
            return refuse(format!("agent_instance_id must be 1 to {MAX_NAME_BYTES} bytes of visible ASCII"));
        }
        if self.expires_at <= self.established_at {
            return refuse("expires_at must lie after established_at");
        }
        if self.grants.is_empty() || self.grants.len() > MAX_GRANTS {
            return refuse(format!("it must hold 1 to {MAX_GRANTS} grants"));
        }
        if self.resource_servers.is_empty() || self.resource_servers.len() > MAX_RESOURCE_SERVERS {
            return refuse(format!("it must hold 1 to {MAX_RESOURCE_SERVERS} resource_servers"));
        }
        Ok(())
    }

    fn into_grants(self, suite: Suite) -> Result<Vec<Grant>, DocumentError> {
        let mut servers = BTreeMap::new();
        for server in self.resource_servers {
            if !(1..=MAX_AUDIENCE_BYTES).contains(&server.aud.len()) || server.aud.contains(char::is_control)
            {
                return refuse(format!(
                    "aud must be 1 to {MAX_AUDIENCE_BYTES} bytes without control characters"
                ));
            }
            let audience = Audience::new(server.aud);
            let material = Arc::new(SessionMaterial::new(
                self.session_id,
                suite,
                server.session_key,
                server.verifier_secret,
                server.mutual_auth,
                server.sek_public,
            ));
            let name = audience.uri().to_owned();
            if servers.insert(name.clone(), (audience, material)).is_some() {
                return refuse(format!("resource server {name:?} is listed twice"));
            }
        }
        let mut seen = BTreeSet::new();
        let mut grants = Vec::with_capacity(self.grants.len());
        for entry in self.grants {
            if !seen.insert((entry.tool.clone(), entry.aud.clone())) {
                return refuse(format!("tool {:?} is granted twice for {:?}", entry.tool, entry.aud));
            }
            let Some((audience, material)) = servers.get(&entry.aud) else {
                return refuse(format!(
                    "tool {:?} names {:?}, which is no resource server",
                    entry.tool, entry.aud
                ));
            };
            let ttl = entry.check()?;
            let scope = Scope {
                iss: self.iss.clone(),
                sub: self.sub.clone(),
                agent_instance_id: self.agent_instance_id.clone(),
                org_id: self.org_id.clone(),
                ..entry.into_scope()
            };
            scope.to_tlv().map_err(|error| DocumentError::new(&format!("tool {:?}: {error}", scope.tool)))?;
            grants.push(Grant { scope, audience: audience.clone(), material: Arc::clone(material), ttl });
        }
        Ok(grants)
    }
}

impl GrantEntry {
    /// Checks what only minting ahead restricts, and gives the life of a token back.
    fn check(&self) -> Result<u64, DocumentError> {
        if !is_name(&self.tool) {
            return refuse(format!("a tool name must be 1 to {MAX_NAME_BYTES} bytes of visible ASCII"));
        }
        if self.ttl == 0 || self.ttl > MAX_TTL_SECS {
            return refuse(format!("tool {:?}: ttl must be 1 to {MAX_TTL_SECS} seconds", self.tool));
        }
        if self.trust_level > 2 {
            return refuse(format!(
                "tool {:?}: trust level 3 needs a human's approval of each call and cannot be minted ahead",
                self.tool
            ));
        }
        match self.constraints.as_ref().and_then(|constraints| constraints.max_calls) {
            None | Some(1) => Ok(self.ttl),
            Some(_) => refuse(format!("tool {:?}: max_calls must be 1, tokens are single-use", self.tool)),
        }
    }

    fn into_scope(self) -> Scope {
        Scope {
            iss: String::new(),
            sub: String::new(),
            agent_instance_id: String::new(),
            org_id: String::new(),
            tool: self.tool,
            action: match self.action {
                OneOrMany::One(one) => vec![one],
                OneOrMany::Many(many) => many,
            },
            resource: self.resource,
            constraints: self.constraints,
            delegation_depth: self.delegation_depth,
            parent_token_hash: None,
            require_pop: self.require_pop,
            aud: self.aud,
            trust_level: self.trust_level,
            human_confirmed_at: 0,
            approval_digest: None,
            purpose: self.purpose,
            txn_id: None,
            user_raw_intent: None,
            intent_hash: None,
        }
    }
}

/// Whether this can be the name of a tool or of an agent instance: 1 to [`MAX_NAME_BYTES`] bytes of visible ASCII.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn read(document: &Value) -> Result<SessionDocument, DocumentError> {
        SessionDocument::from_json(document.to_string().as_bytes())
    }

    #[test]
    fn a_document_is_read_with_its_defaults() {
        let session = read(&document()).unwrap();
        assert_eq!(session.grants.len(), 1);
        assert_eq!(session.grants[0].ttl, DEFAULT_TTL_SECS);
        assert_eq!(session.grants[0].scope.org_id, "example");
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
            ("/grants", json!([]), "1 to 4096 grants"),
            ("/resource_servers/0/K_session", json!("zz"), "64 lower-case hex digits"),
            ("/grants/0/tool", json!("two words"), "visible ASCII"),
            ("/grants/0/tool", json!(""), "visible ASCII"),
            ("/grants/0/ttl", json!(0), "ttl must be"),
            ("/grants/0/trust_level", json!(3), "cannot be minted ahead"),
            ("/grants/0/constraints", json!({"max_calls": 2}), "max_calls must be 1"),
            ("/grants/0/constraints", json!({"max_cells": 2}), "unknown constraint `max_cells`"),
            ("/grants/0/aud", json!("https://other"), "no resource server"),
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
        assert!(read(&unknown).unwrap_err().to_string().contains("unknown field `expires`"));
    }
}
