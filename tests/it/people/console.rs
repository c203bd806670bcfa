//! The console: who may look, who may end an agent, and who has heard of it.

use obol_authority::directory::AgentStatus;
use obol_world::home::wait_until;

use super::World;
use super::browser::Browser;

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
    let list = browser.open(&world.url("/console"));
    assert!(
        list.body.contains(&format!("/console/agents/{id}")) && list.body.contains("Nobody waits"),
        "{list:?}"
    );
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
    for path in ["/console", path.as_str()] {
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
