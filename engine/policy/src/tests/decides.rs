//! Who gets what, and who says so.

use cedar_policy::{Authorizer, Context, Decision as CedarDecision, Request};

use crate::ask::Asked;
use crate::decision::{AgentDecision, PolicyId};
use crate::example::{ANALYTICS, CATALOGUE, NOON, POLICIES, agent, human, names, version};
use crate::facts::{FactsError, Registration, people};
use crate::limits::MAX_ALERTS;
use crate::vocabulary::Action;

fn ids(ids: &[PolicyId]) -> Vec<&str> {
    ids.iter().map(AsRef::as_ref).collect()
}

fn ahead(decision: &AgentDecision, tool: &str) -> Option<String> {
    let tool = decision.tools.iter().find(|it| &*it.tool == tool).unwrap();
    tool.ahead.as_ref().map(|chosen| chosen.offer.to_string())
}

fn per_call(decision: &AgentDecision, tool: &str) -> Vec<String> {
    let tool = decision.tools.iter().find(|it| &*it.tool == tool).unwrap();
    tool.per_call.iter().map(|chosen| chosen.offer.to_string()).collect()
}

#[test]
fn of_the_example_full_is_denied_and_billing_read_is_the_grant() {
    let version = version(CATALOGUE, &[POLICIES]);
    let decision = version.decide(&agent(&["analyst"]), &NOON).unwrap();
    let tool = decision.tool("query_database", ANALYTICS).unwrap();
    let [full, billing] = tool.offers.as_slice() else { panic!("two offers are asked about") };
    assert!(!full.attended.allowed && full.attended.decided_by.is_empty() && full.unattended.is_none());
    assert!(billing.is_ahead());
    let chosen = tool.ahead.as_ref().unwrap();
    assert_eq!(
        (&*chosen.offer, ids(&chosen.decided_by)),
        ("billing-read", vec!["analysts-read", "analysts-unattended"])
    );
    assert!(tool.per_call.is_empty() && decision.alerts.is_empty());
    let granted = serde_json::to_value(decision.grants()).unwrap();
    let expected = serde_json::json!([{
        "tool": "query_database", "aud": ANALYTICS, "action": "read", "resource": "billing/**", "trust_level": 2,
        "constraints": {"max_rows": 1000, "allowed_parameters": {"table": "billing_*"}, "require_channel_encryption": true},
    }]);
    assert_eq!(granted, expected);
    assert_eq!(decision.audiences().into_iter().collect::<Vec<_>>(), [ANALYTICS]);
}

#[test]
fn without_a_permit_nobody_gets_anything() {
    let version = version(CATALOGUE, &[POLICIES]);
    for roles in [&[][..], &["clerk"], &["analyst "]] {
        assert!(version.decide(&agent(roles), &NOON).unwrap().grants().is_empty(), "{roles:?}");
    }
    let empty = crate::example::version(CATALOGUE, &[]);
    assert!(empty.decide(&agent(&["analyst"]), &NOON).unwrap().grants().is_empty());
}

#[test]
fn a_forbid_is_stronger_than_any_permit_and_is_named() {
    let version = version(CATALOGUE, &[POLICIES]);
    let clone = crate::facts::AgentFacts { clone_suspected: true, ..agent(&["analyst"]) };
    let decision = version.decide(&clone, &NOON).unwrap();
    assert!(decision.grants().is_empty());
    for offer in &decision.tools[0].offers {
        assert_eq!(ids(&offer.attended.decided_by), ["clones-get-nothing"]);
    }
}

#[test]
fn what_is_too_risky_unattended_takes_a_yes_to_each_call() {
    let risky = CATALOGUE.replace("\"medium\"", "\"high\"");
    let decision = version(&risky, &[POLICIES]).decide(&agent(&["analyst"]), &NOON).unwrap();
    assert_eq!(
        (ahead(&decision, "query_database"), per_call(&decision, "query_database")),
        (None, vec!["billing-read".into()])
    );
    assert!(decision.grants().is_empty());
    assert_eq!(decision.per_call().count(), 1);
}

