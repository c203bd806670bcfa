//! What changes between versions, and that looking at one changes nothing.

use std::sync::Arc;

use crate::cache::DecisionCache;
use crate::diff::{AgentDiff, Comparison, Impact, diff};
use crate::example::{ANALYTICS, CATALOGUE, NOON, POLICIES, agent, version};
use crate::in_force::InForce;

fn changed(catalogue: &str, policies: &str) -> AgentDiff {
    let old = version(CATALOGUE, &[POLICIES]).decide(&agent(&["analyst"]), &NOON).unwrap();
    let new = version(catalogue, &[policies]).decide(&agent(&["analyst"]), &NOON).unwrap();
    let there = diff(&old, &new);
    let back = diff(&new, &old);
    assert_eq!(there.changes.len(), back.changes.len());
    assert_eq!(diff(&new, &new).standing, Comparison::Same);
    there
}

#[test]
fn each_change_of_a_grant_is_seen_and_weighed() {
    let cases = [
        ("ttl = 60\n  require_pop", "ttl = 30\n  require_pop", Comparison::Narrowed, Some("ttl")),
        ("ttl = 60\n  require_pop", "ttl = 90\n  require_pop", Comparison::Widened, Some("ttl")),
        ("billing/**\"", "billing/eu/**\"", Comparison::Narrowed, Some("resource")),
        ("\"billing/**\"", "\"**\"", Comparison::Widened, Some("resource")),
        ("max_rows = 1000", "max_rows = 999", Comparison::Narrowed, Some("max_rows")),
        ("require_pop = false", "require_pop = true", Comparison::Narrowed, Some("require_pop")),
        (
            "table = \"billing_*\"",
            "table = \"billing_*\", day = \"*\"",
            Comparison::Widened,
            Some("allowed_parameters"),
        ),
        ("require_pop = false", "purpose = \"reports\"", Comparison::Same, None),
        // Wider in one field and narrower in another: old tokens allow what the new grant does not.
        (
            "resource = \"billing/**\"\n  ttl = 60",
            "resource = \"**\"\n  ttl = 30",
            Comparison::Narrowed,
            Some("ttl"),
        ),
    ];
    for (from, to, standing, field) in cases {
        let catalogue = CATALOGUE.replace(from, to);
        assert_ne!(catalogue, CATALOGUE, "{from}");
        let diff = changed(&catalogue, POLICIES);
        assert_eq!((diff.standing, diff.changes[0].field, diff.lost), (standing, field, 0), "{to}");
    }
    assert!(changed(CATALOGUE, POLICIES).changes.is_empty());
}

#[test]
fn what_is_gained_and_lost_is_told_apart() {
    let unattended =
        "permit (principal in Obol::Role::\"analyst\", action == Obol::Action::\"useUnattended\", resource)";
    let lost = changed(CATALOGUE, &POLICIES.replace(unattended, &unattended.replace("analyst", "clerk")));
    assert_eq!((lost.standing, lost.held, lost.lost), (Comparison::Narrowed, 1, 1));
    let change = &lost.changes[0];
    assert!(
        change.before.ahead.is_some() && change.after.ahead.is_none() && change.after.per_call.len() == 1
    );

    let more = CATALOGUE.replace("org = \"example\"", "").replace("query_database", "query_archive");
    let gained = changed(&format!("{CATALOGUE}{more}"), POLICIES);
    assert_eq!((gained.standing, gained.lost), (Comparison::Widened, 0));
    assert_eq!((&*gained.changes[0].tool, &*gained.changes[0].audience), ("query_archive", ANALYTICS));

    let gone = changed(&CATALOGUE.replace("query_database", "query_archive"), POLICIES);
    assert_eq!((gone.standing, gone.lost, gone.changes.len()), (Comparison::Narrowed, 1, 2));

    // A yes more or less to each call narrows nobody: nothing of it was minted.
    let per_call = POLICIES.replace("context.offer.actions == [\"read\"] && context.offer has max_rows && context.offer.max_rows <= 1000", "true")
        .replace("resource.risk == \"high\"", "context.offer.actions.contains(\"write\")");
    let per_call = changed(CATALOGUE, &per_call);
    assert_eq!((per_call.standing, per_call.changes.len()), (Comparison::Same, 1));
}

#[test]
fn to_take_away_more_than_a_fifth_of_all_grants_is_too_much() {
    let lost = changed(CATALOGUE, "");
    let same = changed(CATALOGUE, POLICIES);
    let impact = |losing: usize, all: usize| {
        let mut impact = Impact::default();
        (0..all).for_each(|number| impact.add(if number < losing { &lost } else { &same }));
        impact
    };
    assert!(!impact(2, 10).is_too_much() && impact(3, 10).is_too_much() && impact(1, 1).is_too_much());
    assert!(!Impact::default().is_too_much());
    assert_eq!((impact(3, 10).narrowed, impact(3, 10).lost, impact(3, 10).held), (3, 3, 10));
}

#[test]
fn a_version_that_is_only_looked_at_decides_nothing() {
    let in_force = Arc::new(version(CATALOGUE, &[POLICIES]));
    let nothing = Arc::new(version(CATALOGUE, &[]));
    let failing = "@id(\"failing\") forbid (principal, action, resource is Obol::Tool) when { context has offer && 9223372036854775807 + context.offer.ttl > 0 };";
    let failing = Arc::new(version(CATALOGUE, &[POLICIES, failing]));
    let (analyst, cache) = (agent(&["analyst"]), DecisionCache::new());
    let alone = InForce::new(Arc::clone(&in_force));
    let (expected, none) = alone.decide(&cache, &analyst, &NOON).unwrap();
    assert!(none.is_none() && expected.grants().len() == 1);
    for (other, failures) in [(&nothing, 0), (&failing, 2)] {
        let beside = alone.clone().observe(Some(Arc::clone(other)));
        let (decision, observed) = beside.decide(&cache, &analyst, &NOON).unwrap();
        assert_eq!(decision, expected);
        let observed = observed.unwrap();
        assert_eq!((observed.version, observed.failing), (other.digest(), failures));
        assert_eq!(observed.would_change.unwrap().lost, 1);
    }
    let same = alone.clone().observe(Some(in_force));
    assert_eq!(same.decide(&cache, &analyst, &NOON).unwrap(), (expected, None));
    let clerk = agent(&["clerk"]);
    let beside = alone.observe(Some(nothing));
    assert_eq!(
        beside.decide(&cache, &clerk, &NOON).unwrap().1,
        None,
        "neither version gives a clerk anything"
    );
}
