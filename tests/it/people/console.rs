//! The console: who may look, who may end an agent, and who has heard of it.

use std::fs;

use obol_authority::directory::AgentStatus;
use obol_world::home::wait_until;

use super::browser::Browser;
use super::{LOG, World, crowd};

/// An agent that Anna approved, with a session; and her browser.
pub(super) fn approved(world: &World) -> Browser {
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let mut browser = Browser::default();
    let page = browser.open(asked["page"].as_str().unwrap());
    let token = page.hidden("token");
    let fields =
        [("token", token.as_str()), ("chosen", "yes"), ("role", "dev"), ("days", "7"), ("word", "approve")];
    let approved = browser.submit(&page.url, &fields);
    assert_eq!(browser.follow(approved).status, 200);
    let id = world.agent_row().unwrap().id;
    wait_until("a session", || !world.authority.directory().sessions(&id).unwrap().is_empty());
    browser
}

#[test]
fn an_agent_is_disabled_in_the_console_and_let_in_again() {
    let world = World::new();
    let _running = world.agent();
    let mut browser = approved(&world);
    let id = world.agent_row().unwrap().id;
    let overview = browser.open(&world.url("/console"));
    assert!(
        overview.body.contains("Nothing. No agent or call is waiting")
            && overview.body.contains("/console/sessions"),
        "{overview:?}"
    );
    let list = browser.open(&world.url("/console/agents"));
    assert!(list.body.contains(&format!("/console/agents/{id}")), "{list:?}");
    let found = browser.open(&world.url("/console/agents?name=builder"));
    assert!(found.url.ends_with(&format!("/console/agents/{id}")), "{found:?}");
    let missed = browser.open(&world.url("/console/agents?name=build%3Cb%3E"));
    assert!(missed.body.contains("No agent is called") && !missed.body.contains("build<b>"), "{missed:?}");
    let page = browser.open(&world.url(&format!("/console/agents/{id}")));
    assert!(page.body.contains("search") && page.body.contains("https://a"), "{page:?}");
    let token = page.hidden("token");
    let disable = [("token", token.as_str()), ("word", "disable"), ("reason", "left <b>us</b>")];
    let forged = browser.submit_from(&[("Sec-Fetch-Site", "cross-site")], &page.url, &disable);
    assert_eq!(forged.status, 403);
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Active);
    let done = browser.submit(&page.url, &disable);
    assert!(done.leads_to().unwrap().contains("?since="), "{done:?}");
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Suspended);
    let heard = browser.follow(done);
    assert!(
        heard.body.contains("No resource server has joined")
            && !heard.body.contains("Every resource server")
            && !heard.body.contains("<b>us"),
        "{heard:?}"
    );
    let again = [("token", token.as_str()), ("word", "enable")];
    assert_eq!(browser.submit(&page.url, &again).status, 303);
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Active);
}

#[test]
fn who_may_not_operate_sees_nothing_and_ends_nothing() {
    let world = World::new();
    let _running = world.agent();
    drop(approved(&world));
    let id = world.agent_row().unwrap().id;
    let path = format!("/console/agents/{id}");
    assert_eq!(
        Browser::default().send("GET", &world.url("/console"), &[], "").status,
        303,
        "a stranger logs in first"
    );
    let mut carl = world.logged_in("carl");
    for path in [
        "/console",
        "/console/policies",
        "/console/keys",
        "/console/agents",
        "/console/sessions",
        "/console/servers",
        "/console/audit",
        &path,
    ] {
        let page = carl.open(&world.url(path));
        assert_eq!(page.status, 403, "{page:?}");
        assert!(page.body.contains("No policy permits it") && !page.body.contains("builder"), "{page:?}");
    }
    let token = carl.open(&world.url("/activate")).hidden("token");
    let refused = carl.submit(&world.url(&path), &[("token", &token), ("word", "disable")]);
    assert_eq!(refused.status, 403);
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Active);
    // Bert may look, and no more.
    let mut bert = world.logged_in("bert");
    let page = bert.open(&world.url(&path));
    assert!(page.status == 200 && !page.body.contains("value=\"disable\""), "{page:?}");
    let refused = bert.submit(&world.url(&path), &[("token", &page.hidden("token")), ("word", "disable")]);
    assert_eq!(refused.status, 403);
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Active);
}

