//! From a link or a code to an agent, with a real provider, browser and authenticator; and what a link that somebody mailed is worth.

use obol_authority::directory::{EndScope, Human, OwnerEnd};
use obol_world::home::wait_until;
use serde_json::json;

use super::World;
use super::browser::{Browser, Page};

/// Approves what this page shows, with the role `dev`.
pub(super) fn approve(browser: &mut Browser, page: &Page) -> Page {
    let token = page.hidden("token");
    let fields =
        [("token", token.as_str()), ("chosen", "yes"), ("role", "dev"), ("days", "7"), ("word", "approve")];
    browser.submit(&page.url, &fields)
}

#[test]
fn a_browser_on_the_agents_machine_makes_it_active_and_it_gets_a_session() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    assert_eq!((asked["state"].as_str(), asked["returnCode"].as_bool()), (Some("waiting"), None), "{asked}");
    let mut browser = Browser::default();
    let page = browser.open(asked["page"].as_str().unwrap());
    assert_eq!(page.status, 200, "{page:?}");
    for shown in
        [asked["words"].as_str().unwrap(), "builder", "docs/**", "the first time it is seen", "anna at"]
    {
        assert!(page.body.contains(shown), "{shown}: {page:?}");
    }
    assert!(page.body.contains("value=\"dev\" checked"), "what it asks for and she has: {page:?}");
    assert!(page.body.contains("value=\"ops\">"), "what she has, not ticked: {page:?}");
    let approved = approve(&mut browser, &page);
    assert!(world.agent_row().is_none(), "not before the browser has brought it");
    let landed = browser.follow(approved);
    assert_eq!(landed.status, 200, "{landed:?}");
    assert!(
        landed.url.starts_with("http://127.0.0.1:") && landed.body.contains("is registered"),
        "{landed:?}"
    );
    let agent = world.agent_row().unwrap();
    assert_eq!((agent.flow.as_str(), agent.roles.as_slice()), ("loopback", &["dev".to_owned()][..]));
    assert_eq!(agent.owner, Human { issuer: world.idp.issuer.clone(), subject: "anna".into() });
    assert_eq!(world.obol(&["register"])["state"], "active");
    wait_until("a session", || !world.authority.directory().sessions(&agent.id).unwrap().is_empty());

    // Whoever answers for it leaves: the agent is suspended, and its sessions end.
    let scope = EndScope::Owner(agent.owner.clone(), OwnerEnd::Suspend);
    let by = Human::local("test");
    world.authority.end(&scope, "left", &by, obol_authority::Now { ms: obol_world::now() * 1_000 }).unwrap();
    assert!(world.authority.directory().sessions(&agent.id).unwrap().is_empty());
    wait_until("the agent to hear of it", || world.obol(&["auth", "status"])["state"] == "stopped");
}

#[test]
fn by_code_the_human_types_three_words_into_the_agents_terminal() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev", "--remote"]);
    assert_eq!(
        (asked["page"].as_str(), asked["returnCode"].as_bool()),
        (Some(&*world.url("/activate")), Some(true))
    );
    let mut browser = world.logged_in("anna");
    let form = browser.open(&world.url("/activate"));
    let token = form.hidden("token");
    let page = browser.submit(&form.url, &[("token", &token), ("code", asked["code"].as_str().unwrap())]);
    let page = browser.follow(page);
    assert!(page.body.contains(asked["words"].as_str().unwrap()), "{page:?}");
    let shown = approve(&mut browser, &page);
    assert_eq!(shown.status, 200, "{shown:?}");
    let words = shown.between("<p class=\"words\">", "</p>");
    assert!(world.agent_row().is_none(), "not before the words were typed");
    for left in ["2 more", "1 more"] {
        let output = obol_world::home::command(world.home.path())
            .args(["register", "--return-code", "babad babad babad"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(left), "{output:?}");
    }
    let done = world.obol(&["register", "--return-code", &words.replace('-', " ")]);
    assert_eq!(done["state"], "active", "{done}");
    assert_eq!(world.agent_row().unwrap().flow, "code");
}

/// Attack 5: somebody mails a link, and the victim approves.
#[test]
fn a_victim_who_approves_from_a_mailed_link_activates_nothing() {
    let world = World::new();
    // The attacker's machine.
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    // The victim's: the same link, but whatever is said to its loopback does not reach the attacker.
    let mut victim = Browser::default();
    let page = victim.open(asked["page"].as_str().unwrap());
    let approved = approve(&mut victim, &page);
    let lands = approved.leads_to().unwrap();
    assert!(lands.starts_with("http://127.0.0.1:") && lands.contains("/registered?reg=reg_"), "{lands}");
    assert_eq!(world.obol(&["register"])["state"], "waiting");
    assert!(world.agent_row().is_none());
    // Nor can the attacker show the service anything that it takes.
    let guess = world.obol_failing(&["register", "--return-code", "babad babad babad"]);
    assert!(guess.contains("return code"), "{guess}");
    assert!(world.agent_row().is_none());
    // Control: had it come back to the attacker's machine, the agent would be active.
    assert_eq!(victim.follow(approved).status, 200);
    assert!(world.agent_row().is_some());
}

