//! Asking Cedar, and what its answers mean here: an error in any policy denies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use obol_session::{ApprovalRule, Grant};

use crate::catalogue::{Catalogue, Offer, Tool};
use crate::decision::{Alert, Chosen, OfferDecision, PolicyError, ToolDecision, Verdict};
use crate::facts::{AgentFacts, FactsError, Occasion, long, people, refused};
use crate::limits::MAX_ALERTS;
use crate::party::Party;
use crate::rules::Rules;
use crate::rules::heads::Marked;
use crate::rules::slices::{Bearing, Slice};
use crate::vocabulary::{Action, Kind};

/// The longest that an alert says of why a policy failed, in bytes.
const MAX_REASON_BYTES: usize = 300;

/// A tool as Cedar sees it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) party: Party,
    /// The tool and its audience. Tools of one name at two audiences are two, so each is shown alone.
    pub(crate) entities: [Entity; 2],
    /// The offers, as the context of a question has them.
    pub(crate) offers: Vec<RestrictedExpression>,
    /// The policies that can bear on it.
    pub(crate) bearing: Marked,
}

impl Asked {
    /// A tool of a catalogue, beside the policies of its version.
    pub(crate) fn new(catalogue: &Catalogue, rules: &Rules, tool: &Tool) -> Result<Self, FactsError> {
        let audience = Kind::Audience.uid(&tool.audience);
        let uid = Kind::Tool.uid(&tool.name);
        let sets = tool.sets.iter().map(|set| Kind::ToolSet.uid(set));
        let parents: HashSet<_> = sets.chain([audience.clone()]).collect();
        let risk = RestrictedExpression::new_string(tool.risk.as_str().to_owned());
        let attributes = HashMap::from([("risk".to_owned(), risk)]);
        let org = catalogue.org().map(|org| Kind::Org.uid(org));
        let entities = [
            Entity::new(uid.clone(), attributes, parents).map_err(refused)?,
            Entity::new_no_attrs(audience, org.into_iter().collect()),
        ];
        // What it is in, as Cedar itself has it: `in` is looked up there.
        let seen = Entities::from_entities(entities.clone(), None).map_err(refused)?;
        let groups = seen.ancestors(&uid).map(|groups| groups.cloned().collect());
        let groups = groups.ok_or_else(|| refused("it does not know the tool that it was told of"))?;
        let party = Party { uid, groups };
        Ok(Self {
            entities,
            offers: tool.offers.iter().map(record).collect::<Result<_, _>>()?,
            bearing: rules.of_resource(&party),
            party,
        })
    }
}

/// An offer in the schema's words.
fn record(offer: &Offer) -> Result<RestrictedExpression, FactsError> {
    let grant = &offer.grant;
    let limits = grant.constraints.clone().unwrap_or_default();
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let texts = |texts: &mut dyn Iterator<Item = &String>| {
        RestrictedExpression::new_set(texts.map(|each| text(each)).collect::<Vec<_>>())
    };
    let mut fields = vec![
        ("name", text(&offer.name)),
        ("actions", texts(&mut grant.action.iter())),
        ("resource", text(&grant.resource)),
        ("channel_encryption", RestrictedExpression::new_bool(grant.asks_for_channel())),
        ("pop", RestrictedExpression::new_bool(grant.require_pop)),
        ("delegation_depth", long("delegation_depth", grant.delegation_depth)?),
        ("ttl", long("ttl", grant.ttl)?),
    ];
    if let Some(rows) = limits.max_rows {
        fields.push(("max_rows", long("max_rows", rows)?));
    }
    if let Some(window) = limits.time_window_sec {
        fields.push(("time_window_sec", long("time_window_sec", window)?));
    }
    if let Some(class) = &limits.data_classification {
        fields.push(("data_classification", text(class)));
    }
    if let Some(parameters) = &limits.allowed_parameters {
        fields.push(("parameters", texts(&mut parameters.keys())));
    }
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    RestrictedExpression::new_record(fields).map_err(refused)
}

/// Whether all offers are asked about, or no more than it takes to find the grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    UntilGranted,
    All,
}

/// Everything about an agent and a moment that is the same for all tools.
pub(crate) struct Session<'a> {
    rules: &'a Rules,
    agent: EntityUid,
    people: Entities,
    moment: RestrictedExpression,
    attended: Bearing<'a>,
    unattended: Bearing<'a>,
}

