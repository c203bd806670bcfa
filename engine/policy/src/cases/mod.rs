//! Cases: what is expected of a version, written down before it comes into force.
//!
//! ```toml
//! [agents.reporter]
//! class = "assistant"
//! roles = ["analyst"]
//! owner = "alice"
//!
//! [humans.alice]
//! roles = ["analyst"]
//!
//! [[case]]
//! agent = "reporter"
//! tool = "query_database"
//! expect = "billing-read"
//! policies = ["analysts-read", "analysts-unattended"]
//!
//! [[register]]
//! human = "alice"
//! class = "assistant"
//! flow = "code"
//! roles = ["privileged"]
//! expect = "deny"
//! ```
//!
//! A case says what an agent gets of a tool: the offer that is minted ahead, or `deny`; with `per_call`, the offers that
//! take a human's yes. `policies`, where it is there, names all policies that decide.

mod read;
mod run;

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{AgentFacts, HumanFacts, Occasion};

pub use read::{CasesError, Format};
pub use run::{CaseReport, CasesReport};

/// What a case expects where no offer is to be given.
pub const DENY: &str = "deny";
/// What the other kinds of cases expect where something is to be allowed.
const ALLOW: &str = "allow";
/// The moment of a case that does not say, in Unix seconds: 2026-06-01, 12:00 UTC, a Monday.
pub const USUAL_NOW: u64 = 1_780_315_200;
/// The suite of a case that does not say.
pub const USUAL_SUITE: u8 = 4;

/// Agents, humans, and what is expected of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cases {
    /// The agents, by the names that cases use.
    pub agents: BTreeMap<String, AgentFacts>,
    /// The humans.
    pub humans: BTreeMap<String, HumanFacts>,
    /// What is expected, in the order of the file, kind by kind.
    pub cases: Vec<Case>,
}

/// One expectation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// What it is called in reports.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// The policies that must decide, no more and no fewer; `None` where the case does not say.
    pub policies: Option<BTreeSet<String>>,
}

/// What is asked, and the answer that is expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// What an agent gets of a tool.
    Tool {
        /// The agent's name among [`Cases::agents`].
        agent: String,
        /// The tool.
        tool: String,
        /// At which audience, where it is at several.
        audience: Option<String>,
        /// When.
        moment: Occasion,
        /// The offer that is minted ahead.
        expect: Option<String>,
        /// The offers that take a human's yes, strongest first.
        per_call: Vec<String>,
    },
    /// Whether a human may register an agent.
    Register {
        /// The human's name among [`Cases::humans`].
        human: String,
        /// The agent's class.
        class: String,
        /// How it is registered.
        flow: String,
        /// For how many days.
        days: u64,
        /// With which roles.
        roles: BTreeSet<String>,
        /// Whether it is to be allowed.
        expect: bool,
    },
    /// Whether a human may say yes to one call.
    Approve {
        /// The human.
        human: String,
        /// The agent that calls.
        agent: String,
        /// The tool.
        tool: String,
        /// Its audience.
        audience: String,
        /// The offer.
        offer: String,
        /// Whether it is to be allowed.
        expect: bool,
    },
    /// Whether a human may reach what is of another organisation.
    Reach {
        /// The human.
        human: String,
        /// The organisation.
        organisation: String,
        /// Whether it is to be allowed.
        expect: bool,
    },
    /// Whether a human may do something in the console or over the API.
    Operate {
        /// The human.
        human: String,
        /// What.
        verb: String,
        /// Whether it is to be allowed.
        expect: bool,
    },
}
