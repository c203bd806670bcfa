//! Several providers at one service: a human chooses, comes back to the address that is the provider's own, and is who they are there and
//! nobody else's namesake.

use obol_authority::directory::{CallStanding, Human};
use obol_authority::identity::{Provider, Providers};
use obol_authority::{Outbound, Settings};
use obol_world::home::wait_until;
use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::chromium::Chromium;
use super::{Idp, World};

/// Two providers that know an `anna` each: that of the world, `first`, and another, `second`.
pub(super) struct Two {
    pub(super) world: World,
    pub(super) second: Idp,
}

/// The address that browsers come back to from a provider.
pub(super) fn callback(origin: &str, name: &str) -> String {
    format!("{origin}/callback/{name}")
}

impl Two {
    pub(super) fn start() -> Self {
        Self::registered(|origin| (vec![callback(origin, "first")], vec![callback(origin, "second")]))
    }

    /// The humans of the second are of another organisation than the service's own, of which those of the first are.
    pub(super) fn of_two_organisations() -> Self {
        let addresses = |origin: &str| (vec![callback(origin, "first")], vec![callback(origin, "second")]);
        Self::made(addresses, |settings, [first, second]| {
            let own = settings.own_organisation().to_owned();
            settings.organisation(first, &own).unwrap().organisation(second, "acme").unwrap()
        })
    }

    /// With the addresses that the one and the other send browsers back to.
    pub(super) fn registered(addresses: impl FnOnce(&str) -> (Vec<String>, Vec<String>)) -> Self {
        Self::made(addresses, |settings, _| settings)
    }

