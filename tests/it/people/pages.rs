//! Attack 7: forged requests, frames, fixed sessions, hostile names, addresses that lead away, logins that are too old.

use serde_json::json;

use super::browser::{Browser, Page};
use super::{World, crowd};

const SESSION: &str = "__Host-obol";

/// A page that waits for a yes to a registration, in a browser that is logged in.
fn waiting(world: &World) -> (Browser, Page) {
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let mut browser = Browser::default();
    let page = browser.open(asked["page"].as_str().unwrap());
    assert_eq!(page.status, 200, "{page:?}");
    (browser, page)
}

#[test]
fn a_form_that_no_page_of_ours_sent_changes_nothing() {
    let world = World::new();
    let _running = world.agent();
    let (mut browser, page) = waiting(&world);
    let token = page.hidden("token");
    let deny = [("token", token.as_str()), ("word", "deny")];
    let still_waits = || world.authority.directory().waiting(obol_world::now(), None).unwrap().len() == 1;
    for headers in [
        &[][..],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", "null")],
        &[("Origin", "https://evil.example")],
    ] {
        assert_eq!(browser.submit_from(headers, &page.url, &deny).status, 403, "{headers:?}");
    }
    for fields in [
        &[("word", "deny")][..],
        &[("token", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ("word", "deny")],
        &[("token", ""), ("word", "deny")],
    ] {
        assert_eq!(browser.submit(&page.url, fields).status, 403, "{fields:?}");
    }
    let theirs = world.logged_in("bert").open(&world.url("/activate")).hidden("token");
    assert_eq!(
        browser.submit(&page.url, &[("token", &theirs), ("word", "deny")]).status,
        403,
        "another's token"
    );
    let by_address = format!("{}?word=deny&token={token}", page.url);
    assert_eq!(browser.open(&by_address).status, 200, "an address decides nothing");
    assert!(still_waits());
    assert_eq!(browser.submit(&page.url, &deny).status, 200, "control");
    assert!(!still_waits());
}

#[test]
fn no_page_is_framed_runs_anything_or_leads_away() {
    let world = World::new();
    let _running = world.agent();
    let (mut browser, registration) = waiting(&world);
    let mut pages = vec![registration];
    for path in ["/activate", "/activate/reg_none", "/callback"] {
        pages.push(browser.open(&world.url(path)));
    }
    for page in &pages {
        let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("{page:?}"));
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{part}: {policy}");
        }
        assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let text = page.body.to_lowercase();
        assert!(
            !text.contains("<script") && !text.contains("javascript:") && !text.contains(" style="),
            "{page:?}"
        );
        let is_handler = |word: &str| word.starts_with("on") && word.contains("=\"");
        assert!(!text.split_whitespace().any(is_handler), "{page:?}");
    }
    let mut away = Browser::default();
    for to in ["https://evil.example", "//evil.example", "/%5Cevil.example", "/%2Fevil.example"] {
        let page = away.open(&world.url(&format!("/login?to={to}")));
        assert!(page.url.starts_with(&world.origin), "{to}: {page:?}");
    }
}

#[test]
fn what_an_agent_or_a_provider_says_is_text_and_nothing_else() {
    let world = World::new();
    let _running = world.agent();
    let name = "<script>alert(1)</script>\"'&";
    let asked = world.obol(&["register", "--name", name, "--class", "<img/src=x>", "--role", "<b>dev</b>"]);
    let mut browser = Browser::default();
    let page = browser.open(asked["page"].as_str().unwrap());
    assert_eq!(page.status, 200, "{page:?}");
    for raw in ["<script>alert", "<img/src", "<b>dev", "<b>of</b>"] {
        assert!(!page.body.contains(raw), "{raw}: {page:?}");
    }
    assert!(
        page.body.contains("&#60;script&#62;alert(1)") || page.body.contains("&lt;script&gt;alert(1)"),
        "{page:?}"
    );
}

/// What stands on the page where a human says yes: the agent's machine and its user, as it says; and what a provider says went wrong.
#[test]
fn a_machine_that_calls_itself_something_hostile_and_an_error_of_a_provider_are_text() {
    let world = World::new();
    crowd::agent(&world, 1, &crowd::hostile(1));
    let id = crowd::again(&world, 1, &crowd::hostile(1));
    let mut browser = world.logged_in("anna");
    let page = browser.open(&world.url(&format!("/activate/{id}")));
    assert_eq!(page.status, 200, "{page:?}");
    let is_text = |page: &Page| {
        for raw in ["<script", "\u{202e}", "\u{200b}"] {
            assert!(!page.body.contains(raw), "{raw:?}: {page:?}");
        }
        assert!(page.body.contains("script"), "control: it is there, as text: {page:?}");
    };
    is_text(&page);
    let callback = world.url("/callback");
    let mut other = Browser::default();
    let back = other.open_until(&world.url("/login"), &callback);
    let kept: Vec<&str> =
        back.split_once('?').unwrap().1.split('&').filter(|part| !part.starts_with("code=")).collect();
    let said =
        format!("{callback}?{}&error=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE%E2%80%8B", kept.join("&"));
    let page = other.send("GET", &said, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!(page.status, 403, "{page:?}");
    is_text(&page);
}

#[test]
fn a_session_that_somebody_planted_is_not_the_one_after_the_login() {
    let world = World::new();
    let mut attacker = world.logged_in("bert");
    let planted = attacker.cookie(&world.origin, SESSION).unwrap().clone();
    let mut victim = Browser::default();
    victim.set_cookie(&world.origin, SESSION, &planted);
    world.idp.control(json!({ "account": "anna" }));
    victim.open(&world.url("/login"));
    assert_ne!(victim.cookie(&world.origin, SESSION), Some(&planted));
    let page = attacker.send("GET", &world.url("/activate"), &[], "");
    assert_eq!(page.status, 303, "what was planted is nobody's any more: {page:?}");
    let mut invented = Browser::default();
    invented.set_cookie(&world.origin, SESSION, &"A".repeat(43));
    assert_eq!(
        invented.send("GET", &world.url("/activate"), &[], "").status,
        303,
        "nor is one that was made up"
    );
}

#[test]
fn nothing_is_decided_by_a_login_that_is_older_than_five_minutes() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    // The provider's clock agrees to the minute, so that a login just too old is taken as a login, and not for a decision.
    world.idp.control(json!({ "ageSecs": 320 }));
    let mut browser = Browser::default();
    let back = browser.open_until(asked["page"].as_str().unwrap(), &world.url("/callback"));
    let login = browser.send("GET", &back, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!(login.status, 303, "{login:?}");
    let page = browser.send("GET", &login.leads_to().unwrap(), &[], "");
    assert!(page.leads_to().unwrap().contains("/login?to=/activate/reg_"), "to a new login first: {page:?}");
    let submitted = browser.submit(asked["page"].as_str().unwrap(), &[("word", "approve"), ("role", "dev")]);
    assert!(submitted.leads_to().unwrap().contains("/login?"), "{submitted:?}");
    world.idp.control(json!({ "ageSecs": 0 }));
    assert_eq!(Browser::default().open(asked["page"].as_str().unwrap()).status, 200, "control");
}
