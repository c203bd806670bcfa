//! Questions are put to the policies that can bear on them alone. Asked of all policies they have the same answers, with the same policies
//! that decide and that fail.

use std::collections::BTreeSet;

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression};
use proptest::prelude::*;

use crate::ask::{Asked, verdict};
use crate::catalogue::Tool;
use crate::decision::{OfferDecision, ToolDecision, Verdict};
use crate::example::{NOON, agent, human, names, source, version};
use crate::facts::{AgentFacts, HumanFacts, Occasion, Registration, people};
use crate::rules::slices::{Bearing, Slice};
use crate::version::PolicyVersion;
use crate::vocabulary::{Action, Kind};

const TOOLS: &str = r#"
org = "example"
[[tool]]
name = "query"
audience = "https://one.example"
sets = ["db"]
risk = "medium"
offer = [
    { name = "full", action = "write", resource = "**", ttl = 120 },
    { name = "small", action = "read", resource = "*", ttl = 60 },
]
[[tool]]
name = "query"
audience = "https://two.example"
sets = ["db", "web"]
risk = "high"
offer = [{ name = "full", action = "read", resource = "**", ttl = 60 }]
[[tool]]
name = "mail"
audience = "https://two.example"
risk = "low"
offer = [
    { name = "full", action = "send", resource = "**", ttl = 61 },
    { name = "own", action = "send", resource = "own/**", ttl = 30 },
]
[[tool]]
name = "search"
audience = "https://one.example"
sets = ["web"]
risk = "low"
offer = [{ name = "small", action = "read", resource = "**", ttl = 60 }]
"#;

const PRINCIPALS: [&str; 11] = [
    "principal",
    "principal is Obol::Agent",
    "principal is Obol::Human",
    "principal == Obol::Agent::\"a1\"",
    "principal == Obol::Human::\"local:alice\"",
    "principal in Obol::Role::\"analyst\"",
    "principal in Obol::Role::\"clerk\"",
    "principal in Obol::Agent::\"a1\"",
    "principal in Obol::AgentClass::\"assistant\"",
    "principal is Obol::Agent in Obol::Role::\"clerk\"",
    "principal is Obol::Human in Obol::Role::\"analyst\"",
];
const ACTIONS: [&str; 7] = [
    "action",
    "action == Obol::Action::\"use\"",
    "action == Obol::Action::\"useUnattended\"",
    "action in [Obol::Action::\"use\", Obol::Action::\"useUnattended\"]",
    "action in [Obol::Action::\"approveCall\", Obol::Action::\"use\", Obol::Action::\"register\"]",
    "action == Obol::Action::\"register\"",
    "action in Obol::Action::\"operate\"",
];
const RESOURCES: [&str; 19] = [
    "resource",
    "resource is Obol::Tool",
    "resource is Obol::Org",
    "resource is Obol::AgentClass",
    "resource == Obol::Tool::\"query\"",
    "resource == Obol::Tool::\"mail\"",
    "resource == Obol::Org::\"example\"",
    "resource == Obol::AgentClass::\"assistant\"",
    "resource in Obol::Tool::\"search\"",
    "resource in Obol::ToolSet::\"db\"",
    "resource in Obol::ToolSet::\"web\"",
    "resource in Obol::ToolSet::\"nowhere\"",
    "resource in Obol::Audience::\"https://one.example\"",
    "resource in Obol::Audience::\"https://two.example\"",
    "resource in Obol::Org::\"example\"",
    "resource in Obol::AgentClass::\"robot\"",
    "resource is Obol::Tool in Obol::ToolSet::\"web\"",
    "resource is Obol::Tool in Obol::Audience::\"https://one.example\"",
    "resource is Obol::Tool in Obol::Org::\"example\"",
];
/// Conditions that can be asked of anything. Several fail for some.
const CONDITIONS: [&str; 12] = [
    "true",
    "context has offer && context.offer.name == \"full\"",
    "context has offer && context.offer.ttl + 9223372036854775747 > 0",
    "context has moment && context.moment.suite == 4",
    "context has days && context.days + 9223372036854775804 > 0",
    "context has verb && context.verb == \"disable\"",
    "context has agent && context.agent.registered_days + 9223372036854775804 > 0",
    "principal is Obol::Agent && principal.registered_days + 9223372036854775804 > 0",
    "principal is Obol::Agent && principal.tags.contains(\"x\")",
    "principal is Obol::Human && principal.mfa",
    "resource is Obol::Tool && resource.risk == \"high\"",
    "resource is Obol::Tool && resource in [Obol::ToolSet::\"web\", Obol::ToolSet::\"nowhere\"]",
];

type Parts = (bool, usize, usize, usize, usize);

