//! Attenuation: a delegated scope never allows more than the scope it came from (TBAC r41, sections 8 and 8.1).
//!
//! The same check stands where a child is minted and where it is verified. Compare a child with its own parent,
//! never through a third scope: the relation on resources is not transitive, on purpose.

use core::fmt;
use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::pattern::{ResourcePattern, parameter_is_within};
use crate::scope::{Constraints, Scope, ScopeError};

/// How a minter names a refusal for widening (TBAC r41, section 8.1).
pub const SCOPE_CEILING_EXCEEDED: &str = "ScopeCeilingExceeded";

/// The value of a child's `parent_token_hash`: SHA-256 of the parent's canonical scope.
pub fn scope_hash(scope_tlv: &[u8]) -> [u8; 32] {
    Sha256::digest(scope_tlv).into()
}

/// The hash by which a child names this scope as its parent.
///
/// # Errors
///
/// [`ScopeError`] if the parent breaks a rule of its own.
pub fn hash_of(parent: &Scope) -> Result<[u8; 32], ScopeError> {
    Ok(scope_hash(&parent.to_tlv()?))
}

/// The first field in which a scope allows more than another: a child than its parent, a token than its grant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Widening {
    /// Another issuer.
    Issuer,
    /// Another tool.
    Tool,
    /// Another organisation.
    OrgId,
    /// Another resource server.
    Audience,
    /// Another subject.
    Subject,
    /// Another agent instance.
    AgentInstance,
    /// `delegation_depth` does not get smaller, or is higher than the grant's.
    DelegationDepth,
    /// A higher trust level.
    TrustLevel,
    /// An action that the parent lacks.
    Action,
    /// A resource that the parent does not cover.
    Resource,
    /// The parent asks for proof of possession, the child does not.
    RequirePop,
    /// The parent has constraints, the child has none at all.
    Constraints,
    /// `max_rows` is higher or gone.
    MaxRows,
    /// `max_calls` is higher or gone.
    MaxCalls,
    /// `time_window_sec` is higher or gone.
    TimeWindow,
    /// The parent asks for channel encryption, the child does not.
    ChannelEncryption,
    /// `data_classification` differs from the parent's.
    DataClassification,
    /// An argument is allowed that the parent does not allow.
    AllowedParameters,
}

impl Widening {
    /// The field at fault, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "iss",
            Self::Tool => "tool",
            Self::OrgId => "org_id",
            Self::Audience => "aud",
            Self::Subject => "sub",
            Self::AgentInstance => "agent_instance_id",
            Self::DelegationDepth => "delegation_depth",
            Self::TrustLevel => "trust_level",
            Self::Action => "action",
            Self::Resource => "resource",
            Self::RequirePop => "require_pop",
            Self::Constraints => "constraints",
            Self::MaxRows => "max_rows",
            Self::MaxCalls => "max_calls",
            Self::TimeWindow => "time_window_sec",
            Self::ChannelEncryption => "require_channel_encryption",
            Self::DataClassification => "data_classification",
            Self::AllowedParameters => "allowed_parameters",
        }
    }
}

impl fmt::Display for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the scope is wider than the one it comes from in {}", self.as_str())
    }
}

impl core::error::Error for Widening {}

/// Checks that `child` allows nothing its `parent` does not allow. Whether the child names this parent
/// ([`hash_of`]), and whether the parent was ever used, is for the caller to check.
///
/// Stricter than the reference implementation, which leaves out `aud`, `sub`, `agent_instance_id`, `require_pop`,
/// `data_classification` and `allowed_parameters`.
///
/// # Errors
///
/// The first field in which the child allows more.
pub fn check_attenuation(child: &Scope, parent: &Scope) -> Result<(), Widening> {
    first_failure([(child.delegation_depth < parent.delegation_depth, Widening::DelegationDepth)])?;
    check_within(child, parent)
}

/// Checks that a token's scope allows nothing that was not granted: the same, but that it may be delegated as often as the
/// grant says, and comes from the grant's own issuer.
///
/// # Errors
///
/// The first field in which the scope allows more, or differs where it must not.
pub fn check_granted(scope: &Scope, grant: &Scope) -> Result<(), Widening> {
    first_failure([
        (scope.iss == grant.iss, Widening::Issuer),
        (scope.delegation_depth <= grant.delegation_depth, Widening::DelegationDepth),
    ])?;
    check_within(scope, grant)
}

