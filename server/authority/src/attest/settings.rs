//! Who is taken at their word, and of what, as an operator writes it.

use core::fmt;
use std::collections::BTreeMap;

use obol_secret::json;
use obol_session::limits::is_name;
use serde::Deserialize;
use serde_json::Value;

use crate::directory::Human;
use crate::issuer_keys::KeySource;
use crate::outbound::Target;
use crate::settings::MAX_APPROVAL_SECS;

/// How old a word may be if not said, in seconds: as long as Kubernetes keeps one in a pod.
const DEFAULT_MAX_AGE_SECS: u64 = 3_600;
/// How old it may be at most, in seconds.
const MAX_AGE_SECS: u64 = 86_400;
/// How long an agent is approved for if not said, in seconds.
const DEFAULT_APPROVED_SECS: u64 = 86_400;
/// The most attestors, rules of one, claims of a rule, and values of a claim.
const MAX_ATTESTORS: usize = 32;
const MAX_RULES: usize = 256;
const MAX_CLAIMS: usize = 16;
const MAX_VALUES: usize = 64;
/// The word for an owner who is the token's own subject.
const SUBJECT: &str = "subject";
/// The word before a user of this machine.
const LOCAL: &str = "local:";

/// The file of attestors.
#[derive(Debug, Default)]
pub struct AttestorSettings {
    pub(super) attestors: Vec<Attestor>,
}

/// Why the file is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestorSettingsError(String);

impl fmt::Display for AttestorSettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for AttestorSettingsError {}

/// What kind of word somebody gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A token that a platform gives a program which runs on it.
    #[default]
    Workload,
    /// A grant that an identity provider gives a client for one of its humans.
    IdJag,
}

impl Kind {
    /// What a token's header says of its type.
    pub(super) fn of_type(typ: &str) -> Self {
        if typ == ID_JAG { Self::IdJag } else { Self::Workload }
    }
}

/// The type of a grant of an identity provider.
const ID_JAG: &str = "oauth-id-jag+jwt";
/// The types of tokens that are looked at. Kubernetes says none.
pub(super) const TYPES: [&str; 3] = ["", "jwt", ID_JAG];

/// One who is taken at their word.
#[derive(Debug)]
pub(super) struct Attestor {
    pub(super) issuer: String,
    pub(super) kind: Kind,
    /// What its tokens call this service.
    pub(super) audience: String,
    pub(super) max_age_secs: u64,
    pub(super) keys: KeySource,
    pub(super) rules: Vec<Rule>,
}

/// Of which agents, and what they get.
#[derive(Debug)]
pub(super) struct Rule {
    /// For each claim the values of which it must have one, exactly.
    pub(super) claims: BTreeMap<String, Vec<Value>>,
    pub(super) class: String,
    pub(super) names: Vec<NamePattern>,
    pub(super) roles: Vec<String>,
    pub(super) owner: Owner,
    /// How long the agent is approved for, in seconds.
    pub(super) secs: u64,
}

/// Who answers for the agent.
#[derive(Debug)]
pub(super) enum Owner {
    Fixed(Human),
    /// The token's subject, a human of this issuer.
    Subject {
        issuer: String,
    },
}

/// A name, or what one begins with.
#[derive(Debug)]
pub(super) struct NamePattern {
    text: String,
    is_beginning: bool,
}

impl NamePattern {
    fn read(text: &str) -> Option<Self> {
        let (text, is_beginning) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        (is_name(text) && !text.contains('*')).then(|| Self { text: text.to_owned(), is_beginning })
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        match self.is_beginning {
            true => name.len() > self.text.len() && name.starts_with(&self.text),
            false => name == self.text,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    attestors: Vec<FileAttestor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAttestor {
    issuer: String,
    #[serde(default)]
    kind: Kind,
    audience: Option<String>,
    users_of: Option<String>,
    jwks_uri: Option<String>,
    max_age_secs: Option<u64>,
    agents: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    claims: BTreeMap<String, Values>,
    class: String,
    names: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    owner: FileOwner,
    approved_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Several(Vec<Value>),
    One(Value),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileOwner {
    Word(String),
    Human { issuer: String, subject: String },
}

fn wrong<T>(why: impl Into<String>) -> Result<T, String> {
    Err(why.into())
}

impl AttestorSettings {
    /// Reads the file's text, for a service that is known as `origin`.
    ///
    /// # Errors
    ///
    /// [`AttestorSettingsError`] says what is wrong.
    pub fn from_json(text: &[u8], origin: &str) -> Result<Self, AttestorSettingsError> {
        let file: File = json::parse(text).map_err(|error| AttestorSettingsError(error.to_string()))?;
        if file.attestors.len() > MAX_ATTESTORS {
            return Err(AttestorSettingsError(format!("at most {MAX_ATTESTORS} attestors")));
        }
        let read = |attestor: FileAttestor| {
            let issuer = attestor.issuer.clone();
            attestor
                .read(origin)
                .map_err(|error| AttestorSettingsError(format!("attestor {issuer}: {error}")))
        };
        let attestors = file.attestors.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = attestors.iter().map(|one| (one.issuer.as_str(), one.kind)).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, next] if one == next)) {
            return Err(AttestorSettingsError("an issuer is named twice for one kind".to_owned()));
        }
        Ok(Self { attestors })
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.attestors.iter().map(|one| match &one.keys {
            KeySource::Configuration(target) | KeySource::Set(target) => target,
        })
    }

    /// Whether somebody is reached over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.targets().any(Target::is_tls)
    }

