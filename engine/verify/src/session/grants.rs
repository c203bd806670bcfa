//! What a session was granted: the most that its tokens may allow at this resource server.
//!
//! Whoever holds a session's keys can mint any scope under them. The grants, which the server has from where it has the
//! keys, are what keeps a captured sidecar to what was decided.

use core::fmt;
use std::collections::HashMap;

use obol_token::Scope;
use obol_token::delegation::{Widening, check_granted};

/// A session's grants, by tool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Grants(HashMap<Box<str>, Scope>);

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
        Self(scopes.into_iter().map(|scope| (scope.tool.as_str().into(), scope)).collect())
    }

    pub(crate) fn names(&self, tool: &str) -> bool {
        self.0.contains_key(tool)
    }

    pub(crate) fn check(&self, scope: &Scope) -> Result<(), Excess> {
        let grant = self.0.get(scope.tool.as_str()).ok_or(Excess::Tool)?;
        check_granted(scope, grant).map_err(Excess::Field)
    }
}
