//! Two organisations at one service, each with its provider: nobody sees or decides on what belongs to the other's agents, however they ask
//! for it, unless policy lets them. Each refusal is beside the same by somebody who may.

use obol_authority::directory::{Agent, AgentStatus, CallStanding, Human};
use obol_authority::{Now, Refused};
use obol_world::home::wait_until;
use serde_json::json;

use super::browser::Browser;
use super::calls::{ask, standing};
use super::console::approved;
use super::several::Two;
use super::{crowd, moment};

const PLACES_OF_THE_SERVICE: [&str; 4] =
    ["/console/servers", "/console/policies", "/console/audit", "/console/keys"];

impl Two {
    fn anna_of(&self, issuer: &str) -> Human {
        Human { issuer: issuer.to_owned(), subject: "anna".to_owned() }
    }

    /// An agent of the other organisation, and one of the service's own.
    fn agents(&self) -> [Agent; 2] {
        drop((self.browser("first"), self.browser("second")));
        let of = |number: u64, name: &str, issuer: &str| {
            crowd::agent_of(&self.world, number, name, self.anna_of(issuer), vec!["dev".to_owned()])
        };
        [of(1, "theirs", &self.second.issuer), of(2, "ours", &self.world.idp.issuer)]
    }
}

#[test]
fn nobody_sees_or_ends_an_agent_of_another_organisation() {
    let two = Two::of_two_organisations();
    let [theirs, ours] = two.agents();
    let (their_session, our_session) =
        (crowd::session(&two.world, 1, &theirs), crowd::session(&two.world, 2, &ours));
    let url = |path: &str| two.world.url(path);
    // From either side, the one has only its own. Both have every role that there is.
    for (provider, own, other, own_session, other_session) in [
        ("second", &theirs, &ours, &their_session, &our_session),
        ("first", &ours, &theirs, &our_session, &their_session),
    ] {
        let mut browser = two.browser(provider);
        for path in ["/console/agents", "/console/sessions", "/console", "/console/approvals"] {
            let page = browser.open(&url(path));
            assert_eq!(page.status, 200, "{path}: {page:?}");
            let names = |agent: &Agent| page.body.contains(&format!(">{}<", agent.wanted.name));
            let is_list = path.ends_with("agents") || path.ends_with("sessions");
            assert_eq!((names(own), names(other)), (is_list, false), "{provider} {path}: {page:?}");
            assert!(!page.body.contains(other.id.as_str()), "{provider} {path}: {page:?}");
        }
        let named = browser.open(&url(&format!("/console/agents?name={}", other.wanted.name)));
        assert!(named.body.contains("No agent is called"), "{named:?}");
        for path in [
            format!("/console/agents/{}", other.id),
            format!("/console/agents/{}?since=1", other.id),
            format!("/console/sessions/{}", other_session.id),
        ] {
            assert_eq!(browser.open(&url(&path)).status, 404, "{provider} {path}");
        }
        let token = browser.open(&url(&format!("/console/agents/{}", own.id))).hidden("token");
        let deed = |browser: &mut Browser, path: &str, word: &str| {
            browser.submit(&url(path), &[("token", &token), ("word", word)]).status
        };
        let page = format!("/console/agents/{}", other.id);
        assert_eq!(deed(&mut browser, &page, "disable"), 404);
        assert_eq!(deed(&mut browser, &page, "enable"), 404);
        assert_eq!(deed(&mut browser, &format!("/console/sessions/{}", other_session.id), "end"), 404);
        let row = |agent: &Agent| two.world.authority.directory().agent(agent.id.as_str()).unwrap().unwrap();
        assert_eq!(row(other).status, AgentStatus::Active);
        // Control: the same, on their own.
        assert_eq!(deed(&mut browser, &format!("/console/sessions/{}", own_session.id), "end"), 303);
        assert_eq!(deed(&mut browser, &format!("/console/agents/{}", own.id), "disable"), 303);
        assert_eq!(row(own).status, AgentStatus::Suspended);
        assert_eq!(deed(&mut browser, &format!("/console/agents/{}", own.id), "enable"), 303);
    }
}