    /// The ports that are connected to.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.targets().map(Target::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether nobody is taken at their word.
    pub fn is_empty(&self) -> bool {
        self.attestors.is_empty()
    }
}

impl FileAttestor {
    fn read(self, origin: &str) -> Result<Attestor, String> {
        let target = Target::parse(&self.issuer).map_err(|error| format!("issuer: {error}"))?;
        let keys = match &self.jwks_uri {
            Some(named) => {
                KeySource::Set(Target::parse(named).map_err(|error| format!("jwks_uri: {error}"))?)
            }
            // OpenID Connect's well-known place, which all of these have: behind the path of the issuer.
            None => {
                let path = target.path().trim_end_matches('/');
                KeySource::Configuration(target.at(&format!("{path}/.well-known/openid-configuration")))
            }
        };
        let max_age_secs = self.max_age_secs.unwrap_or(DEFAULT_MAX_AGE_SECS);
        if !(60..=MAX_AGE_SECS).contains(&max_age_secs) {
            return wrong(format!("max_age_secs: 60 to {MAX_AGE_SECS}"));
        }
        if self.agents.is_empty() || self.agents.len() > MAX_RULES {
            return wrong(format!("agents: 1 to {MAX_RULES} rules"));
        }
        let users_of = self.users_of.unwrap_or_else(|| self.issuer.clone());
        if Target::parse(&users_of).is_err() {
            return wrong("users_of: an issuer's address");
        }
        let rules = self.agents.into_iter().map(|rule| rule.read(self.kind, &users_of));
        Ok(Attestor {
            rules: rules.collect::<Result<_, _>>()?,
            issuer: self.issuer,
            kind: self.kind,
            audience: self.audience.unwrap_or_else(|| origin.to_owned()),
            max_age_secs,
            keys,
        })
    }
}

impl FileRule {
    fn read(self, kind: Kind, users_of: &str) -> Result<Rule, String> {
        let claims: BTreeMap<String, Vec<Value>> = self
            .claims
            .into_iter()
            .map(|(claim, values)| match values {
                Values::Several(values) => (claim, values),
                Values::One(value) => (claim, vec![value]),
            })
            .collect();
        let is_plain = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
        let is_sound =
            |values: &Vec<Value>| (1..=MAX_VALUES).contains(&values.len()) && values.iter().all(is_plain);
        // Whoever issues tokens to everybody says something true of everybody.
        if claims.is_empty() || claims.len() > MAX_CLAIMS || !claims.values().all(is_sound) {
            return wrong(format!(
                "claims: 1 to {MAX_CLAIMS} claims, each with the value that it must have, or a list of up to {MAX_VALUES}; \
                 without any, whoever gets a token of this issuer could register"
            ));
        }
        if kind == Kind::IdJag && !claims.contains_key("client_id") {
            return wrong("claims: an ID-JAG is made for one client; name its client_id");
        }
        if claims.contains_key("email") {
            return wrong(
                "claims: an address identifies nobody, since whoever runs another tenant writes what they like; use sub",
            );
        }
        if !is_name(&self.class) || !self.roles.iter().all(|role| is_name(role)) {
            return wrong("class and roles: visible ASCII without spaces");
        }
        let names: Option<Vec<_>> = self.names.iter().map(|name| NamePattern::read(name)).collect();
        let names = names.filter(|names| !names.is_empty() && names.len() <= MAX_VALUES).ok_or_else(|| {
            format!("names: 1 to {MAX_VALUES} names, or beginnings such as ci-*, with the star at the end alone")
        })?;
        let secs = self.approved_secs.unwrap_or(DEFAULT_APPROVED_SECS);
        if !(300..=MAX_APPROVAL_SECS).contains(&secs) {
            return wrong(format!("approved_secs: 300 to {MAX_APPROVAL_SECS}"));
        }
        let owner = self.owner.read(users_of, kind)?;
        Ok(Rule { claims, class: self.class, names, roles: self.roles, owner, secs })
    }
}

