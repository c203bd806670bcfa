//! Policy as Cedar decides it: the [`Decider`] of a service that has a folder of policies.

use std::collections::BTreeSet;
use std::sync::Arc;

use obol_policy::{
    AgentFacts, DecisionCache, HumanFacts, Moment as PolicyMoment, PolicyVersion, Registration,
};

use crate::decider::{Decided, Decider, Moment, Undecided};
use crate::directory::{Agent, Human};

/// The role of whoever speaks on the operator's socket of this machine.
pub const OPERATOR_ROLE: &str = "operator";
const DAY_SECS: u64 = 86_400;

/// A version of the policy in force, and what it decided before.
pub struct CedarDecider {
    version: Arc<PolicyVersion>,
    cache: DecisionCache,
}

impl CedarDecider {
    /// Decides by this version.
    pub fn new(version: Arc<PolicyVersion>) -> Self {
        Self { version, cache: DecisionCache::new() }
    }

    /// What the version is known by.
    pub fn digest(&self) -> String {
        self.version.digest().to_string()
    }
}

impl core::fmt::Debug for CedarDecider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CedarDecider({})", self.version.digest())
    }
}

fn human(human: &Human) -> HumanFacts {
    let roles = match human.issuer.as_str() {
        // Nobody else reaches the socket on which local humans decide.
        "local" => BTreeSet::from([OPERATOR_ROLE.to_owned()]),
        _ => BTreeSet::new(),
    };
    HumanFacts { id: human.to_string(), issuer: human.issuer.clone(), mfa: false, roles }
}

fn facts(agent: &Agent, now: u64) -> AgentFacts {
    AgentFacts {
        id: agent.id.to_string(),
        class: agent.wanted.class.clone(),
        roles: agent.roles.iter().cloned().collect(),
        owner: human(&agent.owner),
        flow: agent.flow.clone(),
        registered_days: now.saturating_sub(agent.registered_at) / DAY_SECS,
        clone_suspected: agent.clone_suspected,
        tags: BTreeSet::new(),
    }
}

impl Decider for CedarDecider {
    fn decide(&self, agent: &Agent, moment: Moment) -> Result<Decided, Undecided> {
        let moment = PolicyMoment {
            now: moment.now,
            suite: moment.suite,
            owner_auth_age_secs: moment.now.saturating_sub(agent.approved_at),
        };
        let decision = self
            .cache
            .decide(&self.version, &facts(agent, moment.now), &moment)
            .map_err(|error| Undecided(error.to_string()))?;
        let alert = |alert: &obol_policy::Alert| {
            format!("policy {} on {} ({}): {}", alert.policy, alert.tool, alert.offer, alert.message)
        };
        Ok(Decided { grants: decision.grants(), alerts: decision.alerts.iter().map(alert).collect() })
    }

    fn may_register(
        &self,
        by: &Human,
        class: &str,
        roles: &[String],
        flow: &str,
        days: u64,
    ) -> Result<bool, Undecided> {
        let roles = roles.iter().cloned().collect();
        let asked = Registration { class, flow, days, roles: &roles };
        let verdict =
            self.version.may_register(&human(by), &asked).map_err(|error| Undecided(error.to_string()))?;
        for error in &verdict.errors {
            tracing::error!(?error, "a rule could not be evaluated, and so denies");
        }
        Ok(verdict.allowed)
    }
}

#[cfg(test)]
mod tests {
    use obol_handshake::{IdentityPublic, SekPublic};
    use obol_policy::PolicySource;

    use super::*;
    use crate::directory::{AgentStatus, Wanted};
    use crate::id::{AgentId, SystemRandom};

    const CATALOGUE: &str = r#"
[[tool]]
name = "search"
audience = "https://api.example"
sets = ["db"]
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["read"]
  resource = "docs/**"
  ttl = 60
"#;
    const POLICIES: &str = r#"
@id("use") permit (principal in Obol::Role::"dev", action == Obol::Action::"use", resource);
@id("ahead") permit (principal in Obol::Role::"dev", action == Obol::Action::"useUnattended", resource);
@id("clones") forbid (principal, action, resource is Obol::Tool) when { principal has clone_suspected && principal.clone_suspected };
@id("operators") permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource)
  when { context.days <= 30 && !context.roles.contains(Obol::Role::"root") };
"#;

    fn decider() -> CedarDecider {
        let policies = [("a.cedar".to_owned(), POLICIES.to_owned())].into();
        let source = PolicySource { catalogue: CATALOGUE.to_owned(), policies };
        CedarDecider::new(Arc::new(PolicyVersion::load(source).unwrap()))
    }

    fn agent(role: &str) -> Agent {
        let by = Human::local("anna");
        Agent {
            id: AgentId::generate(&mut SystemRandom),
            wanted: Wanted {
                name: "builder".into(),
                class: "coding".into(),
                roles: Vec::new(),
                tools: Vec::new(),
                host: String::new(),
                user: String::new(),
                software: String::new(),
            },
            owner: by.clone(),
            identity: IdentityPublic([1; 32]),
            sek: SekPublic([2; 32]),
            roles: vec![role.to_owned()],
            status: AgentStatus::Active,
            flow: "local".into(),
            registered_at: 1_000,
            approved_at: 1_000,
            approved_by: by,
            expires_at: 9_000_000,
            min_suite: None,
            clone_suspected: false,
            chain: None,
            last_session_at: None,
            version: 1,
        }
    }

    #[test]
    fn roles_and_suspicion_decide_what_is_granted() {
        let (decider, moment) = (decider(), Moment { now: 100_000, suite: 4 });
        let granted = decider.decide(&agent("dev"), moment).unwrap().grants;
        assert_eq!(granted.len(), 1);
        assert_eq!((granted[0].tool.as_str(), granted[0].resource.as_str()), ("search", "docs/**"));
        assert!(decider.decide(&agent("other"), moment).unwrap().grants.is_empty());
        let copied = Agent { clone_suspected: true, ..agent("dev") };
        assert!(decider.decide(&copied, moment).unwrap().grants.is_empty());
    }

    #[test]
    fn only_an_operator_of_this_machine_approves_and_not_everything() {
        let decider = decider();
        let may = |by: &Human, role: &str, days| {
            decider.may_register(by, "coding", &[role.to_owned()], "local", days).unwrap()
        };
        let elsewhere = Human { issuer: "https://idp.example".into(), subject: "anna".into() };
        assert!(may(&Human::local("anna"), "dev", 30));
        assert!(!may(&Human::local("anna"), "dev", 31));
        assert!(!may(&Human::local("anna"), "root", 1));
        assert!(!may(&elsewhere, "dev", 1), "by default nobody may");
    }
}
