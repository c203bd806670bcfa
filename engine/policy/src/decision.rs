//! Answers: what an agent gets of each tool, and which policies say so.

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use obol_session::Grant;
use serde::{Serialize, Serializer};

use crate::source::PolicyDigest;

/// What a policy is called: its `@id`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyId(pub(crate) Arc<str>);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for PolicyId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for PolicyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// A policy that could not be evaluated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyError {
    /// Which.
    pub policy: PolicyId,
    /// Why.
    pub message: String,
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether it may be.
    pub allowed: bool,
    /// The policies that decided: those that permit, or those that forbid. None where nothing permits.
    pub decided_by: Vec<PolicyId>,
    /// Policies that failed. Where one did, nothing is allowed.
    pub errors: Vec<PolicyError>,
}

/// What was asked about one offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferDecision {
    /// The offer.
    pub offer: Arc<str>,
    /// Whether the agent may use the tool so, with a human's yes to each call at least.
    pub attended: Verdict,
    /// Whether it may without. Not asked where it may not at all.
    pub unattended: Option<Verdict>,
}

impl OfferDecision {
    /// Whether tokens may be minted ahead.
    pub fn is_ahead(&self) -> bool {
        self.attended.allowed && self.unattended.as_ref().is_some_and(|verdict| verdict.allowed)
    }

    /// Whether each call takes a human's yes. An offer of which a policy failed is not given at all.
    pub fn is_per_call(&self) -> bool {
        let denied =
            self.unattended.as_ref().is_some_and(|verdict| !verdict.allowed && verdict.errors.is_empty());
        self.attended.allowed && denied
    }

    /// All policies that decided, in order of their names.
    pub fn decided_by(&self) -> BTreeSet<&PolicyId> {
        self.verdicts().flat_map(|verdict| &verdict.decided_by).collect()
    }

    pub(crate) fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        core::iter::once(&self.attended).chain(&self.unattended)
    }
}

/// An offer that is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The offer's name.
    pub offer: Arc<str>,
    /// What it grants.
    pub grant: Arc<Grant>,
    /// The policies that permit it.
    pub decided_by: Vec<PolicyId>,
}

/// What an agent gets of one tool at one audience.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolDecision {
    /// The tool.
    pub tool: Arc<str>,
    /// The resource server.
    pub audience: Arc<str>,
    /// The grant: the first offer that the agent may use without a human's yes to each call.
    pub ahead: Option<Chosen>,
    /// Stronger offers that take a human's yes to each call, strongest first.
    pub per_call: Vec<Chosen>,
    /// What was asked, in the catalogue's order.
    pub offers: Vec<OfferDecision>,
}

/// A policy that failed while an agent's session was decided. Somebody must mend it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Alert {
    /// The policy.
    pub policy: PolicyId,
    /// The tool that was asked about.
    pub tool: Arc<str>,
    /// The offer, which is denied.
    pub offer: Arc<str>,
    /// Why it failed.
    pub message: String,
}

/// What an agent gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentDecision {
    /// The version that decided.
    pub version: PolicyDigest,
    /// Each tool of the catalogue, in its order.
    pub tools: Vec<ToolDecision>,
    /// Policies that failed; a bounded number.
    pub alerts: Vec<Alert>,
}

impl AgentDecision {
    /// What goes into the agent's session, and may be minted ahead.
    pub fn grants(&self) -> Vec<Grant> {
        self.ahead().map(|chosen| Grant::clone(&chosen.grant)).collect()
    }

    /// The resource servers of these grants.
    pub fn audiences(&self) -> BTreeSet<&str> {
        self.ahead().map(|chosen| chosen.grant.aud.as_str()).collect()
    }

    /// The tools that have offers which take a human's yes to each call.
    pub fn per_call(&self) -> impl Iterator<Item = &ToolDecision> {
        self.tools.iter().filter(|tool| !tool.per_call.is_empty())
    }

    /// A tool at an audience.
    pub fn tool(&self, name: &str, audience: &str) -> Option<&ToolDecision> {
        self.tools.iter().find(|tool| &*tool.tool == name && &*tool.audience == audience)
    }

    fn ahead(&self) -> impl Iterator<Item = &Chosen> {
        self.tools.iter().filter_map(|tool| tool.ahead.as_ref())
    }

    /// How many offers were asked about.
    pub(crate) fn weight(&self) -> usize {
        self.tools.iter().map(|tool| 1 + tool.offers.len()).sum()
    }
}