fn policy(number: usize, parts: &Parts) -> String {
    let (permits, principal, action, resource, condition) = *parts;
    let effect = if permits { "permit" } else { "forbid" };
    let (principal, action, resource) = (PRINCIPALS[principal], ACTIONS[action], RESOURCES[resource]);
    let condition = CONDITIONS[condition];
    format!("@id(\"p{number}\") {effect} ({principal}, {action}, {resource}) when {{ {condition} }};\n")
}

fn loads(text: &str) -> bool {
    PolicyVersion::load(source(TOOLS, &[text])).is_ok()
}

/// A version of random policies; those that do not validate are left out.
fn any_version() -> impl Strategy<Value = PolicyVersion> {
    let one = (any::<bool>(), 0..PRINCIPALS.len(), 0..ACTIONS.len(), 0..RESOURCES.len(), 0..CONDITIONS.len());
    proptest::collection::vec(one, 0..24).prop_map(|all| {
        let texts = all.iter().enumerate().map(|(number, parts)| policy(number, parts));
        version(TOOLS, &[&texts.filter(|text| loads(text)).collect::<String>()])
    })
}

fn any_human() -> impl Strategy<Value = HumanFacts> {
    let roles = proptest::sample::subsequence(&["analyst", "clerk"][..], 0..=2);
    (prop_oneof![Just("alice"), Just("bob")], roles, any::<bool>())
        .prop_map(|(name, roles, mfa)| HumanFacts { mfa, ..human(name, &roles) })
}

fn any_agent() -> impl Strategy<Value = AgentFacts> {
    let roles = proptest::sample::subsequence(&["analyst", "clerk"][..], 0..=2);
    let (id, class) = (prop_oneof![Just("a1"), Just("a2")], prop_oneof![Just("assistant"), Just("robot")]);
    (id, class, roles, 2_u64..6, any::<bool>()).prop_map(|(id, class, roles, registered_days, tagged)| {
        AgentFacts {
            id: id.to_owned(),
            class: class.to_owned(),
            registered_days,
            tags: names(if tagged { &["x"] } else { &[] }),
            ..agent(&roles)
        }
    })
}

/// In one order; Cedar gives errors in none.
fn sorted(mut verdict: Verdict) -> Verdict {
    verdict.errors.sort_by(|a, b| a.policy.cmp(&b.policy));
    verdict
}

