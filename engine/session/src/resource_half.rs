//! The resource server's half: what tokens of a session are verified by. A file holds a list of them.
//!
//! ```json
//! {"obol_rs_sessions": 1, "sessions": [{
//!   "session_id": "00000000deadbeef", "suite": 1, "aud": "https://api.example",
//!   "K_session": "<64 hex>", "verifier_secret": "<64 hex>", "mutual_auth": "<64 hex>", "SEK_PK": "<64 hex>",
//!   "org_id": "example", "status": "active", "window": {"start": 1780000000, "end": 1780003600}, "policy_epoch": 1,
//!   "nonces": "any", "pop_pub": "<64 hex>",
//!   "agent_instance_id": "agent-1", "iss": "https://auth.example", "sub": "IK:2f9c…",
//!   "grants": [{"tool": "search", "aud": "https://api.example", "action": "read", "resource": "docs/**", "ttl": 60}]
//! }]}
//! ```
//!
//! The agent's three names stand together or not at all, and `grants` stand only beside them. Where there are grants, they
//! are the most that tokens of the session may allow. `status`, `policy_epoch`, `nonces` and `pop_pub` may be left out.

use core::fmt;
use std::collections::{BTreeSet, HashSet};

use obol_secret::json;
use obol_secret::text::{hex_array, hex_option};
use obol_secret::wipe::Wiped;
use obol_token::{MutualAuth, Nonces, SessionId, SessionKey, Suite, VerifierSecret};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{DocumentError, refuse};
use crate::grant::{AgentIdentity, Grant};
use crate::keys::{Hex, ServerKeys, is_pop_pub};
use crate::limits::{MAX_GRANTS, MAX_LIST_BYTES, MAX_NAME_BYTES, is_name};

/// The format this build reads and writes.
const VERSION: u64 = 1;
const VERSION_FIELD: &str = "obol_rs_sessions";
/// Fields of one half; in JSON an object is as long as what is written.
const MOST_FIELDS: usize = 17;

/// When tokens of a session may be issued and accepted: both in Unix seconds, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The session's start.
    pub start: u64,
    /// The session's end.
    pub end: u64,
}

/// The half of a session that verifies, at one resource server. Holds keys, which are wiped when it is dropped.
pub struct ResourceHalf {
    /// The session's number.
    pub session_id: SessionId,
    /// The suite that was negotiated.
    pub suite: Suite,
    /// The resource server and the keys shared with it.
    pub keys: ServerKeys,
    /// The organisation that owns the session.
    pub org_id: String,
    /// Whether the session was ended.
    pub revoked: bool,
    /// When tokens may be issued and accepted.
    pub window: Window,
    /// The oldest policy epoch that is accepted.
    pub policy_epoch: u64,
    /// How suite 1's minter chooses its nonces.
    pub nonces: Nonces,
    /// The Ed25519 public key that proofs of possession are checked with.
    pub pop_pub: Option<[u8; 32]>,
    /// Who may use the session's tokens.
    pub agent: Option<AgentIdentity>,
    /// The most that tokens of the session may allow; `None` where the half does not say.
    pub grants: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
struct VersionOnly {
    obol_rs_sessions: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "obol_rs_sessions")]
    version: u64,
    sessions: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    session_id: SessionId,
    suite: u8,
    aud: String,
    #[serde(rename = "K_session")]
    session_key: SessionKey,
    verifier_secret: VerifierSecret,
    mutual_auth: MutualAuth,
    #[serde(rename = "SEK_PK", with = "hex_array")]
    sek_public: [u8; 32],
    org_id: String,
    #[serde(default)]
    status: Status,
    window: Window,
    #[serde(default)]
    policy_epoch: u64,
    #[serde(default, with = "hex_option")]
    pop_pub: Option<[u8; 32]>,
    #[serde(default)]
    nonces: NoncesEntry,
    #[serde(default)]
    agent_instance_id: Option<String>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    grants: Option<Vec<Grant>>,
}

#[derive(Serialize, Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum NoncesEntry {
    #[default]
    Any,
    Derived,
}

#[derive(Serialize, Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Active,
    Revoked,
}

/// Reads a document once, as there may be a hundred thousand of them. Only where something is wrong the version counts first:
/// a newer document may have fields that would only confuse.
fn read(text: &[u8]) -> Result<Document, DocumentError> {
    let read = json::parse::<Document>(text);
    let version = match &read {
        Ok(document) => document.version,
        Err(_) => json::parse::<VersionOnly>(text)?.obol_rs_sessions,
    };
    match version {
        VERSION => Ok(read?),
        other => Err(DocumentError::Version(VERSION_FIELD, other)),
    }
}

