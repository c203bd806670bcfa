//! What is asked about: agents, the people they belong to, and the moment; and how Cedar sees them.

use core::fmt;
use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression};
use serde::{Deserialize, Serialize};

use crate::limits::{MAX_ID_BYTES, MAX_NAME_BYTES, MAX_ROLES};
use crate::party::Party;
use crate::vocabulary::{Kind, is_id, schema};

/// An agent, as policies see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFacts {
    /// The agent instance: `Obol::Agent::"…"` in policies.
    pub id: String,
    /// Its class.
    pub class: String,
    /// The roles that hold now: those approved for it that its owner has too.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// Who answers for it.
    pub owner: HumanFacts,
    /// How it was registered: `local`, `loopback`, `code` or `invite`.
    pub flow: String,
    /// How many days ago it was registered.
    #[serde(default)]
    pub registered_days: u64,
    /// Whether its key seems to have been copied.
    #[serde(default)]
    pub clone_suspected: bool,
    /// Marks that operators put on it.
    #[serde(default)]
    pub tags: BTreeSet<String>,
}

/// A human, as policies see them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HumanFacts {
    /// Who it is, for ever: never an address. `Obol::Human::"…"` in policies.
    pub id: String,
    /// Who vouches for that.
    pub issuer: String,
    /// The organisation that they are of; empty where that is not said.
    #[serde(default)]
    pub organisation: String,
    /// Whether the last login took a second factor.
    #[serde(default)]
    pub mfa: bool,
    /// Their roles.
    #[serde(default)]
    pub roles: BTreeSet<String>,
}

/// When, and under what, it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occasion {
    /// Unix seconds.
    pub now: u64,
    /// The session's suite.
    pub suite: u8,
    /// How long ago the agent's owner logged in, in seconds.
    pub owner_auth_age_secs: u64,
}

/// What a human asks to register.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// The agent's class.
    pub class: &'a str,
    /// How it is registered.
    pub flow: &'a str,
    /// For how many days.
    pub days: u64,
    /// With which roles.
    pub roles: &'a BTreeSet<String>,
}

/// Facts that no question can be asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FactsError {
    /// A name or a number is out of bounds.
    OutOfBounds {
        /// Which.
        field: &'static str,
        /// What it must be.
        must: String,
    },
    /// The catalogue has no such tool, or no such offer of it.
    NoSuchOffer(String),
    /// The tool is at several audiences, and the question is about one.
    SeveralAudiences(String),
    /// Cases speak of somebody whom they do not describe.
    Nobody(String),
    /// The catalogue names no organisation, and the question is about it.
    NoOrganisation,
    /// Cedar refuses the facts.
    Cedar(String),
}

impl fmt::Display for FactsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { field, must } => write!(f, "{field} must be {must}"),
            Self::NoSuchOffer(what) => write!(f, "the catalogue has no {what}"),
            Self::SeveralAudiences(tool) => write!(f, "tool {tool:?} is at several audiences; name one"),
            Self::Nobody(name) => write!(f, "the cases do not say who {name:?} is"),
            Self::NoOrganisation => {
                f.write_str("the catalogue names no organisation; put `org = \"…\"` at its head")
            }
            Self::Cedar(why) => write!(f, "the policies cannot be asked: {why}"),
        }
    }
}

impl core::error::Error for FactsError {}

/// What Cedar says of things it does not take.
pub(crate) fn refused(error: impl fmt::Display) -> FactsError {
    FactsError::Cedar(error.to_string())
}

impl AgentFacts {
    fn check(&self) -> Result<(), FactsError> {
        check_name("the agent's id", &self.id, MAX_ID_BYTES)?;
        check_name("the agent's class", &self.class, MAX_NAME_BYTES)?;
        check_name("the agent's flow", &self.flow, MAX_NAME_BYTES)?;
        check_names("the agent's roles", &self.roles)?;
        check_names("the agent's tags", &self.tags)?;
        self.owner.check()
    }

    pub(crate) fn uid(&self) -> EntityUid {
        Kind::Agent.uid(&self.id)
    }

    /// Who asks, where it is the agent.
    pub(crate) fn party(&self) -> Party {
        Party { uid: self.uid(), groups: self.parents() }
    }

    /// What the agent is in: its class and its roles.
    pub(crate) fn parents(&self) -> HashSet<EntityUid> {
        let roles = self.roles.iter().map(|role| Kind::Role.uid(role));
        roles.chain([Kind::AgentClass.uid(&self.class)]).collect()
    }

