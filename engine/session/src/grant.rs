//! A grant: the right to mint tokens of one scope for one resource server, and there the most that is accepted.

use obol_token::one_or_many;
use obol_token::{Constraints, Scope};
use serde::{Deserialize, Serialize};

use crate::error::{DocumentError, refuse};
use crate::limits::{DEFAULT_TTL_SECS, MAX_NAME_BYTES, MAX_TTL_SECS, is_name};

/// Who may use a session's tokens: the fields of every scope that are the session's and not the grant's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentIdentity {
    /// The agent instance.
    pub agent_instance_id: String,
    /// Who made the session.
    pub iss: String,
    /// Whose key it was made with.
    pub sub: String,
}

/// What a grant takes besides itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRule {
    /// Nothing: its tokens are minted ahead.
    #[default]
    None,
    /// A human's yes to each call. Nothing is minted ahead; the tokens are of trust level 3.
    PerCall,
}

impl ApprovalRule {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The right to mint tokens of one scope for one resource server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub aud: String,
    /// The allowed actions, at least one, order kept.
    #[serde(with = "one_or_many")]
    pub action: Vec<String>,
    /// The allowed resources, as a pattern.
    pub resource: String,
    /// Limits on how the tool is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// How many times a token's scope may be delegated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delegation_depth: u64,
    /// Whether a request must prove possession of the session's key.
    #[serde(default, skip_serializing_if = "is_false")]
    pub require_pop: bool,
    /// 0 to 3; tokens of 3 are not minted ahead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trust_level: u64,
    /// Whether a human is asked about each call.
    #[serde(default, skip_serializing_if = "ApprovalRule::is_none")]
    pub approval: ApprovalRule,
    /// Why calls are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Life of a token, in seconds.
    #[serde(default = "default_ttl", skip_serializing_if = "is_default_ttl")]
    pub ttl: u64,
}

fn default_ttl() -> u64 {
    DEFAULT_TTL_SECS
}

fn is_default_ttl(ttl: &u64) -> bool {
    *ttl == DEFAULT_TTL_SECS
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Grant {
    /// Whether its tokens ask for calls and answers to be sealed.
    pub fn asks_for_channel(&self) -> bool {
        self.constraints.as_ref().is_some_and(|limits| limits.require_channel_encryption == Some(true))
    }

    /// Whether a human is asked about each call.
    pub fn is_per_call(&self) -> bool {
        self.approval == ApprovalRule::PerCall
    }

    /// The scope of the tokens that this grant allows to mint for an agent of an organisation.
    pub fn scope(&self, agent: &AgentIdentity, org_id: &str) -> Scope {
        Scope {
            iss: agent.iss.clone(),
            sub: agent.sub.clone(),
            agent_instance_id: agent.agent_instance_id.clone(),
            org_id: org_id.to_owned(),
            tool: self.tool.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            constraints: self.constraints.clone(),
            delegation_depth: self.delegation_depth,
            parent_token_hash: None,
            require_pop: self.require_pop,
            aud: self.aud.clone(),
            trust_level: self.trust_level,
            human_confirmed_at: 0,
            approval_digest: None,
            purpose: self.purpose.clone(),
            txn_id: None,
            user_raw_intent: None,
            intent_hash: None,
        }
    }

    /// The rules that hold in both halves.
    pub(crate) fn check(&self, field: &str) -> Result<(), DocumentError> {
        let tool = &self.tool;
        if !is_name(tool) {
            return refuse(
                format!("{field}.tool"),
                format!("a tool name must be 1 to {MAX_NAME_BYTES} bytes of visible ASCII"),
            );
        }
        if self.action.is_empty() || self.action.iter().any(String::is_empty) {
            return refuse(format!("{field}.action"), format!("tool {tool:?}: action is missing"));
        }
        if self.resource.is_empty() {
            return refuse(
                format!("{field}.resource"),
                format!("tool {tool:?}: resource is empty; use ** for the whole tool"),
            );
        }
        if self.ttl == 0 || self.ttl > MAX_TTL_SECS {
            return refuse(
                format!("{field}.ttl"),
                format!("tool {tool:?}: ttl must be 1 to {MAX_TTL_SECS} seconds"),
            );
        }
        if self.trust_level > 3 {
            return refuse(
                format!("{field}.trust_level"),
                format!("tool {tool:?}: trust_level must be 0, 1, 2 or 3"),
            );
        }
        match self.constraints.as_ref().and_then(|constraints| constraints.max_calls) {
            None | Some(1) => Ok(()),
            Some(_) => refuse(
                format!("{field}.constraints.max_calls"),
                format!("tool {tool:?}: max_calls must be 1, tokens are single-use"),
            ),
        }
    }

    /// Checks what a session that is minted ahead may grant. `field` names the grant in what is said.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Rule`].
    pub fn check_minted_ahead(&self, field: &str) -> Result<(), DocumentError> {
        self.check(field)?;
        if self.trust_level > 2 {
            return refuse(
                format!("{field}.trust_level"),
                format!(
                    "tool {:?}: trust level 3 needs a human's approval of each call and cannot be minted ahead",
                    self.tool
                ),
            );
        }
        Ok(())
    }
}
