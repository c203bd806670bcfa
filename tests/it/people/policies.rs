//! The policy in the console: versions, what differs, what one would do to those who have sessions, and who puts one in force.

use std::sync::Arc;

use obol_authority::directory::Human;
use obol_policy::{PolicySource, PolicyVersion};
use obol_world::home::wait_until;

use super::console::{approved, audited};
use super::{World, crowd, moment};

const CATALOGUE: &str = r#"org = "example"
[[tool]]
name = "search"
audience = "https://a"
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["call"]
  resource = "docs/**"
  ttl = 4
"#;

/// A version by which one role may search.
pub(super) fn version(role: &str) -> Arc<PolicyVersion> {
    let rules = format!(
        r#"// <b>who</b> may search
@id("use") permit (principal in Obol::Role::"{role}", action == Obol::Action::"use", resource);
@id("ahead") permit (principal in Obol::Role::"{role}", action == Obol::Action::"useUnattended", resource);
@id("register") permit (principal in Obol::Role::"dev", action == Obol::Action::"register", resource);
@id("look") permit (principal in Obol::Role::"dev", action == Obol::Action::"operate", resource)
  when {{ context.verb == "console.view" }};
@id("operate") permit (principal in Obol::Role::"ops", action == Obol::Action::"operate", resource);
"#
    );
    let policies = [("rules.cedar".to_owned(), rules)].into();
    Arc::new(PolicyVersion::load(PolicySource { catalogue: CATALOGUE.to_owned(), policies }).unwrap())
}

/// As the command puts a version in force, and has another looked at.
pub(super) fn in_force_and_observed(world: &World, one: &Arc<PolicyVersion>, other: &Arc<PolicyVersion>) {
    let by = Human::local("root");
    world.policies.activate(Arc::clone(one), &by, false, moment()).unwrap();
    world.policies.observe(Some(Arc::clone(other)), &by).unwrap();
}

#[test]
fn a_version_is_compared_weighed_and_put_in_force_and_there_is_a_way_back() {
    let world = World::new();
    let (one, two) = (version("dev"), version("nobody"));
    in_force_and_observed(&world, &one, &two);
    let (first, second) = (one.digest().to_string(), two.digest().to_string());
    let rs = world.server("https://a");
    let _running = world.agent();
    let mut browser = approved(&world);
    let agent = world.agent_row().unwrap();
    let sessions = || world.authority.directory().sessions(&agent.id).unwrap();
    let list = browser.open(&world.url("/console/policies"));
    assert!(list.body.contains("in force") && list.body.contains("looked at"), "{list:?}");
    let diff = browser.open(&world.url(&format!("/console/policies/diff?from={first}&to={second}")));
    let gone = "- @id(&#34;use&#34;) permit (principal in Obol::Role::&#34;dev&#34;";
    assert!(diff.body.contains(gone) && diff.body.contains("Role::&#34;nobody&#34;"), "{diff:?}");
    assert!(!diff.body.contains("<b>who") && !diff.body.contains("catalogue.toml"), "{diff:?}");

    let path = format!("/console/policies/{second}");
    let page = browser.open(&world.url(&path));
    for part in ["of 1 there are, 1 go", "1 of agents that get less end at once", "probably a mistake"] {
        assert!(page.body.contains(part), "{part}: {page:?}");
    }
    assert!(page.body.contains("What observing it found") && page.body.contains("loses search"), "{page:?}");
    let (token, beside) = (page.hidden("token"), page.hidden("beside"));
    let force = [("token", token.as_str()), ("beside", beside.as_str()), ("word", "activate")];
    let anyway = [&force[..], &[("anyway", "yes")]].concat();
    let refused = browser.submit(&page.url, &force);
    assert!(refused.status == 403 && refused.body.contains("takes away 1 of the 1"), "{refused:?}");
    let mut bert = world.logged_in("bert");
    let seen = bert.open(&world.url(&path));
    assert!(seen.status == 200 && !seen.body.contains("Put it in force"), "he may look: {seen:?}");
    let by_bert =
        [("token", &*seen.hidden("token")), ("beside", &beside), ("word", "activate"), ("anyway", "yes")];
    let refused = bert.submit(&page.url, &by_bert);
    assert!(refused.status == 403 && refused.body.contains("policy.activate"), "{refused:?}");
    assert_eq!(browser.submit_from(&[("Sec-Fetch-Site", "cross-site")], &page.url, &anyway).status, 403);
    assert!(world.policies.in_force().unwrap().digest() == one.digest() && sessions().len() == 1);

    let done = browser.submit(&page.url, &anyway);
    assert!(done.leads_to().unwrap().contains("?since="), "{done:?}");
    assert_eq!(world.policies.in_force().unwrap().digest(), two.digest());
    assert!(sessions().is_empty(), "what they hold is more than it grants");
    let heard = browser.follow(done);
    assert!(heard.body.contains("Every resource server has heard of it"), "{heard:?}\n{}", rs.log());
    let line = audited(&world, "policy");
    assert!(line["client"].as_str().unwrap().ends_with(":anna") && line["epoch"] == 2, "{line}");

    let back = world.url(&format!("/console/policies/{first}"));
    let page = browser.open(&back);
    let stale = [("token", token.as_str()), ("beside", beside.as_str()), ("word", "activate")];
    let conflict = browser.submit(&back, &stale);
    assert!(conflict.status == 409 && conflict.body.contains("It changed meanwhile"), "{conflict:?}");
    let fresh =
        [("token", page.hidden("token")), ("beside", page.hidden("beside")), ("word", "activate".into())];
    let fresh = fresh.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(browser.submit(&back, &fresh).status, 303);
    let row = world.authority.directory().policy().unwrap().unwrap();
    assert_eq!((row.digest, row.version, row.epoch), (first, 3, 3));
    wait_until("a session under it", || !sessions().is_empty());
}

