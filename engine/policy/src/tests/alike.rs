//! Two ways to one answer: kept and fresh. And that what Cedar is told is of the form that policies were checked against.

use cedar_policy::{Context, Entities, EntityUid, EvalResult, Policy, Request, eval_expression};
use proptest::prelude::*;

use crate::ask::Asked;
use crate::cache::DecisionCache;
use crate::example::{CATALOGUE, NOON, agent, human, names, version};
use crate::facts::{AgentFacts, Occasion, people};
use crate::version::PolicyVersion;
use crate::vocabulary::{Action, schema};

const PRINCIPALS: [&str; 8] = [
    "principal",
    "principal is Obol::Agent",
    "principal is Obol::Human",
    "principal == Obol::Agent::\"a1\"",
    "principal in Obol::Role::\"analyst\"",
    "principal in Obol::Role::\"clerk\"",
    "principal in Obol::AgentClass::\"assistant\"",
    "principal is Obol::Agent in Obol::Role::\"clerk\"",
];
const ACTIONS: [&str; 4] = [
    "action",
    "action == Obol::Action::\"use\"",
    "action == Obol::Action::\"useUnattended\"",
    "action in [Obol::Action::\"use\", Obol::Action::\"useUnattended\"]",
];
const RESOURCES: [&str; 4] = [
    "resource is Obol::Tool",
    "resource == Obol::Tool::\"query_database\"",
    "resource in Obol::ToolSet::\"db\"",
    "resource in Obol::Org::\"example\"",
];
/// Conditions that hold for agents only, and read one thing each. The last ones fail for some.
const CONDITIONS: [&str; 12] = [
    "true",
    "context.offer.name == \"full\"",
    "principal.flow == \"code\"",
    "principal.registered_days > 3",
    "principal.clone_suspected",
    "principal.tags.contains(\"x\")",
    "principal.owner.mfa",
    "principal.owner == Obol::Human::\"local:alice\"",
    "context.moment.suite == 4",
    "principal == Obol::Agent::\"a2\"",
    "principal.registered_days + 9223372036854775804 > 0",
    "context.offer.ttl * 153722867280912930 * 60 > 0",
];

fn policy(number: usize, parts: &(bool, usize, usize, usize, usize)) -> String {
    let (permits, principal, action, resource, condition) = parts;
    let effect = if *permits { "permit" } else { "forbid" };
    let (principal, action, resource) = (PRINCIPALS[*principal], ACTIONS[*action], RESOURCES[*resource]);
    let condition = CONDITIONS[*condition];
    // What policies of any action read must be there for any principal.
    let when = match *parts {
        (_, 0 | 2, ..) | (_, _, 0, ..) => {
            format!("principal is Obol::Agent && context has offer && context has moment && ({condition})")
        }
        _ => condition.to_owned(),
    };
    format!("@id(\"p{number}\") {effect} ({principal}, {action}, {resource}) when {{ {when} }};\n")
}

/// A version of random policies; those that do not validate are left out.
fn any_version() -> impl Strategy<Value = PolicyVersion> {
    let one = (any::<bool>(), 0..PRINCIPALS.len(), 0..ACTIONS.len(), 0..RESOURCES.len(), 0..CONDITIONS.len());
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let loads =
            |text: &String| PolicyVersion::load(crate::example::source(CATALOGUE, &[text.as_str()])).is_ok();
        let texts = all.iter().enumerate().map(|(number, parts)| policy(number, parts)).filter(loads);
        version(CATALOGUE, &[&texts.collect::<String>()])
    })
}

fn any_agent() -> impl Strategy<Value = AgentFacts> {
    let names_of = |pool: &'static [&'static str]| proptest::sample::subsequence(pool, 0..=pool.len());
    let owners = prop_oneof![Just(human("alice", &[])), Just(human("bob", &["clerk"]))];
    let who = (
        prop_oneof![Just("a1"), Just("a2")],
        prop_oneof![Just("assistant"), Just("robot")],
        owners,
        any::<bool>(),
    );
    let what = (prop_oneof![Just("local"), Just("code")], 0_u64..6, any::<bool>());
    (who, what, names_of(&["analyst", "clerk"]), names_of(&["x", "y"])).prop_map(
        |((id, class, owner, mfa), (flow, registered_days, clone_suspected), roles, tags)| AgentFacts {
            id: id.to_owned(),
            class: class.to_owned(),
            roles: names(&roles),
            owner: crate::facts::HumanFacts { mfa, ..owner },
            flow: flow.to_owned(),
            registered_days,
            clone_suspected,
            tags: names(&tags),
        },
    )
}

fn any_moment() -> impl Strategy<Value = Occasion> {
    (0_u64..4_000_000_000, 1_u8..=4, 0_u64..100_000).prop_map(|(now, suite, owner_auth_age_secs)| Occasion {
        now,
        suite,
        owner_auth_age_secs,
    })
}

