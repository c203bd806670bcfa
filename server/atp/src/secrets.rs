//! Who may ask for tokens: agents with secrets of their own, a shared secret, masters. Read from the operator's file:
//!
//! ```json
//! {"obol_atp":1,
//!  "shared":[{"secret":"…"}],
//!  "agents":[{"agent_id":"1b02…","scopes":["read"],"status":"active","secrets":[{"secret":"new"},{"secret":"old","until":1767312000}]}],
//!  "masters":[{"name":"ci","sha256":"64 hex","scopes":["read"],"default_scopes":["read"],"max_tokens":16}]}
//! ```
//!
//! At most two secrets each, the newest first. An agent with secrets of its own never matches a shared one. Times are Unix
//! seconds. What the store remembers of secrets counts for more than the file: one that was retired stays so.

use core::fmt;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use obol_atp::{AgentId, ScopeSet, Secret, UnfitSecret};
use obol_secret::file::{PrivateFile, PrivateFileError};
use obol_secret::json::{self, JsonError};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::store::owners::{Declared, Owner, OwnerName, Owners, Print, Seen};

/// The longest file of secrets, in bytes.
pub const MAX_SECRETS_FILE_BYTES: usize = 16 << 20;
/// The most secrets of one agent, and the most shared ones.
const MAX_SECRETS: usize = 2;
/// The most live tokens of a master and one label, unless its entry says less.
const MAX_MASTER_TOKENS: usize = 16;
const MAX_NAME_BYTES: usize = 64;

/// Why secrets were not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum SecretsError {
    /// The file cannot be used.
    File(PrivateFileError),
    /// Its form is wrong; the field is named.
    Form(JsonError),
    /// What it says does not fit; the entry is named by kind and place, counted from 1.
    Entry(&'static str, usize, &'static str),
    /// A secret is not taken.
    Unfit(&'static str, usize, UnfitSecret),
    /// The system's random number generator failed.
    Randomness,
}

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "the file of secrets: {error}"),
            Self::Form(error) => write!(f, "the file of secrets: {error}"),
            Self::Entry(kind, place, problem) => {
                write!(f, "the file of secrets: {kind}, entry {place}: {problem}")
            }
            Self::Unfit(kind, place, problem) => {
                write!(f, "the file of secrets: {kind}, entry {place}: {problem}")
            }
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

impl core::error::Error for SecretsError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    obol_atp: u32,
    #[serde(default)]
    shared: Vec<SecretRow>,
    #[serde(default)]
    agents: Vec<AgentRow>,
    #[serde(default)]
    masters: Vec<MasterRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretRow {
    secret: Zeroizing<String>,
    #[serde(default)]
    until: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Active,
    Disabled,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentRow {
    agent_id: String,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    secrets: Vec<SecretRow>,
    #[serde(default)]
    tokens_after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MasterRow {
    name: String,
    sha256: String,
    scopes: Vec<String>,
    #[serde(default)]
    default_scopes: Option<Vec<String>>,
    #[serde(default)]
    max_tokens: Option<usize>,
}

/// A secret, and when it stops to hold.
#[derive(Debug)]
struct Dated {
    secret: Secret,
    until: Option<u64>,
    /// What stands for it in the store, once the store has seen it.
    print: Print,
}

impl Dated {
    fn new(secret: Secret, until: Option<u64>) -> Self {
        Self { secret, until, print: Print::default() }
    }

    /// Whether it holds, by the file and by what is remembered.
    fn at(&self, now: u64, remembered: Option<&Owner>) -> Option<&Secret> {
        let holds = self.until.is_none_or(|until| now < until)
            && remembered.is_none_or(|owner| owner.holds(self.print, now));
        holds.then_some(&self.secret)
    }

    fn imprint(&mut self, key: &[u8; 32], owner: &OwnerName) -> Seen {
        self.print = Print::of(key, owner, self.secret.expose());
        Seen { print: self.print, until: self.until }
    }
}

/// One agent.
#[derive(Debug)]
struct Agent {
    ceiling: Option<ScopeSet>,
    status_active: bool,
    secrets: Vec<Dated>,
    tokens_after: u64,
}

/// One master.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) name: Box<str>,
    hash: [u8; 32],
    print: Print,
    pub(crate) ceiling: ScopeSet,
    pub(crate) defaults: ScopeSet,
    pub(crate) max_tokens: usize,
}

/// The two keys that a signature is checked with, and what they prove.
pub(crate) struct Keys<'a> {
    pub(crate) current: &'a Secret,
    pub(crate) previous: &'a Secret,
    pub(crate) is_shared: bool,
}

