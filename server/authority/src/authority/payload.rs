//! What is inside messages B, C and D. What comes from others is read strictly and within bounds.

use obol_handshake::{AuthorityKey, IdentityPublic};
use obol_secret::json::{Bounds, parse_within};
use obol_secret::text::{hex_array, hex_option, plain, to_hex};
use obol_session::limits::is_name;
use obol_session::{SessionId, Suite};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Authority;
use crate::decider::Route;
use crate::directory::{Flow, Opened, Wanted};
use crate::refused::Refused;
use crate::settings::MAX_SKEW_SECS;

/// The most values in what an agent sends, and how deep it may be nested.
const BOUNDS: Bounds = Bounds { values: 1_024, depth: 8 };
/// The most roles and tools that an agent may ask for.
const MAX_WISHES: usize = 64;
/// The longest name of an agent, class or role, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The longest text that an agent says of its machine, in bytes.
const MAX_TEXT_BYTES: usize = 128;
/// The most values of earlier sessions that an agent may present.
const MAX_CHAIN: usize = 4;

obol_secret::secret! {
    /// What a session left for the next one.
    ChainValue
}

/// A signed token that is not for logs: until it is spent, whoever holds it could register an agent.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct AssertionText(pub(super) String);

impl core::fmt::Debug for AssertionText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AssertionText([redacted])")
    }
}

/// Purpose 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionRequest {
    #[serde(with = "hex_array")]
    pub(super) sek_pk: [u8; 32],
    #[serde(with = "hex_array")]
    pub(super) sek_proof: [u8; 64],
    #[serde(default, with = "hex_option")]
    pub(super) pop_pub: Option<[u8; 32]>,
    #[serde(default)]
    pub(super) chain: Vec<ChainValue>,
    /// The session that this one takes the place of.
    #[serde(default)]
    pub(super) previous_session: Option<SessionId>,
    #[serde(default)]
    pub(super) audiences: Option<Vec<String>>,
    #[serde(default)]
    pub(super) client: String,
    pub(super) now: u64,
}

/// Purpose 2.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisterRequest {
    pub(super) wanted: Wanted,
    #[serde(with = "hex_array")]
    pub(super) sek_pk: [u8; 32],
    #[serde(with = "hex_array")]
    pub(super) sek_proof: [u8; 64],
    #[serde(default)]
    pub(super) ticket: Option<String>,
    /// A signed word of somebody else that stands in for a human.
    #[serde(default)]
    pub(super) assertion: Option<AssertionText>,
    /// How the agent could hear of a human's word in a browser; without it, a human of the service's machine decides.
    #[serde(default)]
    pub(super) flow: Option<AskedFlow>,
}

/// How an agent could hear of a human's word.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum AskedFlow {
    /// It listens on this port of loopback, on the machine with the browser.
    Loopback { port: core::num::NonZeroU16 },
    /// The human types the code that it shows.
    Code,
}

impl From<AskedFlow> for Flow {
    fn from(asked: AskedFlow) -> Self {
        match asked {
            AskedFlow::Loopback { port } => Self::Loopback(port.get()),
            AskedFlow::Code => Self::Code,
        }
    }
}

/// Purpose 3.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinRequest {
    pub(super) code: String,
}

/// Purpose 7: either the next key, said by the old one, or the transcript in which it was said, by the new one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateRequest {
    #[serde(default, with = "hex_option")]
    pub(super) next: Option<[u8; 32]>,
    #[serde(default, with = "hex_option")]
    pub(super) first: Option<[u8; 32]>,
}

/// Purpose 8: nothing more needs to be said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeregisterRequest {}

pub(super) fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refused> {
    parse_within(payload, BOUNDS).map_err(|error| Refused::Malformed(error.to_string()))
}

impl SessionRequest {
    /// What reading alone does not see.
    pub(super) fn check(&self, now: u64) -> Result<(), Refused> {
        if self.chain.len() > MAX_CHAIN {
            return Err(Refused::Malformed(format!("chain: at most {MAX_CHAIN} values")));
        }
        if self.audiences.as_ref().is_some_and(|list| list.len() > obol_session::limits::MAX_RESOURCE_SERVERS)
        {
            return Err(Refused::Malformed("audiences: there are too many".to_owned()));
        }
        check_client_and_clock(&self.client, self.now, now)
    }
}

/// Checks what a client calls itself, and that it lives in the same time.
pub(super) fn check_client_and_clock(client: &str, theirs: u64, now: u64) -> Result<(), Refused> {
    if client.len() > MAX_TEXT_BYTES {
        return Err(Refused::Malformed(format!("client: at most {MAX_TEXT_BYTES} bytes")));
    }
    match now.abs_diff(theirs) {
        skew if skew > MAX_SKEW_SECS => Err(Refused::ClockSkew(skew)),
        _ => Ok(()),
    }
}

