//! Answers that are kept: agents that are alike in all that policies read share one. Bounded by what the answers weigh.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::decision::AgentDecision;
use crate::facts::{AgentFacts, FactsError, Occasion};
use crate::limits::MAX_CACHED_OFFERS;
use crate::version::PolicyVersion;

/// Keeps decisions.
#[derive(Debug, Default)]
pub struct DecisionCache {
    kept: Mutex<Generations>,
}

/// What was asked for of late, and what was before that. When the young ones weigh half of what is allowed, the old ones go.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<AgentDecision>>,
    old: HashMap<[u8; 32], Arc<AgentDecision>>,
    young_weight: usize,
}

impl DecisionCache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The decision of a version about an agent. Where policies read the time it is made anew each time.
    ///
    /// # Errors
    ///
    /// As [`PolicyVersion::decide`].
    pub fn decide(
        &self,
        version: &PolicyVersion,
        agent: &AgentFacts,
        moment: &Occasion,
    ) -> Result<Arc<AgentDecision>, FactsError> {
        let Some(key) = version.reads().key(version.digest(), agent, moment) else {
            return version.decide(agent, moment).map(Arc::new);
        };
        if let Some(kept) = self.kept.lock().get(&key) {
            return Ok(kept);
        }
        // Not under the lock: others ask about other agents. Two that ask the same get the same.
        let decision = Arc::new(version.decide(agent, moment)?);
        self.kept.lock().insert(key, Arc::clone(&decision));
        Ok(decision)
    }

    /// How many decisions are kept.
    pub fn len(&self) -> usize {
        let kept = self.kept.lock();
        kept.young.len() + kept.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Generations {
    fn get(&mut self, key: &[u8; 32]) -> Option<Arc<AgentDecision>> {
        if let Some(kept) = self.young.get(key) {
            return Some(Arc::clone(kept));
        }
        let kept = self.old.remove(key)?;
        self.insert(*key, Arc::clone(&kept));
        Some(kept)
    }

    fn insert(&mut self, key: [u8; 32], decision: Arc<AgentDecision>) {
        let weight = decision.weight();
        if self.young_weight + weight > MAX_CACHED_OFFERS / 2 {
            self.old = core::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        if self.young.insert(key, decision).is_none() {
            self.young_weight += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{OfferDecision, ToolDecision, Verdict};
    use crate::source::PolicyDigest;

    /// A decision that weighs as much as this.
    fn decision(weight: usize) -> Arc<AgentDecision> {
        let verdict = Verdict { allowed: false, decided_by: Vec::new(), errors: Vec::new() };
        let offer = OfferDecision { offer: "o".into(), attended: verdict, unattended: None };
        let offers = vec![offer; weight - 1];
        let tool = ToolDecision {
            tool: "t".into(),
            audience: "a".into(),
            ahead: None,
            per_call: Vec::new(),
            offers,
        };
        Arc::new(AgentDecision { version: PolicyDigest([0; 32]), tools: vec![tool], alerts: Vec::new() })
    }

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_stays() {
        let mut kept = Generations::default();
        let first = decision(7);
        kept.insert(key(0), Arc::clone(&first));
        for number in 1..2_000 {
            kept.insert(key(number), decision(1 + number * 37 % 1_000));
            let again = kept.get(&key(0)).expect("asked for all the time, and gone");
            assert!(Arc::ptr_eq(&first, &again));
            let weight = |kept: &HashMap<_, Arc<AgentDecision>>| {
                kept.values().map(|kept| kept.weight()).sum::<usize>()
            };
            assert_eq!(weight(&kept.young), kept.young_weight);
            assert!(weight(&kept.young) + weight(&kept.old) <= MAX_CACHED_OFFERS);
        }
        assert!(kept.get(&key(1)).is_none() && kept.get(&key(1_999)).is_some());
    }

    #[test]
    fn one_that_is_heavier_than_all_may_be_is_kept_alone() {
        let mut kept = Generations::default();
        for number in 0..3 {
            kept.insert(key(number), decision(MAX_CACHED_OFFERS));
            assert_eq!((kept.young.len(), kept.old.len() <= 1), (1, true));
        }
    }
}