/// Every limiting field but the depth of delegation.
fn check_within(child: &Scope, parent: &Scope) -> Result<(), Widening> {
    let fields = [
        (child.tool == parent.tool, Widening::Tool),
        (child.org_id == parent.org_id, Widening::OrgId),
        (child.aud == parent.aud, Widening::Audience),
        (child.sub == parent.sub, Widening::Subject),
        (child.agent_instance_id == parent.agent_instance_id, Widening::AgentInstance),
        (child.trust_level <= parent.trust_level, Widening::TrustLevel),
        (child.action.iter().all(|action| parent.action.contains(action)), Widening::Action),
        (resource_is_within(&child.resource, &parent.resource), Widening::Resource),
        (child.require_pop || !parent.require_pop, Widening::RequirePop),
    ];
    first_failure(fields)?;
    match (&child.constraints, &parent.constraints) {
        (_, None) => Ok(()),
        // Also where the parent's own limits are all absent: what a vendor put there would be lost.
        (None, Some(_)) => Err(Widening::Constraints),
        (Some(child), Some(parent)) => constraints_attenuate(child, parent),
    }
}

/// Whether one resource pattern covers no more than another.
pub fn resource_is_within(child: &str, parent: &str) -> bool {
    ResourcePattern::parse(child).is_within(&ResourcePattern::parse(parent))
}

/// Checks that one set of limits allows nothing that another does not allow.
///
/// # Errors
///
/// The first limit in which the child allows more.
pub fn constraints_attenuate(child: &Constraints, parent: &Constraints) -> Result<(), Widening> {
    let encrypted = |constraints: &Constraints| constraints.require_channel_encryption == Some(true);
    first_failure([
        (at_most(child.max_rows, parent.max_rows), Widening::MaxRows),
        (at_most(child.max_calls, parent.max_calls), Widening::MaxCalls),
        (at_most(child.time_window_sec, parent.time_window_sec), Widening::TimeWindow),
        (encrypted(child) || !encrypted(parent), Widening::ChannelEncryption),
        // Classifications have no order that both sides are sure to share.
        (
            parent.data_classification.is_none() || child.data_classification == parent.data_classification,
            Widening::DataClassification,
        ),
        (
            parameters_attenuate(child.allowed_parameters.as_ref(), parent.allowed_parameters.as_ref()),
            Widening::AllowedParameters,
        ),
    ])
}

fn first_failure<const N: usize>(checks: [(bool, Widening); N]) -> Result<(), Widening> {
    checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, widening)| Err(widening))
}

/// An absent limit limits nothing.
fn at_most(child: Option<u64>, parent: Option<u64>) -> bool {
    match (child, parent) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(child), Some(parent)) => child <= parent,
    }
}