/// Attack 5, by code: a link shows nothing without the code; guessing finds none, and ends.
#[test]
fn guessed_codes_find_nothing_and_few_may_be_guessed() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev", "--remote"]);
    let waiting = world.authority.directory().waiting(obol_world::now(), None).unwrap();
    let mut attacker = world.logged_in("bert");
    let named = attacker.open(&world.url(&format!("/activate/{}", waiting[0].id)));
    assert_eq!(named.status, 404, "who has not seen the code sees nothing: {named:?}");
    let form = attacker.open(&world.url("/activate"));
    let token = form.hidden("token");
    let mut guess = |code: &str| attacker.submit(&form.url, &[("token", &token), ("code", code)]).status;
    for _ in 0..5 {
        assert_eq!(guess("BCDF-GHJK"), 404);
    }
    let right = asked["code"].as_str().unwrap();
    assert_eq!(guess(right), 429, "not even the right one, any more");
    // Control: with a login of their own somebody who has the code gets on.
    let mut human = world.logged_in("anna");
    let form = human.open(&world.url("/activate"));
    let page = human.submit(&form.url, &[("token", &form.hidden("token")), ("code", right)]);
    assert_eq!(human.follow(page).status, 200);
}

/// Attack 5, by a crowd: fifty guesses a minute by everybody together, however many log in to guess.
#[test]
fn a_crowd_guesses_fifty_codes_a_minute_and_no_more() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev", "--remote"]);
    let right = asked["code"].as_str().unwrap();
    let page = world.url("/activate");
    // More than needed, where a minute ends in between.
    let mut crowd: Vec<Browser> = (0..24).map(|_| world.logged_in("bert")).collect();
    let mut human = world.logged_in("anna");
    let own = human.open(&page).hidden("token");
    let guess = |browser: &mut Browser, token: &str, code: &str| {
        browser.submit(&page, &[("token", token), ("code", code)]).status
    };
    wait_until("a minute that is long enough", || obol_world::now() % 60 < 40);
    let minute = obol_world::now() / 60;
    let mut guesses = 0;
    while let Some(mut browser) = crowd.pop() {
        let token = browser.open(&page).hidden("token");
        let answers: Vec<u16> = (0..5).map(|_| guess(&mut browser, &token, "BCDF-GHJK")).collect();
        guesses += answers.iter().filter(|status| **status == 404).count();
        if answers.contains(&429) {
            break;
        }
    }
    assert_eq!((guesses, obol_world::now() / 60), (50, minute), "within one minute");
    assert_eq!(guess(&mut human, &own, right), 429, "nobody, not even with the right one");
    assert!(world.authority.directory().waiting(obol_world::now(), None).unwrap().len() == 1);
    // Control: in the next minute whoever has the code gets on.
    wait_until("the next minute", || obol_world::now() / 60 > minute);
    assert_eq!(guess(&mut human, &own, right), 303);
}

#[test]
fn policy_forbids_a_typed_code_for_privileged_agents() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "privileged", "--remote"]);
    let mut browser = world.logged_in("dora");
    let form = browser.open(&world.url("/activate"));
    let page = browser
        .submit(&form.url, &[("token", &form.hidden("token")), ("code", asked["code"].as_str().unwrap())]);
    let page = browser.follow(page);
    assert!(page.body.contains("value=\"privileged\">"), "never ticked by itself: {page:?}");
    let token = page.hidden("token");
    let said = |role: &'static str| {
        [
            ("token", token.clone()),
            ("chosen", "yes".into()),
            ("role", role.into()),
            ("days", "7".into()),
            ("word", "approve".into()),
        ]
    };
    let privileged = said("privileged");
    let fields: Vec<_> = privileged.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.submit(&page.url, &fields).status, 403);
    let not_hers = said("root");
    let fields: Vec<_> = not_hers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let refused = browser.submit(&page.url, &fields);
    assert_eq!(refused.status, 403, "nobody gives a role that they do not have: {refused:?}");
    let dev = said("dev");
    let fields: Vec<_> = dev.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.submit(&page.url, &fields).status, 200, "control");
}

#[test]
fn who_did_not_start_it_says_so_and_the_source_is_blocked() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let mut browser = Browser::default();
    let page = browser.open(asked["page"].as_str().unwrap());
    let fields = [("token", page.hidden("token")), ("word", "foreign".to_owned())];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let said = browser.submit(&page.url, &fields);
    assert!(said.body.contains("Denied and reported"), "{said:?}");
    wait_until("the agent to hear of it", || {
        let told = world.obol(&["auth", "status"]);
        told["registration"]["state"] == json!("denied")
    });
    assert_eq!(browser.submit(&page.url, &fields).status, 404, "it is over");
}