    fn made(
        addresses: impl FnOnce(&str) -> (Vec<String>, Vec<String>),
        organise: impl FnOnce(Settings, [&str; 2]) -> Settings,
    ) -> Self {
        let mut second = None;
        let world = World::of(|origin, settings| {
            let (of_first, of_second) = addresses(origin);
            let start = |addresses: &[String]| {
                Idp::start_for(&addresses.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let (first, other) = (start(&of_first), start(&of_second));
            let provider = |idp: &Idp, name: &str, title: &str| {
                let settings = idp.settings().named(name.to_owned()).title(title.to_owned());
                let settings = settings.approves_calls(true);
                Provider::new(settings, origin, Outbound::new(None).unwrap()).unwrap()
            };
            let all = vec![provider(&first, "first", "First & Co"), provider(&other, "second", "Second")];
            let settings = organise(settings, [&first.issuer, &other.issuer]);
            second = Some(other);
            (first, Providers::new(all).unwrap(), settings)
        });
        Self { world, second: second.unwrap() }
    }

    pub(super) fn browser(&self, provider: &str) -> Browser {
        let mut browser = Browser::default();
        assert_eq!(self.log_in(&mut browser, provider).status, 200);
        browser
    }

    /// An agent that anna of this provider approved; and her browser.
    pub(super) fn approved_by(&self, provider: &str) -> Browser {
        let asked = self.world.obol(&["register", "--name", "builder", "--role", "dev"]);
        let mut owner = self.browser(provider);
        let page = owner.open(asked["page"].as_str().unwrap());
        let said = super::registers::approve(&mut owner, &page);
        assert_eq!(owner.follow(said).status, 200);
        owner
    }

    /// Logs in with the provider of this name.
    pub(super) fn log_in(&self, browser: &mut Browser, name: &str) -> Page {
        browser.open(&self.world.url(&format!("/login?provider={name}&to=/activate")))
    }

    pub(super) fn knows(&self, issuer: &str, subject: &str) -> bool {
        let human = Human { issuer: issuer.to_owned(), subject: subject.to_owned() };
        self.world.authority.directory().person(&human).unwrap().is_some()
    }
}

#[test]
fn a_human_chooses_a_provider_and_is_who_they_are_there() {
    let two = Two::start();
    let mut browser = Browser::default();
    let page = browser.open(&two.world.url("/activate"));
    assert!(page.url.contains("/login?to=/activate"), "{page:?}");
    for shown in [
        "First &#38; Co",
        "/login?provider=first&amp;to=/activate",
        "/login?provider=second&amp;to=/activate",
    ] {
        assert!(page.body.contains(shown), "{shown}: {page:?}");
    }
    for issuer in [&two.world.idp.issuer, &two.second.issuer] {
        assert!(page.body.contains(issuer.as_str()), "{issuer}: {page:?}");
    }
    assert!(!page.body.contains("<form") && !page.body.contains("<script"), "{page:?}");
    let landed = two.log_in(&mut browser, "second");
    assert_eq!(landed.status, 200, "{landed:?}");
    assert!(two.knows(&two.second.issuer, "anna") && !two.knows(&two.world.idp.issuer, "anna"));

    // Who is logged in and has to log in anew is led to where they came from, and not asked again.
    let again = browser.send("GET", &two.world.url("/login?to=/activate"), &[], "");
    assert!(again.leads_to().unwrap().starts_with(&two.second.issuer), "{again:?}");
    // Whoever is somebody else says so, and chooses.
    let form = browser.open(&two.world.url("/activate"));
    let out = browser.submit(&two.world.url("/logout"), &[("token", &form.hidden("token"))]);
    assert_eq!(out.status, 200, "{out:?}");
    let chooses = browser.open(&two.world.url("/login?to=/activate"));
    assert!(chooses.body.contains("Choose your identity provider"), "{chooses:?}");
    assert_eq!(two.log_in(&mut browser, "first").status, 200);
    assert!(two.knows(&two.world.idp.issuer, "anna"));
    let away = Browser::default().open(&two.world.url("/login?to=//evil.example"));
    assert!(!away.body.contains("evil") && away.body.contains("to=/activate"), "{away:?}");
    // What is none of them is no address to be led to.
    for name in ["third", "", "https://evil.example", "first%00"] {
        let page = two.log_in(&mut Browser::default(), name);
        assert!(page.body.contains("Choose your identity provider"), "{name}: {page:?}");
    }
}

/// Both providers say `anna`; one of them gives her other groups.
#[test]
fn who_is_called_the_same_at_another_provider_is_somebody_else() {
    let two = Two::start();
    two.second.control(json!({ "groups": { "anna": ["dev"] } }));
    let _running = two.world.agent();
    let (mut mine, mut theirs) = (Browser::default(), Browser::default());
    assert_eq!(two.log_in(&mut mine, "first").status, 200);
    assert_eq!(two.log_in(&mut theirs, "second").status, 200);
    let roles = |issuer: &str| {
        let human = Human { issuer: issuer.to_owned(), subject: "anna".to_owned() };
        let known = two.world.authority.directory().person(&human).unwrap().unwrap();
        known.roles.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(roles(&two.world.idp.issuer), ["dev", "ops"]);
    assert_eq!(roles(&two.second.issuer), ["dev"], "a login of hers there changes nothing here");
    // She approves an agent here; her namesake answers for nothing of it.
    let asked = two.world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let page = mine.open(asked["page"].as_str().unwrap());
    let said = super::registers::approve(&mut mine, &page);
    assert_eq!(mine.follow(said).status, 200);
    let agent = two.world.agent_row().unwrap();
    assert_eq!(agent.owner, Human { issuer: two.world.idp.issuer.clone(), subject: "anna".into() });
}

/// Both ask humans about calls themselves (CIBA). Asked is the one that knows who answers for the agent.
#[test]
fn the_provider_that_knows_an_agents_owner_is_the_one_that_asks_them() {
    let two = Two::start();
    let _running = two.world.agent();
    let _owner = two.approved_by("second");
    // Her namesake at the first would say yes at once.
    two.world.idp.control(json!({ "word": "yes" }));
    let call = super::calls::ask(&two.world);
    let questions = |idp: &Idp| {
        let page = Browser::default().send("GET", &format!("{}/asked", idp.issuer), &[], "");
        serde_json::from_str::<Vec<Value>>(&page.body).unwrap()
    };
    wait_until("she is asked", || questions(&two.second).len() == 1);
    assert_eq!(questions(&two.second)[0]["who"], "anna");
    assert!(questions(&two.world.idp).is_empty(), "nobody else is");
    let standing = || super::calls::standing(&two.world, &call);
    assert_eq!(standing(), CallStanding::Waiting);
    two.second.control(json!({ "word": "yes" }));
    wait_until("her yes is taken", || matches!(standing(), CallStanding::Approved { .. }));
}

#[test]
fn the_page_to_choose_on_is_for_everybody() {
    let two = Two::start();
    let mut chromium = Chromium::start();
    chromium.look(&two.world.url("/login?to=/console"), "login", 200);
    let console = chromium.press("a[href*='provider=second']", "");
    assert!(console.contains("Logged in as") && two.knows(&two.second.issuer, "anna"), "{console}");
}
