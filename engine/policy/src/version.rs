//! A version of the policy: a catalogue and policies that were checked, and the questions they answer.

use std::sync::Arc;

use cedar_policy::{Context, Entities, Request, RestrictedExpression};

use crate::ask::{Asked, Extent, Session, alerts, verdict};
use crate::catalogue::{Catalogue, Tool};
use crate::decision::{AgentDecision, PolicyId, ToolDecision, Verdict};
use crate::facts::{
    AgentFacts, FactsError, HumanFacts, Occasion, Registration, check_name, check_names, long, people,
    refused,
};
use crate::findings;
use crate::limits::{MAX_ID_BYTES, MAX_NAME_BYTES};
use crate::party::Party;
use crate::problem::{LoadError, Problem, Problems};
use crate::reads::Reads;
use crate::rules::Rules;
use crate::source::{CATALOGUE_FILE, PolicyDigest, PolicySource};
use crate::vocabulary::{Action, Kind};

/// A catalogue and policies that hold together. It does not change.
#[derive(Debug)]
pub struct PolicyVersion {
    source: PolicySource,
    digest: PolicyDigest,
    catalogue: Catalogue,
    rules: Rules,
    /// The catalogue's tools, in its order.
    asked: Vec<Asked>,
}

impl PolicyVersion {
    /// Reads and checks a version. That takes a while: not on a thread that others wait for.
    ///
    /// # Errors
    ///
    /// [`LoadError`], which names files and lines.
    pub fn load(source: PolicySource) -> Result<Self, LoadError> {
        let catalogue = Catalogue::from_toml(&source.catalogue)?;
        let rules = Rules::load(&source.policies, &catalogue)?;
        let asked = catalogue.tools().iter().map(|tool| Asked::new(&catalogue, &rules, tool)).collect();
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => {
                let error: FactsError = error;
                let mut problems = Problems::default();
                problems.add(CATALOGUE_FILE, None, error.to_string());
                return Err(problems.into_error());
            }
        };
        Ok(Self { digest: source.digest(), source, catalogue, rules, asked })
    }

    /// What names it.
    pub fn digest(&self) -> PolicyDigest {
        self.digest
    }

    /// Its texts.
    pub fn source(&self) -> &PolicySource {
        &self.source
    }

    /// Its catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Its policies, in the order of files and lines.
    pub fn policy_ids(&self) -> impl Iterator<Item = &PolicyId> {
        self.rules.iter().map(|rule| &rule.id)
    }

    /// What is valid and may be a mistake all the same.
    pub fn findings(&self) -> Vec<Problem> {
        findings::of(&self.catalogue, &self.asked, &self.rules)
    }

    /// What an agent gets.
    ///
    /// # Errors
    ///
    /// [`FactsError`] where nothing can be asked about such an agent.
    pub fn decide(&self, agent: &AgentFacts, moment: &Occasion) -> Result<AgentDecision, FactsError> {
        let session = Session::new(&self.rules, agent, moment)?;
        let tools = session.tools(self.tools(), Extent::UntilGranted)?;
        Ok(AgentDecision { version: self.digest, alerts: alerts(&tools), tools })
    }

    /// What an agent gets of one tool, with every offer asked about, also those behind the grant. At each of its audiences,
    /// or at one.
    ///
    /// # Errors
    ///
    /// [`FactsError`], also where the catalogue has no such tool.
    pub fn explain(
        &self,
        agent: &AgentFacts,
        moment: &Occasion,
        tool: &str,
        audience: Option<&str>,
    ) -> Result<Vec<ToolDecision>, FactsError> {
        let session = Session::new(&self.rules, agent, moment)?;
        let meant =
            |it: &Tool| &*it.name == tool && audience.is_none_or(|audience| &*it.audience == audience);
        let decisions = session.tools(self.tools().filter(|(it, _)| meant(it)), Extent::All)?;
        if decisions.is_empty() {
            let at = audience.map_or_else(String::new, |audience| format!(" at {audience:?}"));
            return Err(FactsError::NoSuchOffer(format!("tool {tool:?}{at}")));
        }
        Ok(decisions)
    }

    /// Whether a human may register such an agent.
    ///
    /// # Errors
    ///
    /// [`FactsError`].
    pub fn may_register(&self, human: &HumanFacts, asked: &Registration<'_>) -> Result<Verdict, FactsError> {
        check_name("the agent's class", asked.class, MAX_NAME_BYTES)?;
        check_name("the agent's flow", asked.flow, MAX_NAME_BYTES)?;
        check_names("the agent's roles", asked.roles)?;
        let roles = asked.roles.iter().map(|role| RestrictedExpression::new_entity_uid(Kind::Role.uid(role)));
        let context = [
            ("flow", RestrictedExpression::new_string(asked.flow.to_owned())),
            ("days", long("days", asked.days)?),
            ("roles", RestrictedExpression::new_set(roles)),
        ];
        let people = people(None, Some(human))?;
        self.ask_human(
            human,
            Action::Register,
            &Party::alone(Kind::AgentClass.uid(asked.class)),
            context,
            &people,
        )
    }

    /// Whether a human may do this to the organisation, in the console or over the API.
    ///
    /// # Errors
    ///
    /// [`FactsError`], also where the catalogue names no organisation.
    pub fn may_operate(&self, human: &HumanFacts, verb: &str) -> Result<Verdict, FactsError> {
        check_name("the verb", verb, MAX_NAME_BYTES)?;
        let org = self.catalogue.org().ok_or(FactsError::NoOrganisation)?;
        let context = [("verb", RestrictedExpression::new_string(verb.to_owned()))];
        self.ask_human(
            human,
            Action::Operate,
            &Party::alone(Kind::Org.uid(org)),
            context,
            &people(None, Some(human))?,
        )
    }

    /// Whether a human may see, and decide on, what belongs to this other organisation. Where the catalogue names no organisation,
    /// nobody may.
    ///
    /// # Errors
    ///
    /// [`FactsError`].
    pub fn may_reach(&self, human: &HumanFacts, organisation: &str) -> Result<Verdict, FactsError> {
        check_name("the organisation", organisation, MAX_ID_BYTES)?;
        let Some(org) = self.catalogue.org() else {
            return Ok(Verdict { allowed: false, decided_by: Vec::new(), errors: Vec::new() });
        };
        let context = [("organisation", RestrictedExpression::new_string(organisation.to_owned()))];
        self.ask_human(
            human,
            Action::Reach,
            &Party::alone(Kind::Org.uid(org)),
            context,
            &people(None, Some(human))?,
        )
    }

    /// Whether a human may say yes to one call that an agent makes under an offer.
    ///
    /// # Errors
    ///
    /// [`FactsError`], also where the catalogue has no such offer.
    pub fn may_approve_call(
        &self,
        human: &HumanFacts,
        agent: &AgentFacts,
        tool: &str,
        audience: &str,
        offer: &str,
    ) -> Result<Verdict, FactsError> {
        let missing = || FactsError::NoSuchOffer(format!("offer {offer:?} of tool {tool:?} at {audience:?}"));
        let found = self.tools().find(|(it, _)| &*it.name == tool && &*it.audience == audience);
        let (tool, asked) = found.ok_or_else(missing)?;
        let place = tool.offers.iter().position(|it| &*it.name == offer).ok_or_else(missing)?;
        let record = asked.offers.get(place).ok_or_else(missing)?;
        let people = people(Some(agent), Some(human))?;
        let entities = people.add_entities(asked.entities.clone(), None).map_err(refused)?;
        let context =
            [("agent", RestrictedExpression::new_entity_uid(agent.uid())), ("offer", record.clone())];
        self.ask_human(human, Action::ApproveCall, &asked.party, context, &entities)
    }

    pub(crate) fn reads(&self) -> Reads {
        self.rules.reads
    }

    fn tools(&self) -> impl Iterator<Item = (&Tool, &Asked)> {
        self.catalogue.tools().iter().zip(&self.asked)
    }

    fn ask_human<const N: usize>(
        &self,
        human: &HumanFacts,
        action: Action,
        resource: &Party,
        context: [(&str, RestrictedExpression); N],
        entities: &Entities,
    ) -> Result<Verdict, FactsError> {
        let context = context.map(|(name, value)| (name.to_owned(), value));
        let context = Context::from_pairs(context).map_err(refused)?;
        let principal = human.party();
        let bearing = self.rules.of_principal(action, &principal).and(&self.rules.of_resource(resource));
        let policies = self.rules.set(&bearing)?;
        let (principal, resource) = (principal.uid, resource.uid.clone());
        let request = Request::new(principal, action.uid(), resource, context, None).map_err(refused)?;
        Ok(verdict(&self.rules, &request, &policies, entities))
    }

    #[cfg(test)]
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Arc<PolicyVersion>>();
};