/// The last line of the audit log that is an event of this name.
pub(super) fn audited(world: &World, event: &str) -> serde_json::Value {
    let is_it = |line: &serde_json::Value| line["event"] == event;
    let lines = || fs::read_to_string(world.home.path().join(LOG)).unwrap();
    let lines = || lines().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>();
    wait_until("a line of the audit log", || lines().iter().any(is_it));
    lines().into_iter().rfind(is_it).unwrap()
}

#[test]
fn a_session_is_ended_in_the_console_and_its_resource_server_confirms() {
    let world = World::new();
    let rs = world.server("https://a");
    let _running = world.agent();
    let mut browser = approved(&world);
    let agent = world.agent_row().unwrap();
    let session = world.authority.directory().sessions(&agent.id).unwrap().remove(0);
    let path = format!("/console/sessions/{}", session.id);
    let list = browser.open(&world.url("/console/sessions"));
    assert!(list.body.contains(&path) && list.body.contains("builder"), "{list:?}");
    let page = browser.open(&world.url(&path));
    assert!(
        page.body.contains("docs/**") && page.body.contains("a token lasts 4 s"),
        "what it grants: {page:?}"
    );
    let token = page.hidden("token");
    let end = [("token", token.as_str()), ("word", "end"), ("reason", "left the bench")];
    let is_live = || world.authority.directory().session(session.id).unwrap().unwrap().ended.is_none();
    assert_eq!(browser.submit_from(&[("Sec-Fetch-Site", "cross-site")], &page.url, &end).status, 403);
    assert_eq!(browser.submit(&page.url, &[("token", "AAAA"), ("word", "end")]).status, 403);
    assert_eq!(browser.submit(&page.url, &[("token", &token), ("word", "disable")]).status, 403);
    let mut bert = world.logged_in("bert");
    let seen = bert.open(&world.url(&path));
    assert!(seen.status == 200 && !seen.body.contains("End this session"), "he may look: {seen:?}");
    let refused = bert.submit(&page.url, &[("token", &seen.hidden("token")), ("word", "end")]);
    assert!(refused.status == 403 && refused.body.contains("agent.disable"), "{refused:?}");
    assert!(is_live(), "nothing of this ended it");

    let done = browser.submit(&page.url, &end);
    assert!(!is_live());
    let heard = browser.follow(done);
    assert!(heard.body.contains("Every resource server has heard of it"), "{heard:?}\n{}", rs.log());
    assert!(heard.body.contains("left the bench") && !heard.body.contains("End this session"), "{heard:?}");
    let line = audited(&world, "disable");
    assert_eq!(line["reason"], "left the bench");
    assert!(line["client"].as_str().unwrap().ends_with(":anna"), "{line}");
    let again = browser.submit(&page.url, &end);
    assert!(again.status == 404 && again.body.contains("live session"), "said as what it is: {again:?}");
    assert_eq!(world.agent_row().unwrap().status, AgentStatus::Active, "the agent may go on");
}

#[test]
fn a_copy_of_a_resource_server_is_shown_as_it_stands_and_removed() {
    let world = World::new();
    let mut rs = world.server("https://a");
    let mut browser = world.logged_in("anna");
    let copy = || world.authority.directory().replicas().unwrap().pop();
    let path = format!("/console/servers/{}", copy().unwrap().id);
    let list = browser.open(&world.url("/console/servers"));
    assert!(list.body.contains(&path) && list.body.contains("<td>yes</td><td>level</td>"), "{list:?}");
    let page = browser.open(&world.url(&path));
    assert!(page.body.contains("it is level") && page.body.contains("accepts nothing in"), "{page:?}");
    rs.kill();
    let overview = || browser.clone().open(&world.url("/console")).body;
    wait_until("that it is missed", || overview().contains("Resource servers that hear nothing"));
    let remove = [("token", page.hidden("token")), ("word", "remove".to_owned())];
    let remove = remove.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut bert = world.logged_in("bert");
    let seen = bert.open(&world.url(&path));
    let refused = bert.submit(&page.url, &[("token", &seen.hidden("token")), ("word", "remove")]);
    assert!(refused.status == 403 && !seen.body.contains("Remove this copy"), "{refused:?}");
    assert!(copy().is_some());
    assert_eq!(browser.submit(&page.url, &remove).status, 303);
    assert!(copy().is_none());
    assert!(audited(&world, "disable")["client"].as_str().unwrap().ends_with(":anna"));
    let gone = browser.open(&world.url(&path));
    assert!(gone.status == 404 && gone.body.contains("copy of a resource server"), "{gone:?}");
}