/// Who may ask for tokens.
#[derive(Debug)]
pub struct SecretBook {
    shared: Vec<Dated>,
    agents: HashMap<AgentId, Agent>,
    masters: Vec<Master>,
    /// Whom an unknown agent meets: nobody knows them.
    nobody: [Secret; 2],
}

impl SecretBook {
    /// One shared secret, for every agent.
    ///
    /// # Errors
    /// [`SecretsError::Unfit`] if it is too short or too long.
    pub fn shared(secret: &[u8]) -> Result<Self, SecretsError> {
        let mut book = Self::empty()?;
        book.add_shared(secret)?;
        Ok(book)
    }

    /// Adds a shared secret to those there are.
    ///
    /// # Errors
    /// [`SecretsError`] if it does not fit, or there are two.
    pub fn add_shared(&mut self, secret: &[u8]) -> Result<(), SecretsError> {
        let place = self.shared.len() + 1;
        if self.shared.len() == MAX_SECRETS {
            return Err(SecretsError::Entry("shared", place, "at most two are allowed"));
        }
        let secret = Secret::new(secret).map_err(|unfit| SecretsError::Unfit("shared", place, unfit))?;
        self.shared.push(Dated::new(secret, None));
        Ok(())
    }

    fn empty() -> Result<Self, SecretsError> {
        let random = || {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(bytes.as_mut_slice()).map_err(|_| SecretsError::Randomness)?;
            Ok(Secret::of_any_length(bytes.as_slice()))
        };
        Ok(Self {
            shared: Vec::new(),
            agents: HashMap::new(),
            masters: Vec::new(),
            nobody: [random()?, random()?],
        })
    }

    /// Reads a private file.
    ///
    /// # Errors
    /// [`SecretsError`] says what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, SecretsError> {
        let text = PrivateFile::read(path, MAX_SECRETS_FILE_BYTES).map_err(SecretsError::File)?;
        Self::parse(&text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// [`SecretsError`] says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, SecretsError> {
        let file: File = json::parse(text).map_err(SecretsError::Form)?;
        if file.obol_atp != 1 {
            return Err(SecretsError::Entry("obol_atp", 1, "this build reads version 1"));
        }
        let mut book = Self::empty()?;
        book.shared = dated("shared", 1, file.shared)?;
        for (place, row) in (1..).zip(file.agents) {
            let wrong = |problem| SecretsError::Entry("agents", place, problem);
            let id =
                AgentId::parse(&row.agent_id).ok_or(wrong("agent_id must be 64 lower-case hex digits"))?;
            let ceiling = row
                .scopes
                .as_deref()
                .map(scopes)
                .map(|set| set.ok_or(wrong("scopes must be distinct scopes")));
            let agent = Agent {
                ceiling: ceiling.transpose()?,
                status_active: row.status == Status::Active,
                secrets: dated("agents", place, row.secrets)?,
                tokens_after: row.tokens_after.unwrap_or(0),
            };
            if book.agents.insert(id, agent).is_some() {
                return Err(wrong("this agent_id has two entries"));
            }
        }
        for (place, row) in (1..).zip(file.masters) {
            let master = master(place, &row)?;
            if book.masters.iter().any(|other| other.name == master.name || other.hash == master.hash) {
                return Err(SecretsError::Entry("masters", place, "this name or credential has two entries"));
            }
            book.masters.push(master);
        }
        Ok(book)
    }

