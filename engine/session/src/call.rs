//! A call that a human is asked about: what of a grant it takes, and the scope of the one token that a yes allows.

use obol_token::delegation::{Widening, check_granted};
use obol_token::{Constraints, Scope, ScopeError, one_or_many};
use serde::{Deserialize, Serialize};

/// The trust level of a call that a human said yes to.
pub const APPROVED_TRUST_LEVEL: u64 = 3;

/// What a call takes of a grant. What is absent, or empty, is as the grant has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub aud: String,
    /// What is done.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub action: Vec<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Limits beyond those of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// Why it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

impl Call {
    /// The scope of this call in one transaction, as it is before a human said yes: that of the grant, narrowed. It is not
    /// passed on.
    ///
    /// # Errors
    ///
    /// [`Widening`] where the call takes more than was granted.
    pub fn scope_within(&self, granted: &Scope, txn_id: [u8; 16]) -> Result<Scope, Widening> {
        let scope = Scope {
            tool: self.tool.clone(),
            aud: self.aud.clone(),
            action: if self.action.is_empty() { granted.action.clone() } else { self.action.clone() },
            resource: self.resource.clone().unwrap_or_else(|| granted.resource.clone()),
            constraints: narrowed(self.constraints.as_ref(), granted.constraints.as_ref()),
            purpose: self.purpose.clone().or_else(|| granted.purpose.clone()),
            delegation_depth: 0,
            txn_id: Some(txn_id),
            ..granted.clone()
        };
        check_granted(&scope, granted)?;
        Ok(scope)
    }
}

/// The limits of a call, and those of the grant that it does not name.
fn narrowed(own: Option<&Constraints>, granted: Option<&Constraints>) -> Option<Constraints> {
    let (Some(own), Some(granted)) = (own, granted) else { return own.or(granted).cloned() };
    Some(Constraints {
        max_rows: own.max_rows.or(granted.max_rows),
        max_calls: own.max_calls.or(granted.max_calls),
        time_window_sec: own.time_window_sec.or(granted.time_window_sec),
        require_channel_encryption: own.require_channel_encryption.or(granted.require_channel_encryption),
        data_classification: own.data_classification.clone().or_else(|| granted.data_classification.clone()),
        allowed_parameters: own.allowed_parameters.clone().or_else(|| granted.allowed_parameters.clone()),
    })
}

/// The scope of the token that a human's yes allows, said at `confirmed_at` in Unix seconds.
///
/// # Errors
///
/// [`ScopeError`] where it is no sound scope.
pub fn approved_scope(scope: Scope, confirmed_at: u64) -> Result<Scope, ScopeError> {
    let digest = scope.compute_approval_digest()?;
    let scope = Scope {
        trust_level: APPROVED_TRUST_LEVEL,
        human_confirmed_at: confirmed_at,
        approval_digest: Some(digest),
        ..scope
    };
    scope.check()?;
    Ok(scope)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn granted() -> Scope {
        serde_json::from_value(json!({
            "iss": "auth", "sub": "key", "agent_instance_id": "agent", "tool": "pay", "action": ["pay", "refund"],
            "resource": "accounts/**", "constraints": {"max_rows": 5, "require_channel_encryption": true},
            "delegation_depth": 2, "require_pop": true, "aud": "https://rs", "org_id": "org", "trust_level": 2,
            "human_confirmed_at": 0
        }))
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
    fn call(fields: Value) -> Call {
        let mut call = json!({"tool": "pay", "aud": "https://rs"});
        call.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(call).unwrap()
    }

    #[test]
    fn a_call_has_what_it_names_and_the_rest_of_the_grant() {
        let asked = call(json!({"action": "pay", "resource": "accounts/7", "constraints": {"max_rows": 1}}));
        let scope = asked.scope_within(&granted(), [7; 16]).unwrap();
        assert_eq!(
            (scope.action.as_slice(), scope.resource.as_str()),
            (&["pay".to_owned()][..], "accounts/7")
        );
        let limits = scope.constraints.unwrap();
        assert_eq!((limits.max_rows, limits.require_channel_encryption), (Some(1), Some(true)));
        assert_eq!((scope.delegation_depth, scope.require_pop, scope.txn_id), (0, true, Some([7; 16])));
        let whole = call(json!({})).scope_within(&granted(), [7; 16]).unwrap();
        assert_eq!((whole.action.len(), whole.resource.as_str()), (2, "accounts/**"));
    }

    #[test]
    fn a_call_takes_no_more_than_was_granted() {
        for (asked, field) in [
            (json!({"action": "delete"}), Widening::Action),
            (json!({"resource": "**"}), Widening::Resource),
            (json!({"constraints": {"max_rows": 6}}), Widening::MaxRows),
            (json!({"constraints": {"require_channel_encryption": false}}), Widening::ChannelEncryption),
            (json!({"tool": "transfer"}), Widening::Tool),
            (json!({"aud": "https://other"}), Widening::Audience),
        ] {
            assert_eq!(call(asked).scope_within(&granted(), [7; 16]), Err(field));
        }
    }

    #[test]
    fn a_yes_makes_a_scope_of_trust_level_three_for_this_transaction_alone() {
        let scope = call(json!({})).scope_within(&granted(), [7; 16]).unwrap();
        let yes = approved_scope(scope.clone(), 1_000).unwrap();
        assert_eq!((yes.trust_level, yes.human_confirmed_at), (3, 1_000));
        assert_eq!(yes.approval_digest, Some(scope.compute_approval_digest().unwrap()));
        let other = call(json!({})).scope_within(&granted(), [8; 16]).unwrap();
        assert_ne!(approved_scope(other, 1_000).unwrap().approval_digest, yes.approval_digest);
        assert!(approved_scope(scope, 0).is_err(), "without a time nobody said yes");
    }
}