const THREE_OFFERS: &str = r#"
[[tool]]
name = "mail"
audience = "https://mail.example"
risk = "medium"
offer = [
    { name = "send-all", action = "send", resource = "**" },
    { name = "send-own", action = "send", resource = "own/**" },
    { name = "read", action = "read", resource = "own/**" },
    { name = "peek", action = "read", resource = "own/subjects" },
]
"#;

#[test]
fn the_grant_is_the_first_offer_that_both_allow_and_stronger_ones_take_a_yes() {
    let policies = r#"
        @id("use") permit (principal, action == Obol::Action::"use", resource) when { context.offer.name != "send-all" };
        @id("ahead") permit (principal, action == Obol::Action::"useUnattended", resource)
        when { context.offer.actions == ["read"] };
    "#;
    let decision = version(THREE_OFFERS, &[policies]).decide(&agent(&[]), &NOON).unwrap();
    assert_eq!(
        (ahead(&decision, "mail"), per_call(&decision, "mail")),
        (Some("read".into()), vec!["send-own".into()])
    );
    let asked: Vec<_> = decision.tools[0].offers.iter().map(|offer| &*offer.offer).collect();
    assert_eq!(asked, ["send-all", "send-own", "read"], "what stands behind the grant is not asked about");
    let explained = version(THREE_OFFERS, &[policies]).explain(&agent(&[]), &NOON, "mail", None).unwrap();
    assert_eq!(explained[0].offers.len(), 4);
    assert_eq!(
        (&explained[0].ahead, &explained[0].per_call),
        (&decision.tools[0].ahead, &decision.tools[0].per_call)
    );
}

/// Fails for offers of some life: the sum is more than a number can be.
const FAILING: &str = r#"@id("failing") forbid (principal, action == Obol::Action::"use", resource)
    when { context.offer.ttl + 9223372036854775800 == 0 };"#;

#[test]
fn a_policy_that_fails_denies_and_is_told() {
    let version = version(CATALOGUE, &[POLICIES, FAILING]);
    let decision = version.decide(&agent(&["analyst"]), &NOON).unwrap();
    assert!(decision.grants().is_empty() && decision.per_call().next().is_none());
    let told: Vec<_> = decision.alerts.iter().map(|alert| (alert.policy.as_ref(), &*alert.offer)).collect();
    assert_eq!(told, [("failing", "full"), ("failing", "billing-read")]);
    assert!(decision.alerts[0].message.contains("overflow"), "{}", decision.alerts[0].message);

    // The control: Cedar by itself passes over the policy that fails, and allows.
    let (facts, tool) = (agent(&["analyst"]), &version.catalogue().tools()[0]);
    let asked = Asked::new(version.catalogue(), version.rules(), tool).unwrap();
    let entities = people(Some(&facts), None).unwrap().add_entities(asked.entities.clone(), None).unwrap();
    let context =
        [("offer".to_owned(), asked.offers[1].clone()), ("moment".to_owned(), NOON.record().unwrap())];
    let context = Context::from_pairs(context).unwrap();
    let request = Request::new(facts.uid(), Action::Use.uid(), asked.party.uid, context, None).unwrap();
    let response = Authorizer::new().is_authorized(&request, &version.rules().all(), &entities);
    assert_eq!((response.decision(), response.diagnostics().errors().count()), (CedarDecision::Allow, 1));
}

#[test]
fn an_offer_whose_unattended_policy_fails_is_not_given_per_call_either() {
    let failing = FAILING.replace("\"use\"", "\"useUnattended\"");
    let decision = version(CATALOGUE, &[POLICIES, &failing]).decide(&agent(&["analyst"]), &NOON).unwrap();
    assert!(decision.grants().is_empty() && decision.per_call().next().is_none());
    assert_eq!(decision.alerts.len(), 1);
}

