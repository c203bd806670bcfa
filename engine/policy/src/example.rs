//! The example that tests begin with: a database with two offers, and the policies of a small organisation.

use std::collections::BTreeSet;

use crate::facts::{AgentFacts, HumanFacts, Occasion};
use crate::problem::LoadError;
use crate::source::PolicySource;
use crate::version::PolicyVersion;

pub(crate) const ANALYTICS: &str = "https://analytics.example";

pub(crate) const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "query_database"
audience = "https://analytics.example"
sets = ["db"]
risk = "medium"
routes = [{ method = "GET", path = "/v1/query/**" }]
  [[tool.offer]]
  name = "full"
  action = ["read", "write"]
  resource = "**"
  ttl = 60
  [[tool.offer]]
  name = "billing-read"
  action = ["read"]
  resource = "billing/**"
  ttl = 60
  require_pop = false
  constraints = { max_rows = 1000, allowed_parameters = { table = "billing_*" }, require_channel_encryption = true }
"#;

pub(crate) const POLICIES: &str = r#"
@id("analysts-read")
permit (principal in Obol::Role::"analyst", action == Obol::Action::"use", resource in Obol::ToolSet::"db")
when { context.offer.actions == ["read"] && context.offer has max_rows && context.offer.max_rows <= 1000 };
@id("analysts-unattended")              // without such a permit nothing is ever minted ahead
permit (principal in Obol::Role::"analyst", action == Obol::Action::"useUnattended", resource);
@id("no-unattended-payments")
forbid (principal, action == Obol::Action::"useUnattended", resource) when { resource.risk == "high" };
@id("clones-get-nothing")
forbid (principal, action, resource is Obol::Tool) when { principal has clone_suspected && principal.clone_suspected };
@id("no-code-flow-for-privileged")
forbid (principal, action == Obol::Action::"register", resource) when { context.flow == "code" && context.roles.contains(Obol::Role::"privileged") };
@id("four-eyes")
forbid (principal, action == Obol::Action::"approveCall", resource) when { context.agent.owner == principal };
"#;

pub(crate) const NOON: Occasion = Occasion { now: 1_780_315_200, suite: 4, owner_auth_age_secs: 60 };

pub(crate) fn source(catalogue: &str, policies: &[&str]) -> PolicySource {
    let files =
        policies.iter().zip(1..).map(|(text, number)| (format!("{number}.cedar"), (*text).to_owned()));
    PolicySource { catalogue: catalogue.to_owned(), policies: files.collect() }
}

pub(crate) fn version(catalogue: &str, policies: &[&str]) -> PolicyVersion {
    PolicyVersion::load(source(catalogue, policies)).unwrap()
}

pub(crate) fn refused(catalogue: &str, policies: &[&str]) -> LoadError {
    PolicyVersion::load(source(catalogue, policies)).unwrap_err()
}

pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn human(name: &str, roles: &[&str]) -> HumanFacts {
    HumanFacts {
        id: format!("local:{name}"),
        issuer: "local".to_owned(),
        organisation: "example".to_owned(),
        mfa: false,
        roles: names(roles),
    }
}

pub(crate) fn agent(roles: &[&str]) -> AgentFacts {
    AgentFacts {
        id: "agt_reporter".to_owned(),
        class: "assistant".to_owned(),
        roles: names(roles),
        owner: human("alice", roles),
        flow: "local".to_owned(),
        registered_days: 3,
        clone_suspected: false,
        tags: BTreeSet::new(),
    }
}
