//! What an ID token says of a human's roles, read within bounds.

use std::collections::{BTreeMap, BTreeSet};

use obol_policy::limits::{MAX_NAME_BYTES, MAX_ROLES};
use obol_session::limits::is_name;
use openidconnect::AdditionalClaims;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::ProviderSettings;

/// Every claim that OpenID Connect does not define itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Claims {}

impl Claims {
    /// The claim: by its whole name, which may have dots in it, or by a path through objects.
    fn named(&self, name: &str) -> Option<&Value> {
        if let Some(found) = self.all.get(name) {
            return Some(found);
        }
        let mut steps = name.split('.');
        let mut found = self.all.get(steps.next()?)?;
        for step in steps {
            found = found.get(step)?;
        }
        Some(found)
    }

    /// The roles; those that policy could not speak of are left out.
    pub(super) fn roles(&self, settings: &ProviderSettings) -> Result<BTreeSet<String>, String> {
        let values: Vec<&str> = match self.named(&settings.roles_claim) {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(format!("the claim {} is not a list of texts", settings.roles_claim)),
        };
        let roles = mapped(&values, &settings.roles);
        if roles.len() > MAX_ROLES {
            return Err(format!(
                "the claim {} names more than {MAX_ROLES} roles; map those that matter",
                settings.roles_claim
            ));
        }
        Ok(roles)
    }
}

fn mapped(values: &[&str], roles: &BTreeMap<String, String>) -> BTreeSet<String> {
    let is_role = |name: &&str| is_name(name) && name.len() <= MAX_NAME_BYTES;
    match roles.is_empty() {
        true => values.iter().copied().filter(is_role).map(str::to_owned).collect(),
        false => values.iter().filter_map(|value| roles.get(*value)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> ProviderSettings {
        ProviderSettings::new("https://idp.example", "obol").unwrap()
    }

    fn roles(claims: Value, settings: &ProviderSettings) -> Result<Vec<String>, String> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.roles(settings).map(|roles| roles.into_iter().collect())
    }

    #[test]
    fn roles_are_where_the_settings_say() {
        let usual = settings();
        assert_eq!(roles(json!({ "groups": ["dev", "ops"] }), &usual).unwrap(), ["dev", "ops"]);
        assert_eq!(roles(json!({ "groups": "dev" }), &usual).unwrap(), ["dev"]);
        assert!(roles(json!({}), &usual).unwrap().is_empty(), "who is in no group has no role");
        assert!(roles(json!({ "groups": { "dev": true } }), &usual).is_err());
        let nested = settings().roles_claim("realm_access.roles".into());
        assert_eq!(roles(json!({ "realm_access": { "roles": ["dev"] } }), &nested).unwrap(), ["dev"]);
        let url = settings().roles_claim("https://x.example/roles".into());
        assert_eq!(roles(json!({ "https://x.example/roles": ["dev"] }), &url).unwrap(), ["dev"]);
    }

    #[test]
    fn what_is_not_mapped_is_no_role_where_there_is_a_map_and_nothing_hostile_is_one() {
        let map = BTreeMap::from([("6f1c".to_owned(), "dev".to_owned())]);
        let mapping = settings().roles(map);
        assert_eq!(roles(json!({ "groups": ["6f1c", "operator"] }), &mapping).unwrap(), ["dev"]);
        let hostile = json!({ "groups": ["de v", "\u{202e}ops", "", 7, "x".repeat(200)] });
        assert!(roles(hostile, &settings()).unwrap().is_empty());
        let many: Vec<String> = (0..65).map(|number| format!("g{number}")).collect();
        assert!(roles(json!({ "groups": many }), &settings()).unwrap_err().contains("64"));
    }
}