    /// The agent and its owner.
    fn entities(&self) -> Result<[Entity; 2], FactsError> {
        self.check()?;
        let tags = self.tags.iter().map(|tag| RestrictedExpression::new_string(tag.clone()));
        let attributes = HashMap::from([
            ("owner".to_owned(), RestrictedExpression::new_entity_uid(self.owner.uid())),
            ("flow".to_owned(), RestrictedExpression::new_string(self.flow.clone())),
            ("registered_days".to_owned(), long("registered_days", self.registered_days)?),
            ("clone_suspected".to_owned(), RestrictedExpression::new_bool(self.clone_suspected)),
            ("tags".to_owned(), RestrictedExpression::new_set(tags)),
        ]);
        let agent = Entity::new(self.uid(), attributes, self.parents()).map_err(refused)?;
        Ok([agent, self.owner.entity()?])
    }
}

impl HumanFacts {
    fn check(&self) -> Result<(), FactsError> {
        check_name("the human's id", &self.id, MAX_ID_BYTES)?;
        check_name("the human's issuer", &self.issuer, MAX_ID_BYTES)?;
        if !self.organisation.is_empty() {
            check_name("the human's organisation", &self.organisation, MAX_ID_BYTES)?;
        }
        check_names("the human's roles", &self.roles)
    }

    pub(crate) fn uid(&self) -> EntityUid {
        Kind::Human.uid(&self.id)
    }

    /// Who asks, where it is the human.
    pub(crate) fn party(&self) -> Party {
        Party { uid: self.uid(), groups: self.parents() }
    }

    pub(crate) fn parents(&self) -> HashSet<EntityUid> {
        self.roles.iter().map(|role| Kind::Role.uid(role)).collect()
    }

    fn entity(&self) -> Result<Entity, FactsError> {
        self.check()?;
        let attributes = HashMap::from([
            ("issuer".to_owned(), RestrictedExpression::new_string(self.issuer.clone())),
            ("organisation".to_owned(), RestrictedExpression::new_string(self.organisation.clone())),
            ("mfa".to_owned(), RestrictedExpression::new_bool(self.mfa)),
        ]);
        Entity::new(self.uid(), attributes, self.parents()).map_err(refused)
    }
}

/// Who is there when something is asked: all that policies can look into but the tool. What does not fit the schema is
/// refused here, since nothing that policies were checked against would hold for it.
pub(crate) fn people(agent: Option<&AgentFacts>, human: Option<&HumanFacts>) -> Result<Entities, FactsError> {
    let mut entities = Vec::with_capacity(3);
    if let Some(agent) = agent {
        entities.extend(agent.entities()?);
    }
    // Who asks about an agent of their own is there already, as its owner, and must be the same.
    match (human, agent) {
        (Some(human), Some(agent)) if human.id == agent.owner.id => {
            if *human != agent.owner {
                return Err(refused("the human is the agent's owner, and the two are told differently"));
            }
        }
        (Some(human), _) => entities.push(human.entity()?),
        (None, _) => {}
    }
    Entities::from_entities(entities, Some(schema())).map_err(refused)
}

impl Occasion {
    /// The moment, as the context of a question has it.
    pub(crate) fn record(&self) -> Result<RestrictedExpression, FactsError> {
        // Cedar counts milliseconds.
        if self.now > i64::MAX.unsigned_abs() / 1000 {
            return Err(FactsError::OutOfBounds { field: "now", must: "a time in Unix seconds".to_owned() });
        }
        // Large units first: this is read again for each offer, and Cedar takes several times as long over one long number.
        let [days, hours, minutes, seconds] =
            [self.now / 86_400, self.now / 3600 % 24, self.now / 60 % 60, self.now % 60];
        let since = format!("{days}d{hours}h{minutes}m{seconds}s");
        let now = format!("datetime(\"1970-01-01\").offset(duration(\"{since}\"))");
        RestrictedExpression::new_record([
            ("now".to_owned(), now.parse().map_err(refused)?),
            ("suite".to_owned(), RestrictedExpression::new_long(self.suite.into())),
            ("owner_auth_age_sec".to_owned(), long("owner_auth_age_secs", self.owner_auth_age_secs)?),
        ])
        .map_err(refused)
    }
}

/// A number, where Cedar has room for it.
pub(crate) fn long(field: &'static str, number: u64) -> Result<RestrictedExpression, FactsError> {
    let number = i64::try_from(number)
        .map_err(|_| FactsError::OutOfBounds { field, must: format!("at most {}", i64::MAX) })?;
    Ok(RestrictedExpression::new_long(number))
}

pub(crate) fn check_name(field: &'static str, name: &str, longest: usize) -> Result<(), FactsError> {
    if is_id(name, longest) {
        return Ok(());
    }
    Err(FactsError::OutOfBounds { field, must: format!("1 to {longest} bytes without control characters") })
}

pub(crate) fn check_names(field: &'static str, names: &BTreeSet<String>) -> Result<(), FactsError> {
    if names.len() > MAX_ROLES {
        return Err(FactsError::OutOfBounds { field, must: format!("at most {MAX_ROLES}") });
    }
    names.iter().try_for_each(|name| check_name(field, name, MAX_NAME_BYTES))
}