#[test]
fn alerts_are_bounded() {
    let mut catalogue = String::new();
    for tool in 0..MAX_ALERTS + 5 {
        catalogue +=
            &CATALOGUE.replace("org = \"example\"", "").replace("query_database", &format!("tool-{tool}"));
    }
    let decision = version(&catalogue, &[POLICIES, FAILING]).decide(&agent(&["analyst"]), &NOON);
    let decision = decision.unwrap();
    assert_eq!((decision.alerts.len(), decision.grants().len()), (MAX_ALERTS, 0));
}

#[test]
fn a_tool_of_one_name_at_two_audiences_is_two() {
    let two =
        format!("{THREE_OFFERS}{}", THREE_OFFERS.replace("https://mail.example", "https://other.example"));
    let policies = r#"
        @id("one") permit (principal, action, resource in Obol::Audience::"https://mail.example");
    "#;
    let version = version(&two, &[policies]);
    let decision = version.decide(&agent(&[]), &NOON).unwrap();
    assert_eq!(decision.audiences().into_iter().collect::<Vec<_>>(), ["https://mail.example"]);
    assert_eq!(version.explain(&agent(&[]), &NOON, "mail", None).unwrap().len(), 2);
    let one = version.explain(&agent(&[]), &NOON, "mail", Some("https://other.example")).unwrap();
    assert!(one.len() == 1 && one[0].ahead.is_none());
    let missing = version.explain(&agent(&[]), &NOON, "fax", None).unwrap_err();
    assert_eq!(missing.to_string(), "the catalogue has no tool \"fax\"");
}

#[test]
fn policies_can_look_at_everything_that_the_schema_names() {
    let policies = r#"
        @id("all") permit (principal is Obol::Agent in Obol::AgentClass::"assistant", action, resource in Obol::Org::"example")
        when {
            principal.owner.issuer == "local" && !principal.owner.mfa && principal.owner in Obol::Role::"analyst" &&
            principal.flow == "local" && principal.registered_days == 3 && principal.tags.isEmpty() &&
            resource in Obol::Audience::"https://analytics.example" &&
            context.offer.resource like "billing/*" && context.offer.parameters.contains("table") &&
            context.offer.channel_encryption && !context.offer.pop && context.offer.delegation_depth == 0 &&
            context.offer.ttl == 60 && !(context.offer has time_window_sec) && !(context.offer has data_classification) &&
            context.moment.suite == 4 && context.moment.owner_auth_age_sec < 300 &&
            context.moment.now == datetime("2026-06-01T12:00:00Z") && context.moment.now.toTime() == duration("12h")
        };
    "#
    .replace("context.offer.parameters", "context.offer has parameters && context.offer.parameters");
    let version = version(CATALOGUE, &[&policies]);
    let decision = version.decide(&agent(&["analyst"]), &NOON).unwrap();
    assert_eq!(ahead(&decision, "query_database").as_deref(), Some("billing-read"));
    let later = crate::facts::Occasion { now: NOON.now + 1, ..NOON };
    assert!(version.decide(&agent(&["analyst"]), &later).unwrap().grants().is_empty());
}

#[test]
fn facts_that_do_not_fit_are_refused_and_nothing_is_decided() {
    let version = version(CATALOGUE, &[POLICIES]);
    let changed = |change: fn(&mut crate::facts::AgentFacts)| {
        let mut agent = agent(&["analyst"]);
        change(&mut agent);
        version.decide(&agent, &NOON).unwrap_err().to_string()
    };
    assert!(changed(|agent| agent.id.clear()).contains("the agent's id"));
    assert!(changed(|agent| agent.class = "a\nb".into()).contains("the agent's class"));
    assert!(changed(|agent| agent.flow = "x".repeat(1_000)).contains("the agent's flow"));
    assert!(changed(|agent| agent.owner.issuer.clear()).contains("the human's issuer"));
    assert!(changed(|agent| agent.registered_days = u64::MAX).contains("registered_days"));
    assert!(
        changed(|agent| agent.roles = (0..65).map(|role| role.to_string()).collect()).contains("at most 64")
    );
    let never = crate::facts::Occasion { now: u64::MAX, ..NOON };
    assert!(version.decide(&agent(&[]), &never).unwrap_err().to_string().contains("Unix seconds"));
}

