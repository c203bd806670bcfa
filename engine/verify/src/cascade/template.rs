//! Policy templates: the most that tokens of one agent for one tool may allow (TBAC r41, section 7).

use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use obol_token::delegation::{Widening, constraints_attenuate, resource_is_within};
use obol_token::{Constraints, Scope};
use serde::Deserialize;

/// The answer to "what may this agent be allowed to do with this tool here?".
#[derive(Clone, Debug, Default)]
pub enum Template {
    /// Whatever the token's issuer decided.
    Any,
    /// What the session was granted ([`crate::Session::with_grants`]); nothing where it does not say.
    #[default]
    Granted,
    /// Nothing: there is no template, and without one every token is refused.
    None,
    /// At most this.
    Ceiling(Arc<Ceiling>),
}

/// Where the cascade looks templates up (step 13). Asked only about tokens whose signature held.
pub trait Templates: Send + Sync + fmt::Debug {
    /// The template for this agent instance and tool.
    fn template(&self, agent_instance_id: &str, tool: &str) -> Template;
}

/// The same answer for every agent and tool.
impl Templates for Template {
    fn template(&self, _agent_instance_id: &str, _tool: &str) -> Template {
        self.clone()
    }
}

/// Templates by agent instance and tool; an agent or tool that is not listed has none.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "HashMap<String, HashMap<String, Ceiling>>")]
pub struct TemplateTable {
    ceilings: HashMap<String, HashMap<String, Arc<Ceiling>>>,
}

impl From<HashMap<String, HashMap<String, Ceiling>>> for TemplateTable {
    fn from(agents: HashMap<String, HashMap<String, Ceiling>>) -> Self {
        let shared = |tools: HashMap<String, Ceiling>| {
            tools.into_iter().map(|(tool, ceiling)| (tool, Arc::new(ceiling))).collect()
        };
        Self { ceilings: agents.into_iter().map(|(agent, tools)| (agent, shared(tools))).collect() }
    }
}

impl TemplateTable {
    /// An empty table, which allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the template of one agent instance for one tool.
    pub fn insert(&mut self, agent_instance_id: &str, tool: &str, ceiling: Ceiling) {
        self.ceilings
            .entry(agent_instance_id.to_owned())
            .or_default()
            .insert(tool.to_owned(), Arc::new(ceiling));
    }
}

impl Templates for TemplateTable {
    fn template(&self, agent_instance_id: &str, tool: &str) -> Template {
        self.ceilings
            .get(agent_instance_id)
            .and_then(|tools| tools.get(tool))
            .map_or(Template::None, |ceiling| Template::Ceiling(Arc::clone(ceiling)))
    }
}

/// The widest scope that is accepted. An absent field sets no limit.
///
/// Section 7 asks that every token be a *subset* of its template. A token without `max_rows` or `time_window_sec`
/// is unlimited, so it is refused under a ceiling on that field; the reference implementation lets it pass.
/// `max_calls` is different: a token is spent by its first call, so one without `max_calls` stands for one call
/// (section 3.3, where the template's figure counts tokens per time, not calls per token).
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Actions that a token may name. Present and empty allows none.
    #[serde(default)]
    pub allowed_actions: Option<Vec<String>>,
    /// The highest `max_rows`.
    #[serde(default)]
    pub max_rows: Option<u64>,
    /// The highest `max_calls`; 0 allows no token at all.
    #[serde(default)]
    pub max_calls: Option<u64>,
    /// The highest `time_window_sec`, in seconds.
    #[serde(default)]
    pub time_window_sec: Option<u64>,
    /// Audiences that a token may be for.
    #[serde(default)]
    pub permitted_audiences: Option<Vec<String>>,
    /// The lowest trust level.
    #[serde(default)]
    pub min_trust_level: Option<u64>,
    /// The highest `delegation_depth`.
    #[serde(default)]
    pub max_delegation_depth: Option<u64>,
    /// Whether every token must ask for proof of possession.
    #[serde(default)]
    pub require_pop: bool,
    /// Whether every token must carry a human's approval (trust level 3).
    #[serde(default)]
    pub require_ciba: bool,
    /// Whether every token must carry what the user asked for.
    #[serde(default)]
    pub require_intent_capture: bool,
    /// The pattern that the token's resource must lie within.
    #[serde(default)]
    pub resource: Option<String>,
    /// Whether every request must arrive encrypted.
    #[serde(default)]
    pub require_channel_encryption: bool,
    /// The classification of data that every token must name.
    #[serde(default)]
    pub data_classification: Option<String>,
    /// The arguments that a token may allow, and their patterns.
    #[serde(default)]
    pub allowed_parameters: Option<BTreeMap<String, String>>,
}

impl Ceiling {
    /// An action of the scope that this template does not allow.
    pub(crate) fn excess_action<'a>(&self, scope: &'a Scope) -> Option<&'a str> {
        let allowed = self.allowed_actions.as_ref()?;
        scope.action.iter().find(|action| !allowed.contains(action)).map(String::as_str)
    }

    /// The first field other than the actions in which the scope exceeds this template.
    pub(crate) fn excess_field(&self, scope: &Scope) -> Option<&'static str> {
        const SINGLE_USE: u64 = 1;
        let limits = scope.constraints.as_ref();
        let max_rows = limits.and_then(|limits| limits.max_rows);
        let max_calls = limits.and_then(|limits| limits.max_calls).or(Some(SINGLE_USE));
        let time_window = limits.and_then(|limits| limits.time_window_sec);
        let within = |value: Option<u64>, ceiling: Option<u64>| {
            ceiling.is_none_or(|ceiling| value.is_some_and(|value| value <= ceiling))
        };
        let checks = [
            (self.min_trust_level.is_none_or(|least| scope.trust_level >= least), "trust_level"),
            (self.permitted_audiences.as_ref().is_none_or(|list| list.contains(&scope.aud)), "aud"),
            (within(max_rows, self.max_rows), "max_rows"),
            (within(max_calls, self.max_calls), "max_calls"),
            (within(time_window, self.time_window_sec), "time_window_sec"),
            (within(Some(scope.delegation_depth), self.max_delegation_depth), "delegation_depth"),
            (scope.require_pop || !self.require_pop, "require_pop"),
            (scope.trust_level == 3 || !self.require_ciba, "trust_level"),
            (scope.user_raw_intent.is_some() || !self.require_intent_capture, "user_raw_intent"),
        ];
        let excess = checks.into_iter().find(|(holds, _)| !holds).map(|(_, field)| field);
        excess.or_else(|| self.excess_in_what_is_reached(scope))
    }

    /// By the rules of delegation: a template is to a token what a parent is to its child.
    fn excess_in_what_is_reached(&self, scope: &Scope) -> Option<&'static str> {
        if self.resource.as_ref().is_some_and(|resource| !resource_is_within(&scope.resource, resource)) {
            return Some(Widening::Resource.as_str());
        }
        let limits = Constraints {
            require_channel_encryption: Some(self.require_channel_encryption),
            data_classification: self.data_classification.clone(),
            allowed_parameters: self.allowed_parameters.clone(),
            ..Constraints::default()
        };
        let unlimited = Constraints::default();
        let own = scope.constraints.as_ref().unwrap_or(&unlimited);
        constraints_attenuate(own, &limits).err().map(Widening::as_str)
    }
}
