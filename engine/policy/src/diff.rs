//! What changes for agents between two versions: who gains, who loses, and who must get a new session soon.

use std::sync::Arc;

use obol_session::{AgentIdentity, Grant};
use obol_token::delegation::{Widening, check_granted};

use crate::decision::{AgentDecision, Chosen, ToolDecision};

/// How much of all grants an activation may take away unless it is said that it may: one in so many.
const TOO_MUCH_IS_ONE_IN: usize = 5;

/// What an agent may do with a tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The grant, if tokens are minted ahead, and the name of its offer.
    pub ahead: Option<(Arc<str>, Arc<Grant>)>,
    /// The offers that take a human's yes to each call, strongest first.
    pub per_call: Vec<(Arc<str>, Arc<Grant>)>,
}

/// How one grant, or all that an agent holds, compares with what was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// It allows the same.
    Same,
    /// It allows more and nothing less.
    Widened,
    /// It allows less in something, whatever it allows more.
    Narrowed,
}

/// A tool of which an agent gets another grant than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolChange {
    /// The tool.
    pub tool: Arc<str>,
    /// The resource server.
    pub audience: Arc<str>,
    /// What the agent had.
    pub before: Held,
    /// What it gets.
    pub after: Held,
    /// How what is minted ahead compares. Where that is the same, only what takes a human's yes has changed.
    pub standing: Comparison,
    /// The field in which it was narrowed, or else widened, where there was a grant before and is one now.
    pub field: Option<&'static str>,
}

/// What changes for one agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentDiff {
    /// Tools of which something changes, those of the old version first.
    pub changes: Vec<ToolChange>,
    /// All together: a narrowed agent's old tokens must be refused, and it needs a new session.
    pub standing: Comparison,
    /// How many tools it had tokens minted ahead for.
    pub held: usize,
    /// How many of these it loses.
    pub lost: usize,
}

/// Compares what two decisions give to the same agent.
pub fn diff(old: &AgentDecision, new: &AgentDecision) -> AgentDiff {
    let nothing = |tool: &ToolDecision| ToolDecision {
        ahead: None,
        per_call: Vec::new(),
        offers: Vec::new(),
        ..tool.clone()
    };
    let kept = old.tools.iter().map(|before| {
        let after = new.tool(&before.tool, &before.audience);
        change(before, after.unwrap_or(&nothing(before)))
    });
    let added = new.tools.iter().filter(|tool| old.tool(&tool.tool, &tool.audience).is_none());
    let changes: Vec<_> = kept.chain(added.map(|after| change(&nothing(after), after))).flatten().collect();
    let had = |change: &&ToolChange| change.before.ahead.is_some() && change.after.ahead.is_none();
    AgentDiff {
        standing: changes.iter().map(|change| change.standing).fold(Comparison::Same, Comparison::and),
        held: old.tools.iter().filter(|tool| tool.ahead.is_some()).count(),
        lost: changes.iter().filter(had).count(),
        changes,
    }
}

fn change(before: &ToolDecision, after: &ToolDecision) -> Option<ToolChange> {
    let (held, gets) = (Held::of(before), Held::of(after));
    let (standing, field) = match (&held.ahead, &gets.ahead) {
        (None, None) => (Comparison::Same, None),
        (None, Some(_)) => (Comparison::Widened, None),
        (Some(_), None) => (Comparison::Narrowed, None),
        (Some((_, before)), Some((_, after))) => match compare(before, after) {
            Width::Same => (Comparison::Same, None),
            Width::Wider(field) => (Comparison::Widened, Some(field)),
            Width::Narrower(field) => (Comparison::Narrowed, Some(field)),
        },
    };
    (held != gets).then(|| ToolChange {
        tool: Arc::clone(&before.tool),
        audience: Arc::clone(&before.audience),
        before: held,
        after: gets,
        standing,
        field,
    })
}

impl Held {
    fn of(decision: &ToolDecision) -> Self {
        let told = |chosen: &Chosen| (Arc::clone(&chosen.offer), Arc::clone(&chosen.grant));
        Self {
            ahead: decision.ahead.as_ref().map(told),
            per_call: decision.per_call.iter().map(told).collect(),
        }
    }
}

impl Comparison {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Narrowed, _) | (_, Self::Narrowed) => Self::Narrowed,
            (Self::Widened, _) | (_, Self::Widened) => Self::Widened,
            (Self::Same, Self::Same) => Self::Same,
        }
    }
}

/// How a grant compares with another, and in which field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Width {
    Same,
    Wider(&'static str),
    Narrower(&'static str),
}

/// Compares two grants of one tool by the check that the resource server holds tokens to. A grant that allows less in one
/// field and more in another is narrower: tokens of the old one allow what the new one does not.
pub(crate) fn compare(before: &Grant, after: &Grant) -> Width {
    match (within(before, after), within(after, before)) {
        (Ok(()), Ok(())) => Width::Same,
        (Ok(()), Err(field)) => Width::Wider(field),
        (Err(field), _) => Width::Narrower(field),
    }
}

/// Whether a grant allows no more than another; else the first field in which it does.
fn within(inner: &Grant, outer: &Grant) -> Result<(), &'static str> {
    let nobody = AgentIdentity { agent_instance_id: String::new(), iss: String::new(), sub: String::new() };
    let scope = |grant: &Grant| grant.scope(&nobody, "");
    check_granted(&scope(inner), &scope(outer)).map_err(Widening::as_str)?;
    if inner.ttl > outer.ttl { Err("ttl") } else { Ok(()) }
}

/// What an activation does to all agents that have sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Impact {
    /// How many grants there are.
    pub held: usize,
    /// How many of them go.
    pub lost: usize,
    /// How many agents are narrowed, and must renew.
    pub narrowed: usize,
    /// How many only gain.
    pub widened: usize,
}

impl Impact {
    /// Counts one agent.
    pub fn add(&mut self, diff: &AgentDiff) {
        self.held += diff.held;
        self.lost += diff.lost;
        match diff.standing {
            Comparison::Narrowed => self.narrowed += 1,
            Comparison::Widened => self.widened += 1,
            Comparison::Same => {}
        }
    }

    /// Whether it takes away more than a fifth of all grants: rather a mistake than a wish, until somebody says otherwise.
    pub fn is_too_much(&self) -> bool {
        self.lost.saturating_mul(TOO_MUCH_IS_ONE_IN) > self.held
    }
}
