//! The policies that a question is put to: of all that can bear on the agent those that can bear on the tool.

use core::cell::OnceCell;
use std::borrow::Cow;

use cedar_policy::PolicySet;

use super::Rules;
use super::heads::Marked;
use crate::facts::FactsError;
use crate::party::Party;
use crate::vocabulary::Action;

/// The policies that can bear on an agent that does something, with whatever tool.
pub(crate) struct Bearing<'a> {
    rules: &'a Rules,
    all: Marked,
    set: OnceCell<PolicySet>,
}

impl<'a> Bearing<'a> {
    pub(crate) fn new(rules: &'a Rules, action: Action, agent: &Party) -> Self {
        Self { rules, all: rules.of_principal(action, agent), set: OnceCell::new() }
    }

    /// Those of them that can bear on a tool too.
    pub(crate) fn on(&self, tool: &Marked) -> Marked {
        self.all.and(tool)
    }

    /// All of them, put together once.
    fn whole(&self) -> Result<&PolicySet, FactsError> {
        if let Some(set) = self.set.get() {
            return Ok(set);
        }
        let set = self.rules.set(&self.all)?;
        Ok(self.set.get_or_init(|| set))
    }
}

/// What so many tools are asked with, on which the same policies bear. Put together when it is first needed.
pub(crate) struct Slice<'a> {
    of: &'a Bearing<'a>,
    marked: &'a Marked,
    tools: usize,
    set: OnceCell<Cow<'a, PolicySet>>,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(of: &'a Bearing<'a>, marked: &'a Marked, tools: usize) -> Self {
        Self { of, marked, tools, set: OnceCell::new() }
    }

    /// To put a policy into a set takes less than to ask it once. So it pays where that leaves out more questions than it puts in policies;
    /// otherwise all are asked, to the same end.
    fn pays(&self) -> bool {
        let (some, all) = (self.marked.count(), self.of.all.count());
        some <= all.saturating_sub(some).saturating_mul(self.tools)
    }

    pub(crate) fn policies(&self) -> Result<&PolicySet, FactsError> {
        if let Some(set) = self.set.get() {
            return Ok(set);
        }
        let set = if self.pays() {
            Cow::Owned(self.of.rules.set(self.marked)?)
        } else {
            Cow::Borrowed(self.of.whole()?)
        };
        Ok(self.set.get_or_init(|| set))
    }
}