/// Checks what an agent says of itself, and takes out of its texts what steers a terminal or hides.
pub(super) fn clean(mut wanted: Wanted) -> Result<Wanted, Refused> {
    let refuse = |field: &str, rule: String| Err(Refused::Malformed(format!("wanted.{field}: {rule}")));
    let is_short_name = |name: &str| is_name(name) && name.len() <= MAX_NAME_BYTES;
    let name_rule = || format!("1 to {MAX_NAME_BYTES} bytes of visible ASCII");
    if !is_short_name(&wanted.name) || crate::id::AgentId::parse(&wanted.name).is_some() {
        return refuse("name", format!("{}, and not the form of an id", name_rule()));
    }
    if !is_short_name(&wanted.class) {
        return refuse("class", name_rule());
    }
    for (field, list) in [("roles", &wanted.roles), ("tools", &wanted.tools)] {
        if list.len() > MAX_WISHES || !list.iter().all(|name| is_short_name(name)) {
            return refuse(field, format!("at most {MAX_WISHES}, each {}", name_rule()));
        }
    }
    for (field, text) in
        [("host", &mut wanted.host), ("user", &mut wanted.user), ("software", &mut wanted.software)]
    {
        if text.len() > MAX_TEXT_BYTES {
            return refuse(field, format!("at most {MAX_TEXT_BYTES} bytes"));
        }
        *text = plain(text).into_owned();
    }
    Ok(wanted)
}

/// Message B's payload: what the client checks before it proves who it is.
pub(super) fn greeting(authority: &Authority, now: u64) -> Vec<u8> {
    let settings = &authority.settings;
    json!({
        "now": now,
        "suites": numbers(&settings.suites),
        "min_suite_of_org": settings.min_suite.number(),
        "as_keys": [key(&authority.key())],
        "max_skew": MAX_SKEW_SECS,
    })
    .to_string()
    .into_bytes()
}

pub(super) fn numbers(suites: &[Suite]) -> Vec<u8> {
    suites.iter().map(|suite| suite.number()).collect()
}

/// A static key of the service, as it is told to others.
pub(super) fn key(key: &AuthorityKey) -> Value {
    json!({ "id": to_hex(&key.id().0), "key": to_hex(&key.0) })
}

/// What answers say of the service itself.
#[derive(Clone, Debug)]
pub(super) struct AuthorityFacts {
    origin: String,
    lease_secs: u64,
    keys: Value,
}

impl AuthorityFacts {
    pub(super) fn of(authority: &Authority) -> Self {
        let settings = &authority.settings;
        Self {
            origin: settings.origin.clone(),
            lease_secs: settings.lease_secs,
            keys: json!([key(&authority.key())]),
        }
    }
}

/// What the answer says of a session, and the directory does not keep.
#[derive(Debug)]
pub(super) struct Told {
    /// That of the agent's owner.
    pub(super) organisation: String,
    pub(super) identity: IdentityPublic,
    pub(super) grants: Vec<obol_session::Grant>,
    pub(super) routes: Vec<Route>,
    pub(super) approval_ends: u64,
}

/// Message D of purpose 1: the session, without its keys.
pub(super) fn session(service: &AuthorityFacts, opened: &Opened, told: &Told) -> Value {
    let row = &opened.session;
    json!({
        "session_id": row.id,
        "suite": row.suite,
        "agent_instance_id": row.agent,
        "org_id": told.organisation,
        "iss": service.origin,
        "sub": told.identity.subject(),
        "established_at": row.established_at,
        "expires_at": row.expires_at,
        "policy_epoch": row.policy_epoch,
        "audiences": row.audiences,
        "grants": told.grants,
        "routes": told.routes,
        "lease_sec": service.lease_secs,
        "approval_expires_at": told.approval_ends,
        "as_keys": service.keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: "builder".into(),
            class: "coding".into(),
            roles: vec!["ci".into()],
            tools: vec!["search".into()],
            host: "host".into(),
            user: "user".into(),
            software: "obol/1".into(),
        }
    }

    #[test]
    fn what_an_agent_says_is_bounded_and_freed_of_what_steers_a_terminal() {
        assert_eq!(clean(wanted()).unwrap(), wanted());
        let host = "\u{1b}[2Jgood\u{202e}live";
        let cleaned = clean(Wanted { host: host.into(), ..wanted() }).unwrap();
        assert!(!cleaned.host.contains('\u{1b}') && !cleaned.host.contains('\u{202e}'), "{}", cleaned.host);
        let bad = [
            Wanted { name: String::new(), ..wanted() },
            Wanted { name: "two words".into(), ..wanted() },
            Wanted { name: "x".repeat(65), ..wanted() },
            Wanted { name: format!("agt_{}", "a".repeat(26)), ..wanted() },
            Wanted { class: "\n".into(), ..wanted() },
            Wanted { roles: vec!["r".into(); 65], ..wanted() },
            Wanted { tools: vec![String::new()], ..wanted() },
            Wanted { software: "s".repeat(129), ..wanted() },
        ];
        for wanted in bad {
            assert!(matches!(clean(wanted.clone()), Err(Refused::Malformed(_))), "{wanted:?}");
        }
    }

    #[test]
    fn errors_in_a_payload_name_the_field_and_repeat_no_value() {
        let secret = "5ec7".repeat(16);
        let text = format!(r#"{{"sek_pk":"{secret}","sek_proof":"{secret}","now":1}}"#);
        let error = read::<SessionRequest>(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("sek_proof") && !error.contains("5ec7"), "{error}");
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(read::<SessionRequest>(deep.as_bytes()).is_err());
    }
}