/// A map allows the arguments it names, as far as their patterns match, and every argument whose name begins with
/// `x-` that it does not name.
fn parameters_attenuate(
    child: Option<&BTreeMap<String, String>>,
    parent: Option<&BTreeMap<String, String>>,
) -> bool {
    let Some(parent) = parent else { return true };
    let Some(child) = child else { return false };
    let vendor = |name: &str| name.starts_with("x-");
    let named = child.iter().all(|(name, pattern)| match parent.get(name) {
        Some(limit) => parameter_is_within(pattern.as_bytes(), limit.as_bytes()),
        None => vendor(name),
    });
    // To leave out a vendor argument that the parent limits would free it.
    let kept = parent.keys().filter(|name| vendor(name)).all(|name| child.contains_key(name));
    named && kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parent_json() -> Value {
        json!({
            "iss": "as", "sub": "agent-key:1", "agent_instance_id": "agent-1", "tool": "search",
            "action": ["read", "list"], "resource": "docs/**", "delegation_depth": 2, "require_pop": true,
            "aud": "https://rs", "org_id": "org", "trust_level": 2, "human_confirmed_at": 0,
            "constraints": {
                "max_rows": 10, "max_calls": 1, "time_window_sec": 30, "require_channel_encryption": true,
                "data_classification": "internal",
                "allowed_parameters": {"path": "/reports/*", "format": "pdf", "x-trace": "a*"}
            }
        })
    }

    fn scope(json: Value) -> Scope {
        serde_json::from_value(json).unwrap()
    }

    fn child_with(change: impl FnOnce(&mut Value)) -> Result<(), Widening> {
        let mut child = parent_json();
        child["delegation_depth"] = json!(1);
        change(&mut child);
        check_attenuation(&scope(child), &scope(parent_json()))
    }

    #[test]
    fn an_equal_or_narrower_child_is_accepted() {
        assert_eq!(child_with(|_| {}), Ok(()));
        assert_eq!(
            child_with(|child| {
                child["action"] = json!("read");
                child["resource"] = json!("docs/a/b");
                child["trust_level"] = json!(1);
                child["constraints"]["max_rows"] = json!(9);
                child["constraints"]["allowed_parameters"] =
                    json!({"path": "/reports/q3", "x-trace": "a*", "x-other": "b"});
            }),
            Ok(())
        );
    }

    #[test]
    fn each_field_in_which_a_child_widens_is_named() {
        type Change = fn(&mut Value);
        let cases: [(Widening, Change); 24] = [
            (Widening::Tool, |c| c["tool"] = json!("delete")),
            (Widening::OrgId, |c| c["org_id"] = json!("other")),
            (Widening::Audience, |c| c["aud"] = json!("https://rs/")),
            (Widening::Subject, |c| c["sub"] = json!("agent-key:2")),
            (Widening::AgentInstance, |c| c["agent_instance_id"] = json!("agent-2")),
            (Widening::DelegationDepth, |c| c["delegation_depth"] = json!(2)),
            (Widening::DelegationDepth, |c| c["delegation_depth"] = json!(u64::MAX)),
            (Widening::TrustLevel, |c| c["trust_level"] = json!(3)),
            (Widening::Action, |c| c["action"] = json!(["read", "write"])),
            (Widening::Resource, |c| c["resource"] = json!("*")),
            (Widening::Resource, |c| c["resource"] = json!("**")),
            (Widening::RequirePop, |c| c["require_pop"] = json!(false)),
            (Widening::Constraints, |c| c["constraints"] = Value::Null),
            (Widening::MaxRows, |c| c["constraints"]["max_rows"] = json!(11)),
            (Widening::MaxRows, |c| c["constraints"]["max_rows"] = Value::Null),
            (Widening::MaxCalls, |c| c["constraints"]["max_calls"] = json!(2)),
            (Widening::TimeWindow, |c| c["constraints"]["time_window_sec"] = json!(31)),
            (Widening::ChannelEncryption, |c| {
                c["constraints"]["require_channel_encryption"] = json!(false);
            }),
            (Widening::DataClassification, |c| c["constraints"]["data_classification"] = json!("secret")),
            (Widening::DataClassification, |c| c["constraints"]["data_classification"] = Value::Null),
            (Widening::AllowedParameters, |c| c["constraints"]["allowed_parameters"] = Value::Null),
            (Widening::AllowedParameters, |c| {
                c["constraints"]["allowed_parameters"]["path"] = json!("/reports/**");
            }),
            (Widening::AllowedParameters, |c| c["constraints"]["allowed_parameters"]["more"] = json!("x")),
            (Widening::AllowedParameters, |c| {
                c["constraints"]["allowed_parameters"] = json!({"path": "/reports/*"});
            }),
        ];
        for (widening, change) in cases {
            assert_eq!(child_with(change), Err(widening));
        }
    }

    #[test]
    fn a_token_may_be_all_that_its_grant_is_and_no_more() {
        let granted = |change: fn(&mut Value)| {
            let mut token = parent_json();
            change(&mut token);
            check_granted(&scope(token), &scope(parent_json()))
        };
        assert_eq!(granted(|_| {}), Ok(()));
        assert_eq!(granted(|token| token["delegation_depth"] = json!(1)), Ok(()));
        assert_eq!(granted(|token| token["delegation_depth"] = json!(3)), Err(Widening::DelegationDepth));
        assert_eq!(granted(|token| token["iss"] = json!("other")), Err(Widening::Issuer));
        assert_eq!(granted(|token| token["resource"] = json!("**")), Err(Widening::Resource));
        assert_eq!(
            granted(|token| token["agent_instance_id"] = json!("agent-2")),
            Err(Widening::AgentInstance)
        );
        assert_eq!(granted(|token| token["constraints"]["max_rows"] = json!(11)), Err(Widening::MaxRows));
    }

    #[test]
    fn a_parent_without_limits_leaves_the_child_free_to_add_them() {
        let mut parent = parent_json();
        parent["constraints"] = Value::Null;
        let mut child = parent_json();
        child["delegation_depth"] = json!(0);
        assert_eq!(check_attenuation(&scope(child), &scope(parent)), Ok(()));
    }
}
