//! Policy: which grants an agent gets.
//!
//! Owners of tools write a [catalogue](Catalogue): for each tool its offers, most powerful first. Cedar is asked two
//! questions about each offer: may this agent use this tool in this way, and may it without a human's approval of each
//! call? The first offer that both allow is the [grant](obol_session::Grant), field for field.
//!
//! # What it promises
//!
//! - Only valid input loads: the catalogue is read strictly, and policies are checked against the [schema](SCHEMA) in
//!   Cedar's strict mode. Each policy has its own `@id`, with which decisions name it.
//! - Anything that no policy permits is denied, and an error in any evaluated policy denies the offer: Cedar alone would
//!   skip a `forbid` that fails.
//! - A [`PolicyVersion`] does not change, and is identified by the digest of its texts.
//! - Everything is bounded: texts, policies, tools, offers, questions for a session, and cached answers.
//!
//! # What it must not know
//!
//! Files, sockets, clocks, who an agent is: it is given all this, as [`AgentFacts`] and an [`Occasion`]. The Authentication
//! Service keeps versions and tells agents and resource servers of a change; [`diff()`] shows what a change does.
//!
//! This is the only crate that links Cedar; the servers beside an agent and in front of an API link none of it.

mod ask;
mod cache;
pub mod cases;
mod catalogue;
mod decision;
mod diff;
mod facts;
mod findings;
mod in_force;
pub mod limits;
mod mcp;
mod party;
mod problem;
mod reads;
mod rules;
mod source;
mod version;
mod vocabulary;

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;

pub use cache::DecisionCache;
pub use catalogue::{Catalogue, Offer, Risk, Route, Tool};
pub use decision::{
    AgentDecision, Alert, Chosen, OfferDecision, PolicyError, PolicyId, ToolDecision, Verdict,
};
pub use diff::{AgentDiff, Comparison, Held, Impact, ToolChange, diff};
pub use facts::{AgentFacts, FactsError, HumanFacts, Occasion, Registration};
pub use in_force::{InForce, Observed};
pub use mcp::{McpError, catalogue_from_mcp};
pub use problem::{LoadError, Problem};
pub use source::{PolicyDigest, PolicySource};
pub use version::PolicyVersion;
pub use vocabulary::SCHEMA;