    /// Whether there is nobody who could ask.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.agents.is_empty() && self.masters.is_empty()
    }

    /// How many secrets are short enough to warn of.
    pub fn short_secrets(&self) -> usize {
        let own = self.agents.values().flat_map(|agent| &agent.secrets);
        own.chain(&self.shared).filter(|dated| dated.secret.is_short()).count()
    }

    /// Whether some secret is these bytes.
    pub(crate) fn has_secret(&self, bytes: &[u8]) -> bool {
        let own = self.agents.values().flat_map(|agent| &agent.secrets);
        own.chain(&self.shared).any(|dated| dated.secret.is_same(bytes))
    }

    /// Makes the prints of all secrets; what the store is to remember of them.
    pub(crate) fn imprint(&mut self, key: &[u8; 32]) -> Arc<[Declared]> {
        let mut declared = Vec::with_capacity(self.agents.len() + self.masters.len() + 1);
        let mut declare = |name: OwnerName, secrets: Vec<Seen>, tokens_after| {
            declared.push(Declared { name, secrets, tokens_after });
        };
        let seen = |secrets: &mut Vec<Dated>, name: &OwnerName| {
            secrets.iter_mut().map(|dated| dated.imprint(key, name)).collect()
        };
        let secrets = seen(&mut self.shared, &OwnerName::Shared);
        declare(OwnerName::Shared, secrets, 0);
        for (id, agent) in &mut self.agents {
            let name = OwnerName::Agent(*id);
            let secrets = seen(&mut agent.secrets, &name);
            declare(name, secrets, agent.tokens_after);
        }
        for master in &mut self.masters {
            let name = OwnerName::Master(master.name.clone());
            master.print = Print::of(key, &name, &master.hash);
            let secrets = vec![Seen { print: master.print, until: None }];
            declare(name, secrets, 0);
        }
        declared.into()
    }

    /// The keys to check an agent's signature with. There are always two.
    pub(crate) fn keys(&self, agent: AgentId, now: u64, owners: &Owners) -> Keys<'_> {
        let own = self.agents.get(&agent).map(|agent| &agent.secrets).filter(|secrets| !secrets.is_empty());
        let secrets = own.unwrap_or(&self.shared);
        let name = if own.is_some() { OwnerName::Agent(agent) } else { OwnerName::Shared };
        let remembered = owners.get(&name);
        let [nobody, no_other] = &self.nobody;
        let mut live = secrets.iter().map(|dated| dated.at(now, remembered));
        Keys {
            current: live.next().flatten().unwrap_or(nobody),
            previous: live.next().flatten().unwrap_or(no_other),
            is_shared: own.is_none(),
        }
    }

    /// Whether an agent may be given tokens.
    pub(crate) fn is_active(&self, agent: AgentId) -> bool {
        self.agents.get(&agent).is_none_or(|agent| agent.status_active)
    }

    /// Whether all of these are within the agent's ceiling.
    pub(crate) fn may_have(&self, agent: AgentId, wanted: &ScopeSet) -> bool {
        let ceiling = self.agents.get(&agent).and_then(|agent| agent.ceiling.as_ref());
        ceiling.is_none_or(|ceiling| wanted.is_within(ceiling))
    }

    /// Whether an agent's token, issued then (Unix seconds), was ended with its secret or the agent was disabled.
    pub(crate) fn ended(&self, agent: &str, issued: u64, owners: &Owners) -> bool {
        let Some(id) = AgentId::parse(agent) else { return false };
        issued <= owners.tokens_after(id)
            || self.agents.get(&id).is_some_and(|agent| issued <= agent.tokens_after || !agent.status_active)
    }

    /// The master that a credential belongs to, unless that was retired.
    pub(crate) fn master(&self, credential: &[u8], owners: &Owners) -> Option<&Master> {
        let hash = Sha256::digest(credential);
        // Every one is compared, so that time does not tell how many there are before it.
        self.masters
            .iter()
            .fold(None, |found, master| {
                let same: bool = master.hash.as_slice().ct_eq(&hash).into();
                if same { Some(master) } else { found }
            })
            .filter(|master| {
                let remembered = owners.get(&OwnerName::Master(master.name.clone()));
                remembered.is_none_or(|owner| owner.holds(master.print, 0))
            })
    }

    /// Whether there is a master of this name still.
    pub(crate) fn has_master(&self, name: &str) -> bool {
        self.masters.iter().any(|master| &*master.name == name)
    }
}

fn scopes(texts: &[String]) -> Option<ScopeSet> {
    ScopeSet::from_texts(texts.iter().map(String::as_str))
}

fn dated(kind: &'static str, place: usize, rows: Vec<SecretRow>) -> Result<Vec<Dated>, SecretsError> {
    if rows.len() > MAX_SECRETS {
        return Err(SecretsError::Entry(
            kind,
            place,
            "there may be two secrets at most: the new one and the one before",
        ));
    }
    let read = |row: SecretRow| {
        let secret =
            Secret::new(row.secret.as_bytes()).map_err(|unfit| SecretsError::Unfit(kind, place, unfit))?;
        Ok(Dated::new(secret, row.until))
    };
    rows.into_iter().map(read).collect()
}