impl ResourceHalf {
    /// Reads and checks a document that lists halves.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], which names the field and repeats no key.
    pub fn list_from_json(text: &[u8]) -> Result<Vec<Self>, DocumentError> {
        if text.len() > MAX_LIST_BYTES {
            return Err(DocumentError::TooLong(MAX_LIST_BYTES));
        }
        let document = read(text)?;
        let mut seen = HashSet::new();
        let mut halves = Vec::with_capacity(document.sessions.len());
        for (index, entry) in document.sessions.into_iter().enumerate() {
            let field = format!("sessions[{index}]");
            if !seen.insert(entry.session_id) {
                return refuse(format!("{field}.session_id"), "an earlier entry has the same number");
            }
            halves.push(entry.into_half(&field)?);
        }
        Ok(halves)
    }

    /// Reads and checks a document that lists one half.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], also where there is none or more than one.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        let mut halves = Self::list_from_json(text)?;
        match (halves.pop(), halves.is_empty()) {
            (Some(half), true) => Ok(half),
            _ => refuse("sessions", "it must list one session"),
        }
    }

    /// The document that [`from_json`](Self::from_json) reads, on one line.
    pub fn to_json(&self) -> Wiped {
        let mut text = Wiped::default();
        // Memory takes everything, and nothing here fails to be written.
        let _written = serde_json::to_writer(&mut text, &List::of(core::slice::from_ref(self)));
        text
    }

    /// The document that lists these halves, on lines, for a file that people look at.
    pub fn list_to_json_lines(halves: &[Self]) -> Wiped {
        let mut text = Wiped::default();
        let _written = serde_json::to_writer_pretty(&mut text, &List::of(halves));
        text.append(b"\n");
        text
    }

    /// Checks the rules that hold for a half made by hand as well as for one that was read.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Rule`].
    pub fn check(&self) -> Result<(), DocumentError> {
        self.check_at("sessions[0]")
    }

    fn check_at(&self, field: &str) -> Result<(), DocumentError> {
        self.keys.check(field)?;
        if self.org_id.is_empty() {
            return refuse(format!("{field}.org_id"), "must not be empty");
        }
        if self.window.end < self.window.start {
            return refuse(format!("{field}.window"), "ends before it starts");
        }
        if self.pop_pub.as_ref().is_some_and(|public| !is_pop_pub(public)) {
            return refuse(format!("{field}.pop_pub"), "is not a usable Ed25519 public key");
        }
        if let Some(agent) = &self.agent {
            check_agent(agent, field)?;
        }
        match &self.grants {
            None => Ok(()),
            Some(_) if self.agent.is_none() => refuse(
                format!("{field}.grants"),
                "grants are for an agent: agent_instance_id, iss and sub are missing",
            ),
            Some(grants) => self.check_grants(grants, field),
        }
    }

    fn check_grants(&self, grants: &[Grant], field: &str) -> Result<(), DocumentError> {
        if grants.len() > MAX_GRANTS {
            return refuse(format!("{field}.grants"), format!("it must hold at most {MAX_GRANTS} grants"));
        }
        let mut tools = BTreeSet::new();
        for (index, grant) in grants.iter().enumerate() {
            let field = format!("{field}.grants[{index}]");
            grant.check(&field)?;
            if grant.aud != self.keys.aud {
                return refuse(format!("{field}.aud"), "a grant for another resource server");
            }
            if !grant.is_per_call() && !tools.insert(grant.tool.as_str()) {
                return refuse(format!("{field}.tool"), format!("tool {:?} is granted twice", grant.tool));
            }
        }
        Ok(())
    }
}

fn check_agent(agent: &AgentIdentity, field: &str) -> Result<(), DocumentError> {
    if !is_name(&agent.agent_instance_id) {
        return refuse(
            format!("{field}.agent_instance_id"),
            format!("must be 1 to {MAX_NAME_BYTES} bytes of visible ASCII"),
        );
    }
    for (name, value) in [("iss", &agent.iss), ("sub", &agent.sub)] {
        if value.is_empty() {
            return refuse(format!("{field}.{name}"), "must not be empty");
        }
    }
    Ok(())
}

impl Entry {
    fn into_half(self, field: &str) -> Result<ResourceHalf, DocumentError> {
        let Some(suite) = Suite::from_number(self.suite) else {
            return refuse(format!("{field}.suite"), "this build has no suite of this number");
        };
        let agent = match (self.agent_instance_id, self.iss, self.sub) {
            (Some(agent_instance_id), Some(iss), Some(sub)) => {
                Some(AgentIdentity { agent_instance_id, iss, sub })
            }
            (None, None, None) => None,
            _ => return refuse(field, "agent_instance_id, iss and sub stand together or not at all"),
        };
        let half = ResourceHalf {
            session_id: self.session_id,
            suite,
            keys: ServerKeys {
                aud: self.aud,
                session_key: self.session_key,
                verifier_secret: self.verifier_secret,
                mutual_auth: self.mutual_auth,
                sek_public: self.sek_public,
            },
            org_id: self.org_id,
            revoked: matches!(self.status, Status::Revoked),
            window: self.window,
            policy_epoch: self.policy_epoch,
            nonces: match self.nonces {
                NoncesEntry::Any => Nonces::Any,
                NoncesEntry::Derived => Nonces::Derived,
            },
            pop_pub: self.pop_pub,
            agent,
            grants: self.grants,
        };
        half.check_at(field)?;
        Ok(half)
    }
}