/// What Cedar says with all policies before it.
fn by_all<const N: usize>(
    version: &PolicyVersion,
    (principal, action, resource): (EntityUid, Action, EntityUid),
    context: [(&str, RestrictedExpression); N],
    entities: &Entities,
) -> Verdict {
    let context = Context::from_pairs(context.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let request = Request::new(principal, action.uid(), resource, context, None).unwrap();
    sorted(verdict(version.rules(), &request, &version.rules().all(), entities))
}

fn seen(version: &PolicyVersion, tool: &Tool) -> (Asked, [Entity; 2]) {
    let asked = Asked::new(version.catalogue(), version.rules(), tool).unwrap();
    let entities = asked.entities.clone();
    (asked, entities)
}

/// Each offer of a tool, asked about in full.
fn offers(version: &PolicyVersion, agent: &AgentFacts, moment: &Occasion, tool: &Tool) -> Vec<[Verdict; 2]> {
    let (asked, entities) = seen(version, tool);
    let entities = people(Some(agent), None).unwrap().add_entities(entities, None).unwrap();
    let verdicts = |record: &RestrictedExpression| {
        [Action::Use, Action::UseUnattended].map(|action| {
            let context = [("offer", record.clone()), ("moment", moment.record().unwrap())];
            by_all(version, (agent.uid(), action, asked.party.uid.clone()), context, &entities)
        })
    };
    asked.offers.iter().map(verdicts).collect()
}

/// Holds what was decided to what all policies say. How many offers were asked about is held to the grant.
fn compare(told: &ToolDecision, all: &[[Verdict; 2]], to_the_grant: bool) -> Result<(), TestCaseError> {
    let grant = all.iter().position(|[attended, unattended]| attended.allowed && unattended.allowed);
    let asked = if to_the_grant { grant.map_or(all.len(), |place| place + 1) } else { all.len() };
    prop_assert_eq!(told.offers.len(), asked);
    for (told, [attended, unattended]) in told.offers.iter().zip(all) {
        let OfferDecision { attended: told_attended, unattended: told_unattended, .. } = told.clone();
        prop_assert_eq!(&sorted(told_attended), attended);
        prop_assert_eq!(told_unattended.map(sorted), attended.allowed.then(|| unattended.clone()));
    }
    let granted = told.ahead.as_ref().map(|chosen| chosen.offer.clone());
    prop_assert_eq!(granted, grant.map(|place| told.offers[place].offer.clone()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_an_agent_gets_is_what_all_policies_say(version in any_version(), agents in proptest::collection::vec(any_agent(), 1..4), suite in 3_u8..=4) {
        let moment = Occasion { suite, ..NOON };
        for agent in &agents {
            let decision = version.decide(agent, &moment).unwrap();
            let tools = version.catalogue().tools();
            prop_assert_eq!(decision.tools.len(), tools.len());
            for (told, tool) in decision.tools.iter().zip(tools) {
                prop_assert_eq!((&told.tool, &told.audience), (&tool.name, &tool.audience), "in the catalogue's order");
                let all = offers(&version, agent, &moment, tool);
                compare(told, &all, true)?;
                let explained = version.explain(agent, &moment, &tool.name, Some(&tool.audience)).unwrap();
                compare(&explained[0], &all, false)?;
            }
        }
    }

    #[test]
    fn what_a_human_may_do_is_what_all_policies_say(version in any_version(), human in any_human(), agent in any_agent(), days in 2_u64..6, verb in prop_oneof![Just("disable"), Just("enable")]) {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let alone = people(None, Some(&human)).unwrap();
        let org = Kind::Org.uid("example");

        let operate = by_all(&version, (human.uid(), Action::Operate, org.clone()), [("verb", text(verb))], &alone);
        prop_assert_eq!(sorted(version.may_operate(&human, verb).unwrap()), operate);
        let reach = by_all(&version, (human.uid(), Action::Reach, org), [("organisation", text("acme"))], &alone);
        prop_assert_eq!(sorted(version.may_reach(&human, "acme").unwrap()), reach);

        let class = Kind::AgentClass.uid(&agent.class);
        let context = [
            ("flow", text("code")),
            ("days", RestrictedExpression::new_long(days.cast_signed())),
            ("roles", RestrictedExpression::new_set([])),
        ];
        let register = by_all(&version, (human.uid(), Action::Register, class), context, &alone);
        let asked = Registration { class: &agent.class, flow: "code", days, roles: &BTreeSet::new() };
        prop_assert_eq!(sorted(version.may_register(&human, &asked).unwrap()), register);

        let agent = AgentFacts { owner: HumanFacts { id: "local:carol".to_owned(), ..human.clone() }, ..agent };
        for tool in version.catalogue().tools() {
            let (asked, entities) = seen(&version, tool);
            let entities = people(Some(&agent), Some(&human)).unwrap().add_entities(entities, None).unwrap();
            for (offer, record) in tool.offers.iter().zip(&asked.offers) {
                let context = [("agent", RestrictedExpression::new_entity_uid(agent.uid())), ("offer", record.clone())];
                let approve = by_all(&version, (human.uid(), Action::ApproveCall, asked.party.uid.clone()), context, &entities);
                let told = version.may_approve_call(&human, &agent, &tool.name, &tool.audience, &offer.name).unwrap();
                prop_assert_eq!(sorted(told), approve);
            }
        }
    }
}

#[test]
fn each_part_of_a_random_policy_validates_in_some_policy() {
    let some = |places: [usize; 4]| loads(&policy(0, &(true, places[0], places[1], places[2], places[3])));
    let pools = [PRINCIPALS.len(), ACTIONS.len(), RESOURCES.len(), CONDITIONS.len()];
    for (place, pool) in pools.into_iter().enumerate() {
        for part in 0..pool {
            let mut places = [0; 4];
            places[place] = part;
            assert!(some(places), "{}", policy(0, &(true, places[0], places[1], places[2], places[3])));
        }
    }
}

#[test]
fn a_tool_is_asked_about_with_its_own_policies_unless_nearly_all_are() {
    let one = |number: usize, set: &str| {
        format!(
            "@id(\"p{number}\") permit (principal, action == Obol::Action::\"use\", resource in Obol::ToolSet::\"{set}\");"
        )
    };
    let for_db = |count: usize| {
        (0..10).map(|number| one(number, if number < count { "db" } else { "web" })).collect::<String>()
    };
    for (of_db, in_set) in [(0, 0), (1, 1), (5, 5), (6, 10), (10, 10)] {
        let version = version(TOOLS, &[&for_db(of_db)]);
        let bearing = Bearing::new(version.rules(), Action::Use, &agent(&[]).party());
        let (asked, _) = seen(&version, &version.catalogue().tools()[0]);
        let marked = bearing.on(&asked.bearing);
        assert_eq!(marked.count(), of_db);
        let slice = Slice::new(&bearing, &marked, 1);
        assert_eq!(slice.policies().unwrap().num_of_policies(), in_set, "{of_db} of 10, asked once");
        let slice = Slice::new(&bearing, &marked, 9);
        assert_eq!(slice.policies().unwrap().num_of_policies(), of_db, "{of_db} of 10, asked for nine tools");
    }
}