#[test]
fn what_is_the_services_own_is_for_its_own_organisation() {
    let two = Two::of_two_organisations();
    crowd::registration(&two.world, 9, "newcomer");
    let (mut own, mut other) = (two.browser("first"), two.browser("second"));
    for path in PLACES_OF_THE_SERVICE {
        assert_eq!(own.open(&two.world.url(path)).status, 200, "control: {path}");
        let page = other.open(&two.world.url(path));
        assert_eq!(page.status, 403, "{path}: {page:?}");
        assert!(page.body.contains("of another organisation than yours"), "{page:?}");
    }
    let token = other.open(&two.world.url("/activate")).hidden("token");
    let checks = other.submit(&two.world.url("/console/audit"), &[("token", &token), ("word", "check")]);
    assert_eq!(checks.status, 403, "{checks:?}");
    // Who asks to be an agent is nobody's yet: the service's own people notice what nobody started.
    assert!(own.open(&two.world.url("/console")).body.contains("newcomer"));
    let page = other.open(&two.world.url("/console"));
    assert!(
        page.status == 200 && !page.body.contains("newcomer") && !page.body.contains("/console/servers\">1"),
        "{page:?}"
    );

    // Policy lets some reach beyond their own: these see both.
    two.second.control(json!({ "groups": { "anna": ["dev", "ops", "auditor"] } }));
    let mut auditor = two.browser("second");
    for path in PLACES_OF_THE_SERVICE {
        assert_eq!(auditor.open(&two.world.url(path)).status, 200, "{path}");
    }
    assert!(auditor.open(&two.world.url("/console")).body.contains("newcomer"));
}

#[test]
fn whoever_policy_lets_reaches_beyond_their_organisation_and_no_further_than_their_role() {
    let two = Two::of_two_organisations();
    let [_, ours] = two.agents();
    let path = two.world.url(&format!("/console/agents/{}", ours.id));
    // Bert looks, and ends nothing: reaching an agent is no right to anything.
    two.second.control(json!({ "account": "bert", "groups": { "bert": ["dev", "auditor"] } }));
    let mut bert = two.browser("second");
    assert_eq!(bert.open(&path).status, 200);
    let token = bert.open(&path).hidden("token");
    assert_eq!(bert.submit(&path, &[("token", &token), ("word", "disable")]).status, 403);
    two.second.control(json!({ "account": "anna", "groups": { "anna": ["ops", "auditor"] } }));
    let mut anna = two.browser("second");
    let token = anna.open(&path).hidden("token");
    assert_eq!(anna.submit(&path, &[("token", &token), ("word", "disable")]).status, 303);
}

#[test]
fn a_call_is_decided_by_people_of_its_agents_organisation() {
    let two = Two::of_two_organisations();
    let _running = two.world.agent();
    let mut own = two.approved_by("first");
    let mine = ask(&two.world);
    let path = two.world.url(&format!("/console/approvals/{}", mine.approval_id));
    // `ops` of another organisation, whose word policy would take.
    let mut other = two.browser("second");
    assert!(!other.open(&two.world.url("/console/approvals")).body.contains(&mine.approval_id));
    assert!(!other.open(&two.world.url("/console")).body.contains(&mine.approval_id));
    assert_eq!(other.open(&path).status, 404);
    let token = other.open(&two.world.url("/activate")).hidden("token");
    for word in ["approve", "deny"] {
        assert_eq!(other.submit(&path, &[("token", &token), ("word", word)]).status, 404, "{word}");
    }
    assert_eq!(standing(&two.world, &mine), CallStanding::Waiting);
    // Control: the same of its own.
    let token = own.open(&path).hidden("token");
    assert_eq!(own.submit(&path, &[("token", &token), ("word", "approve")]).status, 303);
    assert!(matches!(standing(&two.world, &mine), CallStanding::Approved { .. }));
}

/// Whoever got the link or the code of an agent that asks anew learns nothing of what it was, and takes nothing over.
#[test]
fn an_agent_is_approved_anew_by_its_own_organisation() {
    let two = Two::of_two_organisations();
    let [_, ours] = two.agents();
    let id = crowd::again(&two.world, 2, "ours");
    let url = two.world.url(&format!("/activate/{id}"));
    let mut other = two.browser("second");
    assert_eq!(other.open(&url).status, 404);
    let token = other.open(&two.world.url("/activate")).hidden("token");
    let fields =
        [("token", token.as_str()), ("chosen", "yes"), ("role", "dev"), ("days", "7"), ("word", "approve")];
    assert_eq!(other.submit(&url, &fields).status, 404);
    for word in ["deny", "foreign"] {
        assert_eq!(other.submit(&url, &[("token", &token), ("word", word)]).status, 404, "{word}");
    }
    // Nor where no page stands before it.
    let theirs = two.anna_of(&two.second.issuer);
    let review = two.world.authority.review_named(&id, moment()).unwrap();
    let roles = ["dev".to_owned()];
    let at: Now = moment();
    let refused = two.world.authority.confirm(&review, &roles, None, &theirs, at);
    assert_eq!(refused.map(drop), Err(Refused::NoSuchCode));
    let refused = two.world.authority.approve(&review, &roles, None, theirs.clone(), at);
    assert_eq!(refused.map(drop), Err(Refused::NoSuchCode));
    assert_eq!(two.world.authority.deny(id.clone(), true, &theirs, at).map(drop), Err(Refused::NoSuchCode));
    // Control.
    let mut own = two.browser("first");
    let page = own.open(&url);
    assert!(page.status == 200 && page.body.contains("What would change"), "{page:?}");
    let said = super::registers::approve(&mut own, &page);
    assert!(said.leads_to().is_some_and(|to| to.starts_with("http://127.0.0.1:9/registered")), "{said:?}");
    assert_eq!(two.world.authority.directory().agent("ours").unwrap().unwrap().owner, ours.owner);
}

