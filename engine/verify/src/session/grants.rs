//! What a session was granted: the most that its tokens may allow at this resource server.
//!
//! Whoever holds a session's keys can mint any scope under them. The grants, which the server has from where it has the
//! keys, are what keeps a captured sidecar to what was decided.

use core::fmt;
use std::collections::HashMap;

use obol_session::{APPROVED_TRUST_LEVEL, AgentIdentity, Grant};
use obol_token::Scope;
use obol_token::delegation::{Widening, check_granted};

/// A session's grants, by tool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Grants {
    ahead: HashMap<Box<str>, Scope>,
    /// What takes a human's yes to each call, as the tokens of such a call have it.
    per_call: HashMap<Box<str>, Vec<Scope>>,
}

/// In what a token allows more than was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Excess {
    /// The tool was not granted at all.
    Tool,
    /// A field goes beyond the grant's.
    Field(Widening),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool => f.write_str("the session has no grant for the tool"),
            Self::Field(field) => write!(f, "the token exceeds its session's grant in {}", field.as_str()),
        }
    }
}

impl Grants {
    /// The widest scope for each tool. Of two for one tool the last counts.
    pub(crate) fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let ahead = scopes.into_iter().map(|scope| (scope.tool.as_str().into(), scope)).collect();
        Self { ahead, per_call: HashMap::new() }
    }

    /// Those of a half that says them.
    pub(crate) fn of(grants: &[Grant], agent: &AgentIdentity, org_id: &str) -> Self {
        let (per_call, ahead): (Vec<_>, Vec<_>) = grants.iter().partition(|grant| grant.is_per_call());
        let mut all = Self::new(ahead.into_iter().map(|grant| grant.scope(agent, org_id)));
        for grant in per_call {
            // It is not passed on: a human said yes to this call.
            let scope = Scope {
                trust_level: APPROVED_TRUST_LEVEL,
                delegation_depth: 0,
                ..grant.scope(agent, org_id)
            };
            all.per_call.entry(scope.tool.as_str().into()).or_default().push(scope);
        }
        all
    }

    /// Whether calls of the tool take a human's yes, at a trust level that nothing else has.
    pub(crate) fn asks_for_approval(&self, tool: &str) -> bool {
        self.per_call.contains_key(tool)
    }

    pub(crate) fn names(&self, tool: &str) -> bool {
        self.ahead.contains_key(tool) || self.per_call.contains_key(tool)
    }

    pub(crate) fn check(&self, scope: &Scope) -> Result<(), Excess> {
        let ways =
            self.per_call.get(scope.tool.as_str()).filter(|_| scope.trust_level >= APPROVED_TRUST_LEVEL);
        let Some(ways) = ways else {
            let grant = self.ahead.get(scope.tool.as_str()).ok_or(Excess::Tool)?;
            return check_granted(scope, grant).map_err(Excess::Field);
        };
        let mut excess = Excess::Tool;
        for way in ways {
            match check_granted(scope, way) {
                Ok(()) => return Ok(()),
                Err(field) => excess = Excess::Field(field),
            }
        }
        Err(excess)
    }
}
