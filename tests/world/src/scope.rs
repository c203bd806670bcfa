//! The scope that servers here accept for [`TOOL`], as JSON and as the token library's own type.

use obol_token::Scope;
use serde_json::{Value, json};

use crate::{AUDIENCE, ORG, RESOURCE, TOOL};

pub fn scope_json() -> Value {
    json!({
        "iss": "as.example", "sub": "agent-key:1", "agent_instance_id": "agent-1", "tool": TOOL, "action": "read",
        "resource": RESOURCE, "delegation_depth": 0, "require_pop": false, "aud": AUDIENCE, "org_id": ORG,
        "trust_level": 1, "human_confirmed_at": 0
    })
}

/// The standard scope with other or more fields.
pub fn scope_with(fields: Value) -> Value {
    let mut scope = scope_json();
    for (name, value) in fields.as_object().expect("fields are an object") {
        scope[name] = value.clone();
    }
    scope
}

pub fn parsed(scope: &Value) -> Scope {
    serde_json::from_value(scope.clone()).expect("the scope has the right form")
}

/// The standard scope. Its tokens come to about 450 bytes.
pub fn scope() -> Scope {
    parsed(&scope_json())
}