/// A document that lists halves.
#[derive(Serialize)]
struct List<'a> {
    obol_rs_sessions: u64,
    sessions: &'a [ResourceHalf],
}

impl<'a> List<'a> {
    fn of(sessions: &'a [ResourceHalf]) -> Self {
        Self { obol_rs_sessions: VERSION, sessions }
    }
}

impl Serialize for ResourceHalf {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("ResourceHalf", MOST_FIELDS)?;
        self.keys.write(&mut object)?;
        object.serialize_field("session_id", &self.session_id)?;
        object.serialize_field("suite", &self.suite.number())?;
        object.serialize_field("org_id", &self.org_id)?;
        if self.revoked {
            object.serialize_field("status", &Status::Revoked)?;
        }
        object.serialize_field("window", &self.window)?;
        object.serialize_field("policy_epoch", &self.policy_epoch)?;
        if self.nonces == Nonces::Derived {
            object.serialize_field("nonces", &NoncesEntry::Derived)?;
        }
        if let Some(public) = &self.pop_pub {
            object.serialize_field("pop_pub", &Hex(public))?;
        }
        if let Some(agent) = &self.agent {
            object.serialize_field("agent_instance_id", &agent.agent_instance_id)?;
            object.serialize_field("iss", &agent.iss)?;
            object.serialize_field("sub", &agent.sub)?;
        }
        if let Some(grants) = &self.grants {
            object.serialize_field("grants", grants)?;
        }
        object.end()
    }
}

