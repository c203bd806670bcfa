//! A catalogue and policies to begin with, and an agent to ask about.

use obol_policy::{AgentFacts, HumanFacts, Occasion};

/// A catalogue with everything in it that one can have.
pub const CATALOGUE: &str = r#"org = "example"

[[tool]]
name = "query_database"
audience = "https://analytics.example"
description = "Looks into the database"
sets = ["db"]
risk = "medium"
routes = [{ method = "GET", path = "/v1/query/**", via = "https://gateway.example/a" }]
  [[tool.offer]]
  name = "full"
  action = ["read", "write"]
  resource = "**"
  [[tool.offer]]
  name = "billing-read"
  action = "read"
  resource = "billing/**"
  ttl = 30
  require_pop = true
  delegation_depth = 1
  purpose = "reports"
  constraints = { max_rows = 1000, time_window_sec = 60, data_classification = "internal", allowed_parameters = { table = "billing_*" }, require_channel_encryption = true }
"#;

/// Policies that read something of everything.
pub const POLICIES: &str = r#"@id("read")
permit (principal in Obol::Role::"analyst", action == Obol::Action::"use", resource in Obol::ToolSet::"db")
when { context.offer.actions == ["read"] && context.offer has max_rows && context.offer.max_rows <= 1000 };
@id("ahead") permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource)
when { if context.moment.suite == 4 then principal.tags.contains("x") else principal.registered_days + 1 > 2 };
@id("clones") forbid (principal, action, resource is Obol::Tool) when { principal has clone_suspected && principal.clone_suspected }
unless { principal is Obol::Human }; // a comment; with a semicolon
"#;

/// When it is asked.
pub const MOMENT: Occasion = Occasion { now: 1_780_315_200, suite: 4, owner_auth_age_secs: 60 };

/// Who it is asked about.
pub fn agent() -> AgentFacts {
    let roles = ["analyst".to_owned()];
    AgentFacts {
        id: "agt_fuzz".to_owned(),
        class: "assistant".to_owned(),
        owner: HumanFacts {
            id: "local:alice".to_owned(),
            issuer: "local".to_owned(),
            organisation: "example".to_owned(),
            mfa: true,
            roles: roles.clone().into(),
        },
        roles: roles.into(),
        flow: "local".to_owned(),
        registered_days: 3,
        clone_suspected: false,
        tags: ["x".to_owned()].into(),
    }
}