#[test]
fn hundreds_of_agents_and_sessions_come_in_pages_and_their_names_are_text() {
    let world = World::new();
    let agents: Vec<_> =
        (1..=250).map(|number| crowd::agent(&world, number, &format!("agent-{number}"))).collect();
    for (number, agent) in (1_000..).zip(&agents) {
        crowd::session(&world, number, agent);
    }
    let mut browser = world.logged_in("anna");
    for (list, link) in
        [("/console/agents", "/console/agents/agt_"), ("/console/sessions", "/console/sessions/0")]
    {
        let (mut path, mut sizes) = (list.to_owned(), Vec::new());
        loop {
            let page = browser.open(&world.url(&path));
            assert_eq!(page.status, 200, "{page:?}");
            assert!(page.body.len() < 200_000, "{list}: {} bytes", page.body.len());
            assert!(!page.body.contains("<script") && !page.body.contains('\u{202e}'), "{page:?}");
            sizes.push(page.body.matches(&format!("<th scope=\"row\"><a href=\"{link}")).count());
            let Some((_, next)) = page.body.split_once(&format!("href=\"{list}?after=")) else { break };
            path = format!("{list}?after={}", next.split_once('"').unwrap().0);
        }
        assert_eq!(sizes, [100, 100, 50], "{list}");
    }
    let nonsense = browser.open(&world.url("/console/sessions?after=x.y&after=z&page=-1"));
    assert_eq!(nonsense.status, 200, "it begins at the beginning: {nonsense:?}");
}

#[test]
fn the_audit_log_is_shown_in_pages_by_what_it_is_about_and_whether_it_is_as_it_was_written() {
    let world = World::new();
    let _running = world.agent();
    let mut browser = approved(&world);
    let id = world.agent_row().unwrap().id;
    let mut all = browser.open(&world.url("/console/audit"));
    // A session is told of in the log once it is there.
    wait_until("the session is in the log", || {
        all = browser.open(&world.url("/console/audit"));
        all.body.contains("session open")
    });
    assert!(
        all.body.contains("session open") && all.body.contains("each follows from the one before"),
        "{all:?}"
    );
    let sessions = browser.open(&world.url(&format!("/console/audit?topic=sessions&agent={id}")));
    assert!(
        sessions.body.contains("session open") && !sessions.body.contains("<td>approve"),
        "one kind alone: {sessions:?}"
    );
    let nobody = browser.open(&world.url("/console/audit?agent=%3Cb%3Enobody"));
    assert!(nobody.body.contains("No such lines") && !nobody.body.contains("<b>nobody"), "{nobody:?}");
    let history = browser.open(&world.url(&format!("/console/agents/{id}")));
    for part in ["<td>register", "<td>approve", "<td>session open"] {
        assert!(history.body.contains(part), "{part}: {history:?}");
    }
    for wrong in ["1.1", "x", "1.99999999"] {
        assert_eq!(
            browser.open(&world.url(&format!("/console/audit?before={wrong}"))).status,
            400,
            "{wrong}"
        );
    }
    let check = [("token", all.hidden("token"))];
    let check = check.each_ref().map(|(name, value)| (*name, value.as_str()));
    let url = world.url("/console/audit");
    let whole = browser.submit(&url, &check);
    assert!(whole.body.contains("The log is as it was written"), "{whole:?}");
    assert_eq!(browser.submit(&url, &[("token", "A")]).status, 403, "only by a form of the page");

    let log = world.home.path().join(LOG);
    let tampered = fs::read_to_string(&log).unwrap().replacen("\"approve\"", "\"apprive\"", 1);
    fs::write(&log, tampered).unwrap();
    let page = browser.open(&url);
    assert!(page.body.contains("The log is not as it was written"), "{page:?}");
    let whole = browser.submit(&url, &check);
    assert!(whole.body.contains("was tampered with") && whole.body.contains("changed"), "{whole:?}");
}