#[test]
fn nobody_reaches_across_organisations_whom_no_policy_lets() {
    let policies = r#"
        @id("operate") permit (principal in Obol::Role::"analyst", action == Obol::Action::"operate", resource);
        @id("auditors") permit (principal in Obol::Role::"auditor", action == Obol::Action::"reach", resource)
        when { context.organisation != principal.organisation && principal.organisation == "example" };
        @id("not-there") forbid (principal, action == Obol::Action::"reach", resource) when { context.organisation == "secret" };
    "#;
    let version = version(CATALOGUE, &[POLICIES, policies]);
    let (analyst, auditor) = (human("alice", &["analyst"]), human("bob", &["auditor"]));
    assert!(version.may_operate(&analyst, "agent.disable").unwrap().allowed);
    assert!(
        !version.may_reach(&analyst, "acme").unwrap().allowed,
        "who may operate reaches nobody else by that"
    );
    let reaches = version.may_reach(&auditor, "acme").unwrap();
    assert_eq!((reaches.allowed, ids(&reaches.decided_by)), (true, vec!["auditors"]));
    assert!(
        !version.may_operate(&auditor, "console.view").unwrap().allowed,
        "and who reaches may do nothing by that"
    );
    assert!(!version.may_reach(&auditor, "secret").unwrap().allowed);
    let elsewhere = crate::facts::HumanFacts { organisation: "acme".to_owned(), ..auditor };
    assert!(!version.may_reach(&elsewhere, "example").unwrap().allowed);
}

#[test]
fn registering_approving_and_operating_are_decided_too() {
    let policies = r#"
        @id("register") permit (principal, action == Obol::Action::"register", resource) when { context.days <= 30 };
        @id("approve") permit (principal in Obol::Role::"analyst", action == Obol::Action::"approveCall", resource);
        @id("operate") permit (principal == Obol::Human::"local:root", action == Obol::Action::"operate", resource)
        when { context.verb == "disable" };
    "#;
    let version = version(CATALOGUE, &[POLICIES, policies]);
    let (alice, bob) = (human("alice", &["analyst"]), human("bob", &["analyst"]));
    let register = |flow: &str, days: u64, roles: &[&str]| {
        let asked = Registration { class: "assistant", flow, days, roles: &names(roles) };
        version.may_register(&alice, &asked).unwrap()
    };
    assert!(register("local", 30, &["privileged"]).allowed);
    assert!(!register("local", 31, &[]).allowed);
    let code = register("code", 30, &["privileged"]);
    assert_eq!((code.allowed, ids(&code.decided_by)), (false, vec!["no-code-flow-for-privileged"]));

    let agent = agent(&["analyst"]);
    let approve = |human| version.may_approve_call(human, &agent, "query_database", ANALYTICS, "full");
    assert!(approve(&bob).unwrap().allowed);
    let own = approve(&alice).unwrap();
    assert_eq!((own.allowed, ids(&own.decided_by)), (false, vec!["four-eyes"]));
    let other_alice = human("alice", &["analyst", "more"]);
    assert!(matches!(approve(&other_alice), Err(FactsError::Cedar(_))), "one human, told in two ways");
    let offer = version.may_approve_call(&bob, &agent, "query_database", ANALYTICS, "fuller");
    assert!(matches!(offer, Err(FactsError::NoSuchOffer(_))));

    assert!(version.may_operate(&human("root", &[]), "disable").unwrap().allowed);
    assert!(!version.may_operate(&human("root", &[]), "enable").unwrap().allowed);
    assert!(!version.may_operate(&bob, "disable").unwrap().allowed);
    let no_org = crate::example::version(&CATALOGUE.replace("org = \"example\"", ""), &[POLICIES]);
    assert_eq!(no_org.may_operate(&bob, "disable"), Err(FactsError::NoOrganisation));
}
