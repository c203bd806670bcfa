//! The version in force, and perhaps another one beside it that is only looked at.

use std::sync::Arc;

use crate::cache::DecisionCache;
use crate::decision::AgentDecision;
use crate::diff::{AgentDiff, diff};
use crate::facts::{AgentFacts, FactsError, Occasion};
use crate::source::PolicyDigest;
use crate::version::PolicyVersion;

/// What decides.
#[derive(Clone, Debug)]
pub struct InForce {
    version: Arc<PolicyVersion>,
    observed: Option<Arc<PolicyVersion>>,
}

/// What another version would have changed. Nothing was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The other version.
    pub version: PolicyDigest,
    /// What it would change for this agent; or why it could not be asked.
    pub would_change: Result<AgentDiff, FactsError>,
    /// How many of its policies would have failed.
    pub failing: usize,
}

impl InForce {
    /// A version in force.
    pub fn new(version: Arc<PolicyVersion>) -> Self {
        Self { version, observed: None }
    }

    /// The same, with another version to look at, or none.
    #[must_use]
    pub fn observe(self, other: Option<Arc<PolicyVersion>>) -> Self {
        Self { observed: other, ..self }
    }

    /// The version in force.
    pub fn version(&self) -> &Arc<PolicyVersion> {
        &self.version
    }

    /// The version that is looked at.
    pub fn observed(&self) -> Option<&Arc<PolicyVersion>> {
        self.observed.as_ref()
    }

    /// What an agent gets: what the version in force says, whatever the other one does. And what the other one would
    /// change, for the audit log; nothing where both agree and none of its policies fails.
    ///
    /// # Errors
    ///
    /// [`FactsError`] of the version in force alone.
    pub fn decide(
        &self,
        cache: &DecisionCache,
        agent: &AgentFacts,
        moment: &Occasion,
    ) -> Result<(Arc<AgentDecision>, Option<Observed>), FactsError> {
        let decision = cache.decide(&self.version, agent, moment)?;
        let observed = self.observed.as_ref().and_then(|other| {
            let decided = cache.decide(other, agent, moment);
            let failing = decided.as_ref().map_or(0, |decided| decided.alerts.len());
            let would_change = decided.map(|decided| diff(&decision, &decided));
            let agrees = would_change.as_ref().is_ok_and(|diff| diff.changes.is_empty());
            (!agrees || failing > 0).then(|| Observed { version: other.digest(), would_change, failing })
        });
        Ok((decision, observed))
    }
}