fn master(place: usize, row: &MasterRow) -> Result<Master, SecretsError> {
    let wrong = |problem| SecretsError::Entry("masters", place, problem);
    if row.name.is_empty() || row.name.len() > MAX_NAME_BYTES || row.name.chars().any(char::is_control) {
        return Err(wrong("name must be 1 to 64 bytes long"));
    }
    let hash =
        obol_secret::text::from_hex(&row.sha256).ok_or(wrong("sha256 must be 64 lower-case hex digits"))?;
    let ceiling = scopes(&row.scopes).ok_or(wrong("scopes must be distinct scopes"))?;
    let defaults = match &row.default_scopes {
        None => ceiling.clone(),
        Some(texts) => scopes(texts).ok_or(wrong("default_scopes must be distinct scopes"))?,
    };
    if defaults.is_empty() || !defaults.is_within(&ceiling) {
        return Err(wrong("default_scopes must be within scopes, and not empty"));
    }
    let max_tokens = row.max_tokens.unwrap_or(MAX_MASTER_TOKENS);
    if !(1..=MAX_MASTER_TOKENS).contains(&max_tokens) {
        return Err(wrong("max_tokens must be 1 to 16"));
    }
    let name = row.name.as_str().into();
    Ok(Master { name, hash, print: Print::default(), ceiling, defaults, max_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1b02bfe114e87544e3cb8670cc40220cf69ccee6b8a12a11cf7dffdeac13990c";

    fn book(text: &str) -> Result<SecretBook, String> {
        SecretBook::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_agent_with_secrets_of_its_own_never_matches_a_shared_one() {
        let text = format!(
            r#"{{"obol_atp":1,"shared":[{{"secret":"the shared secret"}}],
            "agents":[{{"agent_id":"{A}","secrets":[{{"secret":"the new secret!!"}},{{"secret":"the old secret!!","until":100}}]}}]}}"#
        );
        let book = book(&text).unwrap();
        let own = AgentId::parse(A).unwrap();
        let other = AgentId::from_random([0; 16]);
        let signed = |agent, secret: &[u8], now| {
            let keys = book.keys(agent, now, &Owners::default());
            let signature = Secret::of_any_length(secret).sign(b"x");
            (keys.current.signed(b"x", &signature), keys.previous.signed(b"x", &signature), keys.is_shared)
        };
        assert_eq!(signed(own, b"the new secret!!", 99), (true, false, false));
        assert_eq!(signed(own, b"the old secret!!", 99), (false, true, false));
        assert_eq!(signed(own, b"the old secret!!", 100), (false, false, false), "its deadline is over");
        assert_eq!(signed(own, b"the shared secret", 99), (false, false, false));
        assert_eq!(signed(other, b"the shared secret", 99), (true, false, true));
    }

    #[test]
    fn what_does_not_fit_is_named_without_being_repeated() {
        for (text, named) in [
            (r#"{"obol_atp":2}"#, "version 1"),
            (r#"{"obol_atp":1,"sharde":[]}"#, "sharde"),
            (r#"{"obol_atp":1,"shared":[{"secret":"hush"}]}"#, "fewer than 16"),
            (r#"{"obol_atp":1,"agents":[{"agent_id":"x"}]}"#, "agents, entry 1"),
            (r#"{"obol_atp":1,"masters":[{"name":"ci","sha256":"00","scopes":["a"]}]}"#, "masters, entry 1"),
            (r#"{"obol_atp":1,"obol_atp":1}"#, "duplicate"),
        ] {
            let error = book(text).unwrap_err();
            assert!(error.contains(named) && !error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn a_master_is_found_by_its_credential_alone() {
        let hash = obol_secret::text::to_hex(&Sha256::digest(b"the master"));
        let text = format!(
            r#"{{"obol_atp":1,"masters":[{{"name":"ci","sha256":"{hash}","scopes":["a","b"],"default_scopes":["a"]}}]}}"#
        );
        let book = book(&text).unwrap();
        let find =
            |credential: &[u8]| book.master(credential, &Owners::default()).map(|master| &*master.name);
        assert_eq!(find(b"the master"), Some("ci"));
        assert!(find(hash.as_bytes()).is_none() && find(b"").is_none());
    }
}