impl FileOwner {
    fn read(self, users_of: &str, kind: Kind) -> Result<Owner, String> {
        match self {
            Self::Word(word) if word == SUBJECT && kind == Kind::IdJag => {
                Ok(Owner::Subject { issuer: users_of.to_owned() })
            }
            Self::Word(word) => match word.strip_prefix(LOCAL).filter(|user| is_name(user)) {
                Some(user) => Ok(Owner::Fixed(Human::local(user))),
                None => wrong(
                    "owner: who answers for the agent: local:NAME, {\"issuer\": …, \"subject\": …}, or with an ID-JAG subject",
                ),
            },
            Self::Human { issuer, subject } if Target::parse(&issuer).is_ok() && !subject.is_empty() => {
                Ok(Owner::Fixed(Human { issuer, subject }))
            }
            Self::Human { .. } => wrong("owner: an issuer's address, and a subject"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule() -> Value {
        json!({ "claims": { "sub": "system:serviceaccount:prod:builder" }, "class": "ci", "names": ["ci"],
            "owner": "local:root" })
    }

    fn read(attestor: &Value) -> Result<AttestorSettings, String> {
        let text = json!({ "attestors": [attestor] }).to_string();
        AttestorSettings::from_json(text.as_bytes(), "https://as.example").map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_what_most_want() {
        let settings = read(&json!({ "issuer": "https://k8s.example/tenant/", "agents": [rule()] })).unwrap();
        let one = &settings.attestors[0];
        let KeySource::Configuration(place) = &one.keys else { panic!("{:?}", one.keys) };
        assert_eq!(place.as_str(), "https://k8s.example/tenant/.well-known/openid-configuration");
        assert_eq!((one.audience.as_str(), one.max_age_secs), ("https://as.example", 3_600));
        assert_eq!((one.kind, one.rules[0].secs), (Kind::Workload, 86_400));
        assert_eq!(settings.ports(), [443]);
    }

    #[test]
    fn a_rule_that_would_let_everybody_in_is_refused_and_what_is_wrong_is_named() {
        let with = |member: &str, value: Value| {
            let mut rule = rule();
            rule[member] = value;
            read(&json!({ "issuer": "https://ci.example", "agents": [rule] })).unwrap_err()
        };
        for (member, value) in [
            ("claims", json!({})),
            ("claims", json!({ "sub": [] })),
            ("claims", json!({ "sub": null })),
            ("claims", json!({ "sub": { "like": "repo:*" } })),
            ("claims", json!({ "email": "anna@corp.example" })),
            ("names", json!([])),
            ("names", json!(["*"])),
            ("names", json!(["c*i"])),
            ("class", json!("")),
            ("roles", json!(["a b"])),
            ("owner", json!("subject")),
            ("owner", json!("anna")),
            ("owner", json!("local:")),
            ("owner", json!({ "issuer": "corp", "subject": "anna" })),
            ("approved_secs", json!(299)),
            ("role", json!("ci")),
        ] {
            let error = with(member, value.clone());
            assert!(error.contains(member) || member == "role", "{member} {value}: {error}");
        }
        let jag = |claims: Value| {
            let mut rule = rule();
            (rule["claims"], rule["owner"]) = (claims, json!("subject"));
            read(&json!({ "issuer": "https://idp.example", "kind": "id-jag", "agents": [rule] }))
        };
        assert!(jag(json!({ "client_id": "obol" })).is_ok());
        assert!(jag(json!({ "tenant": "corp" })).unwrap_err().contains("client_id"));
        for issuer in ["http://ci.example", "ci.example"] {
            assert!(read(&json!({ "issuer": issuer, "agents": [rule()] })).is_err(), "{issuer}");
        }
        let one = json!({ "issuer": "https://ci.example", "agents": [rule()] });
        let twice = json!({ "attestors": [one, one] }).to_string();
        let error = AttestorSettings::from_json(twice.as_bytes(), "https://as.example").unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}
