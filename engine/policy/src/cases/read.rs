//! Reading a file of cases, in TOML or JSON: strictly, and with every name looked up.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use obol_secret::json::{self, JsonError};
use serde::Deserialize;

use super::{ALLOW, Case, Cases, DENY, Question, USUAL_NOW, USUAL_SUITE};
use crate::facts::{AgentFacts, HumanFacts, Occasion};
use crate::limits::{MAX_CASES, MAX_CASES_BYTES};
use crate::problem::Lines;

/// What a file is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// Why a file of cases is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CasesError {
    /// It is too long, or holds too many of something.
    TooMuch,
    /// It is not TOML of this form.
    Toml {
        /// The line.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// It is not JSON of this form.
    Json(JsonError),
    /// One entry is wrong.
    Entry {
        /// Which.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for CasesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch => {
                write!(f, "longer than {MAX_CASES_BYTES} bytes, or more than {MAX_CASES} of a kind")
            }
            Self::Toml { line, problem } => write!(f, "line {line}: {problem}"),
            Self::Json(error) => error.fmt(f),
            Self::Entry { entry, problem } => write!(f, "{entry}: {problem}"),
        }
    }
}

impl core::error::Error for CasesError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    agents: BTreeMap<String, AgentText>,
    #[serde(default)]
    humans: BTreeMap<String, HumanText>,
    #[serde(default, rename = "case")]
    tools: Vec<ToolText>,
    #[serde(default)]
    register: Vec<RegisterText>,
    #[serde(default)]
    approve: Vec<ApproveText>,
    #[serde(default)]
    operate: Vec<OperateText>,
    #[serde(default)]
    reach: Vec<ReachText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentText {
    id: Option<String>,
    class: String,
    #[serde(default)]
    roles: BTreeSet<String>,
    owner: Option<String>,
    #[serde(default = "usual_flow")]
    flow: String,
    #[serde(default)]
    registered_days: u64,
    #[serde(default)]
    clone_suspected: bool,
    #[serde(default)]
    tags: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HumanText {
    id: Option<String>,
    #[serde(default = "usual_flow")]
    issuer: String,
    #[serde(default)]
    organisation: String,
    #[serde(default)]
    mfa: bool,
    #[serde(default)]
    roles: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolText {
    name: Option<String>,
    agent: String,
    tool: String,
    audience: Option<String>,
    expect: String,
    #[serde(default)]
    per_call: Vec<String>,
    policies: Option<BTreeSet<String>>,
    now: Option<u64>,
    suite: Option<u8>,
    #[serde(default)]
    owner_auth_age_secs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterText {
    name: Option<String>,
    human: String,
    class: String,
    #[serde(default = "usual_flow")]
    flow: String,
    #[serde(default = "usual_days")]
    days: u64,
    #[serde(default)]
    roles: BTreeSet<String>,
    expect: String,
    policies: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveText {
    name: Option<String>,
    human: String,
    agent: String,
    tool: String,
    audience: String,
    offer: String,
    expect: String,
    policies: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperateText {
    name: Option<String>,
    human: String,
    verb: String,
    expect: String,
    policies: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReachText {
    name: Option<String>,
    human: String,
    organisation: String,
    expect: String,
    policies: Option<BTreeSet<String>>,
}

/// Of agents and humans alike: without a provider, both are the machine's own.
fn usual_flow() -> String {
    "local".to_owned()
}

fn usual_days() -> u64 {
    30
}

impl Cases {
    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// [`CasesError`], with the line or the entry.
    pub fn read(text: &str, format: Format) -> Result<Self, CasesError> {
        if text.len() > MAX_CASES_BYTES {
            return Err(CasesError::TooMuch);
        }
        let read: Text = match format {
            Format::Json => json::parse(text.as_bytes()).map_err(CasesError::Json)?,
            Format::Toml => toml::from_str(text).map_err(|error| CasesError::Toml {
                line: Lines::of(text).at(error.span().map_or(0, |span| span.start)),
                problem: error.message().to_owned(),
            })?,
        };
        let kinds = [read.agents.len(), read.humans.len(), read.tools.len(), read.register.len()];
        if kinds
            .into_iter()
            .chain([read.approve.len(), read.operate.len(), read.reach.len()])
            .any(|kind| kind > MAX_CASES)
        {
            return Err(CasesError::TooMuch);
        }
        let humans =
            read.humans.into_iter().map(|(name, human)| (name.clone(), human.facts(&name))).collect();
        let agents = read.agents.into_iter().map(|(name, agent)| {
            let facts = agent.facts(&name, &humans)?;
            Ok((name, facts))
        });
        let agents = agents.collect::<Result<_, _>>()?;
        let mut cases = Self { agents, humans, cases: Vec::new() };
        let tools = numbered("case", read.tools).map(|(entry, text)| cases.tool(&entry, text));
        let register = numbered("register", read.register).map(|(entry, text)| cases.register(&entry, text));
        let approve = numbered("approve", read.approve).map(|(entry, text)| cases.approve(&entry, text));
        let operate = numbered("operate", read.operate).map(|(entry, text)| cases.operate(&entry, text));
        let reach = numbered("reach", read.reach).map(|(entry, text)| cases.reach(&entry, text));
        let all =
            tools.chain(register).chain(approve).chain(operate).chain(reach).collect::<Result<_, _>>()?;
        cases.cases = all;
        Ok(cases)
    }

    fn tool(&self, entry: &str, text: ToolText) -> Result<Case, CasesError> {
        self.agent(entry, &text.agent)?;
        let moment = Occasion {
            now: text.now.unwrap_or(USUAL_NOW),
            suite: text.suite.unwrap_or(USUAL_SUITE),
            owner_auth_age_secs: text.owner_auth_age_secs,
        };
        Ok(Case {
            name: text.name.unwrap_or_else(|| format!("{entry}: {} uses {}", text.agent, text.tool)),
            policies: text.policies,
            question: Question::Tool {
                agent: text.agent,
                tool: text.tool,
                audience: text.audience,
                moment,
                expect: (text.expect != DENY).then_some(text.expect),
                per_call: text.per_call,
            },
        })
    }

    fn register(&self, entry: &str, text: RegisterText) -> Result<Case, CasesError> {
        self.human(entry, &text.human)?;
        Ok(Case {
            name: text.name.unwrap_or_else(|| format!("{entry}: {} registers {}", text.human, text.class)),
            policies: text.policies,
            question: Question::Register {
                human: text.human,
                class: text.class,
                flow: text.flow,
                days: text.days,
                roles: text.roles,
                expect: is_allowed(entry, &text.expect)?,
            },
        })
    }

    fn approve(&self, entry: &str, text: ApproveText) -> Result<Case, CasesError> {
        self.human(entry, &text.human)?;
        self.agent(entry, &text.agent)?;
        Ok(Case {
            name: text.name.unwrap_or_else(|| format!("{entry}: {} approves {}", text.human, text.tool)),
            policies: text.policies,
            question: Question::Approve {
                human: text.human,
                agent: text.agent,
                tool: text.tool,
                audience: text.audience,
                offer: text.offer,
                expect: is_allowed(entry, &text.expect)?,
            },
        })
    }

    fn operate(&self, entry: &str, text: OperateText) -> Result<Case, CasesError> {
        self.human(entry, &text.human)?;
        Ok(Case {
            name: text.name.unwrap_or_else(|| format!("{entry}: {} does {}", text.human, text.verb)),
            policies: text.policies,
            question: Question::Operate {
                human: text.human,
                verb: text.verb,
                expect: is_allowed(entry, &text.expect)?,
            },
        })
    }

    fn reach(&self, entry: &str, text: ReachText) -> Result<Case, CasesError> {
        self.human(entry, &text.human)?;
        Ok(Case {
            name: text
                .name
                .unwrap_or_else(|| format!("{entry}: {} reaches {}", text.human, text.organisation)),
            policies: text.policies,
            question: Question::Reach {
                human: text.human,
                organisation: text.organisation,
                expect: is_allowed(entry, &text.expect)?,
            },
        })
    }

    fn agent(&self, entry: &str, name: &str) -> Result<(), CasesError> {
        if self.agents.contains_key(name) { Ok(()) } else { missing(entry, "agents", name) }
    }

    fn human(&self, entry: &str, name: &str) -> Result<(), CasesError> {
        if self.humans.contains_key(name) { Ok(()) } else { missing(entry, "humans", name) }
    }
}

impl AgentText {
    fn facts(self, name: &str, humans: &BTreeMap<String, HumanFacts>) -> Result<AgentFacts, CasesError> {
        let owner = match self.owner {
            // An agent never outranks its human: one without an owner is its own, with the same roles.
            None => HumanText {
                id: None,
                issuer: usual_flow(),
                organisation: String::new(),
                mfa: false,
                roles: self.roles.clone(),
            }
            .facts("owner"),
            Some(owner) => match humans.get(&owner) {
                Some(human) => human.clone(),
                None => return missing(&format!("agents.{name}"), "humans", &owner),
            },
        };
        Ok(AgentFacts {
            id: self.id.unwrap_or_else(|| name.to_owned()),
            class: self.class,
            roles: self.roles,
            owner,
            flow: self.flow,
            registered_days: self.registered_days,
            clone_suspected: self.clone_suspected,
            tags: self.tags,
        })
    }
}

impl HumanText {
    fn facts(self, name: &str) -> HumanFacts {
        HumanFacts {
            id: self.id.unwrap_or_else(|| name.to_owned()),
            issuer: self.issuer,
            organisation: self.organisation,
            mfa: self.mfa,
            roles: self.roles,
        }
    }
}

fn numbered<T>(kind: &str, texts: Vec<T>) -> impl Iterator<Item = (String, T)> {
    texts.into_iter().zip(1..).map(move |(text, number)| (format!("{kind} {number}"), text))
}

fn is_allowed(entry: &str, expect: &str) -> Result<bool, CasesError> {
    match expect {
        ALLOW => Ok(true),
        DENY => Ok(false),
        _ => wrong(entry, format!("expect must be {ALLOW:?} or {DENY:?}")),
    }
}

fn missing<T>(entry: &str, kind: &str, name: &str) -> Result<T, CasesError> {
    wrong(entry, format!("there is no [{kind}.{name}]; write who that is"))
}

fn wrong<T>(entry: &str, problem: String) -> Result<T, CasesError> {
    Err(CasesError::Entry { entry: entry.to_owned(), problem })
}
