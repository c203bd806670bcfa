//! Policy as Cedar decides it: the [`Decider`] of a service that has a policy, and [`Policies`], which keeps the versions.

mod policies;

use std::collections::BTreeSet;
use std::sync::Arc;

use obol_policy::{
    AgentFacts, Comparison, DecisionCache, HumanFacts, InForce, Observed, Occasion, PolicyVersion,
    Registration,
};
use obol_session::Grant;

pub use self::policies::{Activated, KeptPolicy, Policies};
use crate::decider::{Decided, Decider, Moment, PerCall, Route, Undecided, Verdict};
use crate::directory::{Agent, Person, PersonStatus};

/// The role of whoever speaks on the operator's socket of this machine.
pub(crate) const OPERATOR_ROLE: &str = "operator";
const DAY_SECS: u64 = 86_400;

/// A version of the policy that decides, perhaps another that is looked at, and what they decided before.
pub(crate) struct CedarDecider {
    in_force: InForce,
    cache: DecisionCache,
}

impl CedarDecider {
    /// Decides by this version, and looks at the other.
    pub(crate) fn new(version: Arc<PolicyVersion>, observed: Option<Arc<PolicyVersion>>) -> Self {
        let in_force = InForce::new(version).observe(observed);
        Self { in_force, cache: DecisionCache::new() }
    }

    /// The requests that are calls of a tool.
    fn routes(&self, name: &str, audience: &str) -> impl Iterator<Item = Route> {
        let tool = self.in_force.version().catalogue().tool(name, audience);
        tool.map_or(&[][..], |tool| &tool.routes).iter().map(|route| Route {
            tool: name.to_owned(),
            aud: audience.to_owned(),
            url: route.url.clone(),
            method: route.method.clone(),
            path: route.path.clone(),
            via: route.via.clone(),
        })
    }
}

impl core::fmt::Debug for CedarDecider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CedarDecider({})", self.in_force.version().digest())
    }
}

/// The most tools that are named of what the observed version would change.
const MAX_NAMED_CHANGES: usize = 8;

/// What the observed version would change, in a line.
fn in_words(observed: &Observed) -> String {
    let diff = match &observed.would_change {
        Ok(diff) => diff,
        Err(error) => return format!("version {} cannot be asked: {error}", observed.version),
    };
    let change = |change: &obol_policy::ToolChange| {
        let word = match (&change.before.ahead, &change.after.ahead) {
            (None, Some(_)) => "gains",
            (Some(_), None) => "loses",
            _ => match change.standing {
                Comparison::Narrowed => "has less of",
                Comparison::Widened => "has more of",
                Comparison::Same => "has another way to a human's yes for",
            },
        };
        format!("{word} {} at {}", change.tool, change.audience)
    };
    let mut named: Vec<String> = diff.changes.iter().take(MAX_NAMED_CHANGES).map(change).collect();
    match diff.changes.len().saturating_sub(MAX_NAMED_CHANGES) {
        0 => {}
        more => named.push(format!("{more} more")),
    }
    if observed.failing > 0 {
        named.push(format!("{} policies fail", observed.failing));
    }
    format!("version {}: {}", observed.version, named.join(", "))
}

fn human(person: &Person) -> HumanFacts {
    let Person { human, roles, mfa, status, organisation, .. } = person;
    let roles = match status {
        // Nobody else reaches the socket on which local humans decide.
        PersonStatus::Active if human.is_local() => BTreeSet::from([OPERATOR_ROLE.to_owned()]),
        PersonStatus::Active => roles.clone(),
        PersonStatus::Disabled => BTreeSet::new(),
    };
    let organisation = organisation.clone();
    HumanFacts { id: human.to_string(), issuer: human.issuer.clone(), organisation, mfa: *mfa, roles }
}

/// The agent as it is with this owner: it has no role that they lack.
fn facts(agent: &Agent, owner: &Person, now: u64) -> AgentFacts {
    AgentFacts {
        id: agent.id.to_string(),
        class: agent.wanted.class.clone(),
        roles: owner.bounds(&agent.roles).into_iter().collect(),
        owner: human(owner),
        flow: agent.flow.clone(),
        registered_days: now.saturating_sub(agent.registered_at) / DAY_SECS,
        clone_suspected: agent.clone_suspected,
        tags: BTreeSet::new(),
    }
}

impl Decider for CedarDecider {
    fn decide(&self, agent: &Agent, owner: &Person, moment: Moment) -> Result<Decided, Undecided> {
        let moment = Occasion {
            now: moment.now,
            suite: moment.suite,
            owner_auth_age_secs: moment.now.saturating_sub(agent.approved_at.max(owner.login_at)),
        };
        let (decision, observed) = self
            .in_force
            .decide(&self.cache, &facts(agent, owner, moment.now), &moment)
            .map_err(|error| Undecided(error.to_string()))?;
        let alert = |alert: &obol_policy::Alert| {
            format!("policy {} on {} ({}): {}", alert.policy, alert.tool, alert.offer, alert.message)
        };
        let grants = decision.grants();
        let per_call: Vec<PerCall> = decision
            .per_call()
            .flat_map(|tool| &tool.per_call)
            .map(|chosen| PerCall { offer: chosen.offer.to_string(), grant: Grant::clone(&chosen.grant) })
            .collect();
        let marked = per_call.iter().map(|offer| &offer.grant);
        let tools: BTreeSet<(&str, &str)> =
            grants.iter().chain(marked).map(|grant| (grant.tool.as_str(), grant.aud.as_str())).collect();
        let routes = tools.iter().flat_map(|(tool, audience)| self.routes(tool, audience)).collect();
        Ok(Decided {
            routes,
            grants,
            per_call,
            alerts: decision.alerts.iter().map(alert).collect(),
            otherwise: observed.iter().map(in_words).collect(),
        })
    }