#[test]
fn an_agents_sessions_are_of_its_owners_organisation() {
    let two = Two::of_two_organisations();
    let _running = two.world.agent();
    let asked = two.world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let mut browser = two.browser("second");
    let page = browser.open(asked["page"].as_str().unwrap());
    let said = super::registers::approve(&mut browser, &page);
    assert_eq!(browser.follow(said).status, 200);
    let id = two.world.agent_row().unwrap().id;
    let directory = two.world.authority.directory();
    wait_until("a session", || !directory.sessions(&id).unwrap().is_empty());
    let session = directory.sessions(&id).unwrap().remove(0);
    let half = directory.half(session.id, "https://a").unwrap().unwrap();
    assert_eq!(half.org_id, "acme");
    // Control: one of the service's own people.
    let world = super::World::new();
    let _running = world.agent();
    drop(approved(&world));
    let directory = world.authority.directory();
    let id = world.agent_row().unwrap().id;
    let session = directory.sessions(&id).unwrap().remove(0);
    assert_eq!(directory.half(session.id, "https://a").unwrap().unwrap().org_id, "example");
}

#[test]
fn calls_of_one_organisation_take_no_place_of_anothers() {
    let two = Two::of_two_organisations();
    let [theirs, ours] = two.agents();
    let _running = two.world.agent();
    let _own = two.approved_by("first");
    let mine = ask(&two.world);
    let (builder, like) = (two.world.agent_row().unwrap().id, mine.approval_id.as_str());
    // More of the one than one answer looks at, and behind them what waits for the other.
    crowd::calls_of(&two.world, &builder, like, 0..900, 0);
    crowd::calls_of(&two.world, &ours.id, like, 900..1_200, 0);
    crowd::calls_of(&two.world, &theirs.id, like, 1_200..1_202, 1);
    let asked = |issuer: &str| two.world.authority.asked_approvals(&two.anna_of(issuer), moment()).unwrap();
    let seen = asked(&two.second.issuer);
    assert_eq!((seen.len(), seen.iter().all(|asked| asked.agent.id == theirs.id)), (2, true));
    let mut other = two.browser("second");
    for path in ["/console/approvals", "/console"] {
        let page = other.open(&two.world.url(path));
        for asked in &seen {
            assert!(page.body.contains(asked.approval.id.as_str()), "{path}: {page:?}");
        }
        assert!(!page.body.contains(like), "{path}: {page:?}");
    }
    // Control: the one sees as many of its own as an answer holds, and none of the other's.
    let seen = asked(&two.world.idp.issuer);
    assert_eq!((seen.len(), seen.iter().any(|asked| asked.agent.id == theirs.id)), (1_000, false));
}

/// Who has heard of an end, says as much as which resource servers there are.
#[test]
fn whoever_ends_their_agent_is_shown_the_resource_servers_of_its_sessions_and_no_others() {
    let two = Two::of_two_organisations();
    let [theirs, ours] = two.agents();
    let (_theirs, _ours) = (crowd::session(&two.world, 1, &theirs), crowd::session(&two.world, 2, &ours));
    crowd::copy(&two.world, 1, "https://a");
    crowd::copy(&two.world, 2, "https://secret.example");
    for (provider, agent, sees_all) in [("second", &theirs, false), ("first", &ours, true)] {
        let mut browser = two.browser(provider);
        let path = two.world.url(&format!("/console/agents/{}", agent.id));
        let live = browser.open(&format!("{path}?since=1"));
        assert_eq!(live.body.contains("https://secret.example"), sees_all, "{provider}: {live:?}");
        let token = live.hidden("token");
        let said = browser.submit(&path, &[("token", &token), ("word", "disable")]);
        let after = browser.follow(said);
        assert!(after.status == 200 && after.body.contains("https://a<"), "{provider}: {after:?}");
        assert_eq!(after.body.contains("https://secret.example"), sees_all, "{provider}: {after:?}");
    }
}