/// Each question about an agent, as Cedar hears it.
fn questions(
    version: &PolicyVersion,
    agent: &AgentFacts,
    moment: &Occasion,
) -> Vec<(Action, EntityUid, Context, Asked)> {
    let mut questions = Vec::new();
    for tool in version.catalogue().tools() {
        for place in 0..tool.offers.len() {
            for action in [Action::Use, Action::UseUnattended] {
                let asked = Asked::new(version.catalogue(), version.rules(), tool).unwrap();
                let record = asked.offers[place].clone();
                let context = [("offer".to_owned(), record), ("moment".to_owned(), moment.record().unwrap())];
                questions.push((action, agent.uid(), Context::from_pairs(context).unwrap(), asked));
            }
        }
    }
    questions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_would_be_decided(version in any_version(), agents in proptest::collection::vec((any_agent(), any_moment()), 1..12)) {
        let cache = DecisionCache::new();
        for (agent, moment) in &agents {
            let (kept, mut fresh) = (cache.decide(&version, agent, moment).unwrap(), version.decide(agent, moment).unwrap());
            // Cedar gives errors in no order.
            let mut kept = (*kept).clone();
            for decision in [&mut kept, &mut fresh] {
                decision.alerts.sort_by(|a, b| (&a.offer, &a.policy).cmp(&(&b.offer, &b.policy)));
                for tool in &mut decision.tools {
                    for offer in &mut tool.offers {
                        offer.attended.errors.sort_by(|a, b| a.policy.cmp(&b.policy));
                        offer.unattended.iter_mut().for_each(|verdict| verdict.errors.sort_by(|a, b| a.policy.cmp(&b.policy)));
                    }
                }
            }
            prop_assert_eq!(kept, fresh);
        }
    }

    #[test]
    fn the_moment_is_told_to_the_second(now in prop_oneof![0_u64..200_000, 0_u64..4_000_000_000, 0..=i64::MAX.unsigned_abs() / 1000]) {
        let moment = [("moment".to_owned(), Occasion { now, ..NOON }.record().unwrap())];
        let context = Context::from_pairs(moment).unwrap();
        let agent = agent(&[]).uid();
        let request = Request::new(agent.clone(), Action::Use.uid(), agent, context, None).unwrap();
        let is = |millis: u64| {
            let asked = format!("context.moment.now == datetime(\"1970-01-01\").offset(duration(\"{millis}ms\"))");
            eval_expression(&request, &Entities::empty(), &asked.parse().unwrap()).unwrap()
        };
        prop_assert_eq!((is(now * 1000), is(now * 1000 - now.min(1))), (EvalResult::Bool(true), EvalResult::Bool(now == 0)));
    }

    #[test]
    fn what_cedar_is_told_is_of_the_form_that_policies_were_checked_against(agent in any_agent(), moment in any_moment()) {
        let limits = "constraints = { max_rows = 1, time_window_sec = 2, data_classification = \"x\", allowed_parameters = {} }";
        let full = CATALOGUE.replace("resource = \"**\"", &format!("resource = \"**\"\n{limits}"));
        let version = version(&full, &[]);
        for (action, uid, context, asked) in questions(&version, &agent, &moment) {
            let told = people(Some(&agent), None).unwrap().add_entities(asked.entities.clone(), Some(schema()));
            prop_assert!(told.is_ok(), "{:?}", told.err());
            let request = Request::new(uid, action.uid(), asked.party.uid, context, Some(schema()));
            prop_assert!(request.is_ok(), "{:?}", request.err());
        }
    }
}

#[test]
fn each_part_of_a_random_policy_validates_in_some_policy() {
    let mut seen = [0; 4];
    let pools = [PRINCIPALS.len(), ACTIONS.len(), RESOURCES.len(), CONDITIONS.len()];
    for (place, pool) in pools.into_iter().enumerate() {
        for part in 0..pool {
            let mut parts = [4, 1, 0, 0];
            parts[place] = part;
            let text = policy(0, &(true, parts[0], parts[1], parts[2], parts[3]));
            let parsed: Policy = text.parse().unwrap();
            assert!(parsed.is_static());
            if PolicyVersion::load(crate::example::source(CATALOGUE, &[&text])).is_ok() {
                seen[place] += 1;
            }
        }
    }
    assert_eq!(
        (seen[1], seen[2], seen[3]),
        (4, 4, CONDITIONS.len()),
        "these are what the tests above are made of"
    );
    assert!(seen[0] >= 6, "{seen:?}");
}

#[test]
fn agents_that_are_alike_in_what_is_read_share_an_answer_and_others_do_not() {
    let by_class = version(CATALOGUE, &["@id(\"a\") permit (principal, action, resource is Obol::Tool);"]);
    let cache = DecisionCache::new();
    for number in 0..50 {
        let one = AgentFacts { id: format!("a{number}"), registered_days: number, ..agent(&["analyst"]) };
        cache.decide(&by_class, &one, &Occasion { now: NOON.now + number, ..NOON }).unwrap();
    }
    assert_eq!(cache.len(), 1);
    cache.decide(&by_class, &agent(&["clerk"]), &NOON).unwrap();
    let other = version(CATALOGUE, &["@id(\"b\") permit (principal, action, resource is Obol::Tool);"]);
    cache.decide(&other, &agent(&["clerk"]), &NOON).unwrap();
    assert_eq!(cache.len(), 3);

    let by_time = "@id(\"a\") permit (principal, action == Obol::Action::\"use\", resource) when { context.moment.now.toTime() < duration(\"13h\") };";
    let by_time = version(CATALOGUE, &[by_time]);
    let cache = DecisionCache::new();
    assert_eq!(cache.decide(&by_time, &agent(&[]), &NOON).unwrap().per_call().count(), 1);
    let evening = Occasion { now: NOON.now + 3 * 3600, ..NOON };
    assert_eq!(cache.decide(&by_time, &agent(&[]), &evening).unwrap().per_call().count(), 0);
    assert!(cache.is_empty());
}