    fn may_register(
        &self,
        by: &Person,
        class: &str,
        roles: &[String],
        flow: &str,
        days: u64,
    ) -> Result<bool, Undecided> {
        let roles = roles.iter().cloned().collect();
        let asked = Registration { class, flow, days, roles: &roles };
        let verdict = self
            .in_force
            .version()
            .may_register(&human(by), &asked)
            .map_err(|error| Undecided(error.to_string()))?;
        for error in &verdict.errors {
            tracing::error!(?error, "a rule could not be evaluated, and so denies");
        }
        Ok(verdict.allowed)
    }

    fn may_operate(&self, by: &Person, verb: &str) -> Result<Verdict, Undecided> {
        let verdict = self
            .in_force
            .version()
            .may_operate(&human(by), verb)
            .map_err(|error| Undecided(error.to_string()))?;
        for error in &verdict.errors {
            tracing::error!(?error, "a rule could not be evaluated, and so denies");
        }
        let decided_by = verdict.decided_by.iter().map(ToString::to_string).collect();
        Ok(Verdict { allowed: verdict.allowed, decided_by })
    }

    fn may_reach(&self, by: &Person, organisation: &str) -> Result<bool, Undecided> {
        let verdict = self
            .in_force
            .version()
            .may_reach(&human(by), organisation)
            .map_err(|error| Undecided(error.to_string()))?;
        for error in &verdict.errors {
            tracing::error!(?error, "a rule could not be evaluated, and so denies");
        }
        Ok(verdict.allowed)
    }

    fn may_approve_call(
        &self,
        by: &Person,
        agent: &Agent,
        owner: &Person,
        offer: &PerCall,
        now: u64,
    ) -> Result<bool, Undecided> {
        let (by, agent) = (human(by), facts(agent, owner, now));
        let (tool, audience) = (&offer.grant.tool, &offer.grant.aud);
        let verdict = self
            .in_force
            .version()
            .may_approve_call(&by, &agent, tool, audience, &offer.offer)
            .map_err(|error| Undecided(error.to_string()))?;
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
    use crate::directory::{AgentStatus, Human, Wanted};
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
        CedarDecider::new(Arc::new(PolicyVersion::load(source).unwrap()), None)
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
        let owner = Person::unknown(Human::local("anna"));
        let decide = |agent: &Agent, moment| decider.decide(agent, &owner, moment);
        let granted = decide(&agent("dev"), moment).unwrap().grants;
        assert_eq!(granted.len(), 1);
        assert_eq!((granted[0].tool.as_str(), granted[0].resource.as_str()), ("search", "docs/**"));
        assert!(decide(&agent("other"), moment).unwrap().grants.is_empty());
        let copied = Agent { clone_suspected: true, ..agent("dev") };
        assert!(decide(&copied, moment).unwrap().grants.is_empty());
    }

    #[test]
    fn only_an_operator_of_this_machine_approves_and_not_everything() {
        let decider = decider();
        let may = |by: &Human, role: &str, days| {
            let by = Person::unknown(by.clone());
            decider.may_register(&by, "coding", &[role.to_owned()], "local", days).unwrap()
        };
        let elsewhere = Human { issuer: "https://idp.example".into(), subject: "anna".into() };
        assert!(may(&Human::local("anna"), "dev", 30));
        assert!(!may(&Human::local("anna"), "dev", 31));
        assert!(!may(&Human::local("anna"), "root", 1));
        assert!(!may(&elsewhere, "dev", 1), "by default nobody may");
    }

    #[test]
    fn an_agent_has_no_role_that_its_owner_lacks() {
        let (decider, moment) = (decider(), Moment { now: 100_000, suite: 4 });
        let human = Human { issuer: "https://idp.example".into(), subject: "anna".into() };
        let of_anna = Agent { owner: human.clone(), ..agent("dev") };
        let granted = |owner: &Person| decider.decide(&of_anna, owner, moment).unwrap().grants.len();
        let anna = Person { roles: BTreeSet::from(["dev".to_owned()]), ..Person::unknown(human) };
        assert_eq!(granted(&anna), 1);
        assert_eq!(granted(&Person { roles: BTreeSet::new(), ..anna.clone() }), 0);
        assert_eq!(granted(&Person { status: PersonStatus::Disabled, ..anna }), 0);
    }

    #[test]
    fn who_may_operate_is_said_by_policy_and_by_default_nobody() {
        let catalogue = format!("org = \"example\"\n{CATALOGUE}");
        let rule = r#"@id("ops") permit (principal in Obol::Role::"ops", action == Obol::Action::"operate", resource)
            when { context.verb == "agent.disable" };"#;
        let policies = [("a.cedar".to_owned(), rule.to_owned())].into();
        let version = PolicyVersion::load(PolicySource { catalogue, policies }).unwrap();
        let decider = CedarDecider::new(Arc::new(version), None);
        let human = Human { issuer: "https://idp.example".into(), subject: "anna".into() };
        let anna = Person { roles: BTreeSet::from(["ops".to_owned()]), ..Person::unknown(human.clone()) };
        let verdict = decider.may_operate(&anna, "agent.disable").unwrap();
        assert_eq!(verdict, Verdict { allowed: true, decided_by: vec!["ops".to_owned()] });
        assert!(!decider.may_operate(&anna, "policy.activate").unwrap().allowed);
        assert!(!decider.may_operate(&Person::unknown(human), "agent.disable").unwrap().allowed);
    }
}