#[test]
fn another_version_is_looked_at_and_no_more_by_who_may() {
    let world = World::new();
    let (one, two) = (version("dev"), version("nobody"));
    in_force_and_observed(&world, &one, &two);
    let mut browser = world.logged_in("anna");
    let url = world.url(&format!("/console/policies/{}", two.digest()));
    let token = browser.open(&url).hidden("token");
    let act = |browser: &mut super::Browser, token: &str, word: &str| {
        browser.submit(&url, &[("token", token), ("word", word)]).status
    };
    let mut bert = world.logged_in("bert");
    let his = bert.open(&url).hidden("token");
    assert_eq!(act(&mut bert, &his, "stop"), 403);
    assert!(world.policies.observed().is_some());
    assert_eq!(act(&mut browser, &token, "stop"), 303);
    assert!(world.policies.observed().is_none());
    assert_eq!(browser.open(&url).status, 404, "its text is kept no longer than it is needed");
    let unknown = world.url(&format!("/console/policies/diff?from={}&to=x", one.digest()));
    assert_eq!(browser.open(&unknown).status, 404);
    assert_eq!(browser.open(&world.url("/console/policies/diff")).status, 400);
}

#[test]
fn a_registration_shows_all_that_would_be_granted_and_what_is_different() {
    let world = World::new();
    crowd::agent(&world, 1, "builder");
    let id = crowd::again(&world, 1, "builder");
    let mut browser = world.logged_in("anna");
    let page = browser.open(&world.url(&format!("/activate/{id}")));
    for part in ["docs/**", "a token lasts 4 s", "a human, each call", "any account", "at most 9 rows"] {
        assert!(page.body.contains(part), "{part}: {page:?}");
    }
    assert!(page.body.contains("What would change") && page.body.contains("It would gain"), "{page:?}");
    let other = browser.open(&world.url(&format!("/activate/{id}?chosen=yes")));
    assert!(other.body.contains("Nothing: it has the same already"), "{other:?}");
}

#[test]
fn the_keys_are_shown_and_nothing_of_their_private_halves() {
    let world = World::new();
    let page = world.logged_in("anna").open(&world.url("/console/keys"));
    assert!(page.body.contains(&obol_secret::text::to_hex(&world.authority.key().0)), "{page:?}");
    assert!(page.body.contains("no policy is in force") && page.body.contains("chain "), "{page:?}");
    assert!(!page.body.contains(&"07".repeat(32)), "its private half: {page:?}");
    assert_eq!(world.logged_in("carl").open(&world.url("/console/keys")).status, 403);
}