impl fmt::Debug for ResourceHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceHalf")
            .field("session_id", &self.session_id)
            .field("aud", &self.keys.aud)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PopKey;
    use obol_secret::text::to_hex;
    use serde_json::{Value, json};

    const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

    fn document() -> Value {
        json!({"obol_rs_sessions": 1, "sessions": [{
            "session_id": "00000000deadbeef", "suite": 1, "aud": "https://rs", "K_session": SECRET,
            "verifier_secret": SECRET, "mutual_auth": SECRET, "SEK_PK": SECRET, "org_id": "org",
            "status": "active", "window": {"start": 1, "end": 2}, "policy_epoch": 7
        }]})
    }

    fn error_with(change: impl FnOnce(&mut Value)) -> String {
        let mut document = document();
        change(&mut document);
        ResourceHalf::list_from_json(document.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_session_reads_as_written() {
        let mut document = document();
        document["sessions"][0]["status"] = json!("revoked");
        document["sessions"][0]["nonces"] = json!("derived");
        let sessions = ResourceHalf::list_from_json(document.to_string().as_bytes()).unwrap();
        let [half] = sessions.as_slice() else { panic!("one session") };
        assert_eq!(
            (half.session_id, half.keys.aud.as_str()),
            (SessionId::from_u64(0xDEAD_BEEF), "https://rs")
        );
        assert_eq!((half.org_id.as_str(), half.policy_epoch), ("org", 7));
        assert_eq!(half.window, Window { start: 1, end: 2 });
        assert_eq!((half.revoked, half.nonces), (true, Nonces::Derived));
        assert!(half.agent.is_none() && half.grants.is_none() && half.pop_pub.is_none());
    }

    fn full() -> Value {
        let mut document = document();
        let entry = document["sessions"][0].as_object_mut().unwrap();
        entry.remove("status");
        entry.insert("pop_pub".to_owned(), json!(to_hex(&PopKey::from_bytes([7; 32]).public())));
        entry.insert("nonces".to_owned(), json!("derived"));
        entry.insert("agent_instance_id".to_owned(), json!("agent-1"));
        entry.insert("iss".to_owned(), json!("auth"));
        entry.insert("sub".to_owned(), json!("key"));
        entry.insert(
            "grants".to_owned(),
            json!([{"tool": "search", "aud": "https://rs", "action": "read", "resource": "docs/**",
                    "constraints": {"max_rows": 5}, "require_pop": true, "ttl": 30}]),
        );
        document
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let mut ended = document();
        ended["sessions"][0]["status"] = json!("revoked");
        for document in [full(), ended] {
            let halves = ResourceHalf::list_from_json(document.to_string().as_bytes()).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&halves[0].to_json()).unwrap(), document);
            let lines = ResourceHalf::list_to_json_lines(&halves);
            assert_eq!(serde_json::from_slice::<Value>(&lines).unwrap(), document);
            assert!(ResourceHalf::from_json(&lines).is_ok());
        }
    }

    #[test]
    fn grants_are_for_a_named_agent_and_for_this_server() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 8] = [
            ("stand together", |e| drop(e.as_object_mut().unwrap().remove("sub"))),
            ("sessions[0].iss: must not", |e| e["iss"] = json!("")),
            ("sessions[0].agent_instance_id: must be", |e| e["agent_instance_id"] = json!("two words")),
            ("sessions[0].grants: grants are for an agent", |e| {
                for name in ["agent_instance_id", "iss", "sub"] {
                    e.as_object_mut().unwrap().remove(name);
                }
            }),
            ("sessions[0].grants[0].aud: a grant for another", |e| {
                e["grants"][0]["aud"] = json!("https://b");
            }),
            ("sessions[0].grants[0].ttl: ", |e| e["grants"][0]["ttl"] = json!(0)),
            ("sessions[0].grants[1].tool: tool \"search\" is granted twice", |e| {
                let again = e["grants"][0].clone();
                e["grants"].as_array_mut().unwrap().push(again);
            }),
            ("sessions[0].grants[0]: expected an object", |e| e["grants"][0] = json!(["search"])),
        ];
        for (expected, change) in cases {
            let mut document = full();
            change(&mut document["sessions"][0]);
            let read = ResourceHalf::list_from_json(document.to_string().as_bytes());
            let message = read.unwrap_err().to_string();
            assert!(message.contains(expected), "{expected:?} in {message:?}");
        }
        let mut none = full();
        none["sessions"][0]["grants"] = json!([]);
        let halves = ResourceHalf::list_from_json(none.to_string().as_bytes()).unwrap();
        assert!(halves[0].grants.as_ref().unwrap().is_empty(), "no grant is not the same as not saying");
    }

    #[test]
    fn errors_name_the_field() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 14] = [
            ("obol_rs_sessions is 2", |d| d["obol_rs_sessions"] = json!(2)),
            ("missing field `obol_rs_sessions`", |d| *d = json!({"sessions": []})),
            ("sessions[0].K_session: expected 64 lower-case hex digits", |d| {
                d["sessions"][0]["K_session"] = json!(SECRET.to_uppercase());
            }),
            ("sessions[0].session_id: expected 16 lower-case hex digits", |d| {
                d["sessions"][0]["session_id"] = json!(7);
            }),
            ("sessions[0]: missing field `aud`", |d| {
                d["sessions"][0].as_object_mut().unwrap().remove("aud");
            }),
            ("sessions[0].extra: ", |d| d["sessions"][0]["extra"] = json!(SECRET)),
            ("sessions[0].suite: this build", |d| d["sessions"][0]["suite"] = json!(9)),
            ("sessions[0].status: expected `active` or `revoked`", |d| {
                d["sessions"][0]["status"] = json!(SECRET);
            }),
            ("sessions[0].nonces: expected `any` or `derived`", |d| {
                d["sessions"][0]["nonces"] = json!(SECRET);
            }),
            ("sessions[0].window: ends before", |d| d["sessions"][0]["window"]["end"] = json!(0)),
            ("sessions[0].window.end: expected u64", |d| d["sessions"][0]["window"]["end"] = json!(-1)),
            ("sessions[0].org_id: must not be empty", |d| d["sessions"][0]["org_id"] = json!("")),
            ("sessions[0].pop_pub: is not a usable", |d| {
                d["sessions"][0]["pop_pub"] = json!("01".to_owned() + &"00".repeat(31));
            }),
            ("sessions[1].session_id: an earlier entry", |d| {
                let again = d["sessions"][0].clone();
                d["sessions"].as_array_mut().unwrap().push(again);
            }),
        ];
        for (expected, change) in cases {
            let message = error_with(change);
            assert!(message.contains(expected), "{expected:?} in {message:?}");
        }
    }

    #[test]
    fn errors_never_repeat_what_the_file_says() {
        for name in
            ["session_id", "suite", "aud", "K_session", "SEK_PK", "org_id", "status", "window", "pop_pub"]
        {
            for value in [json!(SECRET), json!([SECRET]), json!({"k": SECRET}), json!({SECRET: 1})] {
                let mut document = document();
                document["sessions"][0][name] = value;
                if let Err(error) = ResourceHalf::list_from_json(document.to_string().as_bytes()) {
                    assert!(!error.to_string().contains(&SECRET[..8]), "{error}");
                }
            }
        }
    }
}