/// What to ask about a tool.
struct Slices<'a> {
    attended: Slice<'a>,
    unattended: Slice<'a>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(rules: &'a Rules, agent: &AgentFacts, moment: &Occasion) -> Result<Self, FactsError> {
        // Before anything else: it checks the facts.
        let people = people(Some(agent), None)?;
        let agent = agent.party();
        Ok(Self {
            rules,
            people,
            moment: moment.record()?,
            attended: Bearing::new(rules, Action::Use, &agent),
            unattended: Bearing::new(rules, Action::UseUnattended, &agent),
            agent: agent.uid,
        })
    }

    /// What the agent gets of tools, in their order. Tools on which the same policies bear are asked about together; so there are never more
    /// policies in memory than twice those of the version.
    pub(crate) fn tools<'t>(
        &self,
        tools: impl Iterator<Item = (&'t Tool, &'t Asked)>,
        extent: Extent,
    ) -> Result<Vec<ToolDecision>, FactsError> {
        let mut alike: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, (tool, asked)) in tools.enumerate() {
            let marked = (self.attended.on(&asked.bearing), self.unattended.on(&asked.bearing));
            alike.entry(marked).or_default().push((place, tool, asked));
        }
        let mut decisions = BTreeMap::new();
        for ((attended, unattended), tools) in &alike {
            let slices = Slices {
                attended: Slice::new(&self.attended, attended, tools.len()),
                unattended: Slice::new(&self.unattended, unattended, tools.len()),
            };
            for (place, tool, asked) in tools {
                decisions.insert(*place, self.tool(tool, asked, &slices, extent)?);
            }
        }
        Ok(decisions.into_values().collect())
    }

    fn tool(
        &self,
        tool: &Tool,
        asked: &Asked,
        slices: &Slices<'_>,
        extent: Extent,
    ) -> Result<ToolDecision, FactsError> {
        let entities = self.people.clone().add_entities(asked.entities.clone(), None).map_err(refused)?;
        let mut decision = ToolDecision {
            tool: Arc::clone(&tool.name),
            audience: Arc::clone(&tool.audience),
            ahead: None,
            per_call: Vec::new(),
            offers: Vec::with_capacity(tool.offers.len()),
        };
        for (offer, record) in tool.offers.iter().zip(&asked.offers) {
            if decision.ahead.is_some() && extent == Extent::UntilGranted {
                break;
            }
            let answer = self.offer(offer, record, asked, slices, &entities)?;
            if decision.ahead.is_none() {
                let chosen = |grant| Chosen {
                    offer: Arc::clone(&offer.name),
                    grant,
                    decided_by: answer.decided_by().into_iter().cloned().collect(),
                };
                if answer.is_ahead() {
                    decision.ahead = Some(chosen(Arc::clone(&offer.grant)));
                } else if answer.is_per_call() {
                    let grant = Grant { approval: ApprovalRule::PerCall, ..Grant::clone(&offer.grant) };
                    decision.per_call.push(chosen(Arc::new(grant)));
                }
            }
            decision.offers.push(answer);
        }
        Ok(decision)
    }

    fn offer(
        &self,
        offer: &Offer,
        record: &RestrictedExpression,
        asked: &Asked,
        slices: &Slices<'_>,
        entities: &Entities,
    ) -> Result<OfferDecision, FactsError> {
        let context = [("offer".to_owned(), record.clone()), ("moment".to_owned(), self.moment.clone())];
        let context = Context::from_pairs(context).map_err(refused)?;
        let ask = |action: Action, policies: &PolicySet| {
            let (agent, tool) = (self.agent.clone(), asked.party.uid.clone());
            let request = Request::new(agent, action.uid(), tool, context.clone(), None).map_err(refused)?;
            Ok(verdict(self.rules, &request, policies, entities))
        };
        let attended = ask(Action::Use, slices.attended.policies()?)?;
        let unattended = match attended.allowed {
            true => Some(ask(Action::UseUnattended, slices.unattended.policies()?)?),
            false => None,
        };
        Ok(OfferDecision { offer: Arc::clone(&offer.name), attended, unattended })
    }
}

/// Cedar's answer. It passes over policies that fail; here they deny.
pub(crate) fn verdict(
    rules: &Rules,
    request: &Request,
    policies: &PolicySet,
    entities: &Entities,
) -> Verdict {
    let response = Authorizer::new().is_authorized(request, policies, entities);
    let errors: Vec<_> = response.diagnostics().errors().map(|error| policy_error(rules, error)).collect();
    let mut decided_by: Vec<_> = response.diagnostics().reason().map(|id| rules.id(id)).collect();
    decided_by.sort();
    Verdict {
        allowed: response.decision() == cedar_policy::Decision::Allow && errors.is_empty(),
        decided_by,
        errors,
    }
}

fn policy_error(rules: &Rules, error: &AuthorizationError) -> PolicyError {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    let mut message = error.inner().to_string();
    let longest = message.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_REASON_BYTES);
    message.truncate(longest.unwrap_or(message.len()));
    PolicyError { policy: rules.id(error.policy_id()), message }
}

/// The policies that failed, for whoever must mend them.
pub(crate) fn alerts(tools: &[ToolDecision]) -> Vec<Alert> {
    let offers = tools.iter().flat_map(|tool| tool.offers.iter().map(move |offer| (tool, offer)));
    let errors = offers.flat_map(|(tool, offer)| {
        let errors = offer.verdicts().flat_map(|verdict| &verdict.errors);
        errors.map(move |error| Alert {
            policy: error.policy.clone(),
            tool: Arc::clone(&tool.tool),
            offer: Arc::clone(&offer.offer),
            message: error.message.clone(),
        })
    });
    errors.take(MAX_ALERTS).collect()
}
