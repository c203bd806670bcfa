//! Attack 6, mix-up: two providers of which one is the attacker's. A code of the honest one must never reach the other, whatever that
//! says of itself, and wherever the browser is made to come back to. What the attacker would get is shown beside each, with the
//! defence taken out.

use obol_authority::Outbound;
use obol_authority::id::SystemRandom;
use obol_authority::identity::{Callback, Login, LoginError, Provider, ProviderSettings};
use obol_world::now;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Idp;
use super::browser::Browser;
use super::several::{Two, callback};

const SESSION: &str = "__Host-obol";

/// What an address says under this name.
fn part(url: &str, name: &str) -> Option<String> {
    let rest = url.split_once('?')?.1;
    let pair = rest.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    Some(pair.to_owned())
}

/// The attacker is `first`, the honest provider `second`.
struct MixUp {
    two: Two,
}

impl MixUp {
    /// The attacker has the login begin at the honest provider: it says that its own page for it is there.
    fn start(honest_sends_to: impl FnOnce(&str) -> Vec<String>) -> Self {
        let two = Two::registered(|origin| (vec![callback(origin, "first")], honest_sends_to(origin)));
        let there = format!("{}/auth", two.second.issuer);
        two.world.idp.control(json!({ "metadata": {
            "authorization_endpoint": there,
            "authorization_response_iss_parameter_supported": false,
        } }));
        Self { two }
    }

    fn attacker(&self) -> &Idp {
        &self.two.world.idp
    }

    fn honest(&self) -> &Idp {
        &self.two.second
    }

    fn url(&self, path: &str) -> String {
        self.two.world.url(path)
    }

    fn nobody_is_in(&self, browser: &Browser, why: &str) {
        assert!(browser.cookie(&self.two.world.origin, SESSION).is_none(), "{why}");
    }
}

/// The attacker's page leads to the honest provider's, which sends nobody to an address that is not its own.
#[test]
fn the_honest_provider_sends_no_code_to_the_address_of_another() {
    let mix = MixUp::start(|origin| vec![callback(origin, "second")]);
    let mut victim = Browser::default();
    let begun = victim.send("GET", &mix.url("/login?provider=first"), &[], "");
    let there = begun.leads_to().unwrap();
    assert!(there.starts_with(&mix.honest().issuer) && there.contains("callback%2Ffirst"), "{there}");
    let page = victim.open(&there);
    assert_eq!(page.status, 400, "{page:?}");
    assert!(page.leads_to().is_none() && mix.attacker().codes().is_empty());
    mix.nobody_is_in(&victim, "no code");
}

/// Where the honest provider was told, in error, that the attacker's address is the service's as well, its name in the answer (RFC 9207)
/// still gives it away.
#[test]
fn a_code_that_comes_to_the_attackers_address_goes_nowhere() {
    let sloppy = |origin: &str| vec![callback(origin, "first"), callback(origin, "second")];
    let mix = MixUp::start(sloppy);
    let mut victim = Browser::default();
    let back = victim.open_until(&mix.url("/login?provider=first"), &mix.url("/callback/first"));
    assert!(part(&back, "code").is_some() && part(&back, "iss").is_some(), "{back}");
    let page = victim.send("GET", &back, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!(page.status, 403, "{page:?}");
    mix.nobody_is_in(&victim, "the issuer is another");
    assert!(mix.attacker().codes().is_empty(), "the attacker's token endpoint got no code");
    assert!(mix.honest().codes().is_empty(), "nor did anybody use it");

    // Control: with both defences out, an honest provider that takes the attacker's address and does not say who it is, the code is theirs.
    mix.honest().control(json!({ "omitIss": true }));
    let mut victim = Browser::default();
    let back = victim.open_until(&mix.url("/login?provider=first"), &mix.url("/callback/first"));
    let code = part(&back, "code").unwrap();
    victim.send("GET", &back, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!(mix.attacker().codes(), [code], "this is what the attacker is after");
    mix.nobody_is_in(&victim, "and even so nobody is logged in by it");
}

/// The browser of somebody who logs in with the honest provider is made to bring the answer to the attacker's address, or under the attacker's
/// name.
#[test]
fn an_answer_is_taken_at_its_own_address_and_under_its_own_name_alone() {
    let two = Two::start();
    let (attacker, honest) = (&two.world.idp, &two.second);
    let begin = |browser: &mut Browser| {
        browser.open_until(&two.world.url("/login?provider=second"), &two.world.url("/callback/second"))
    };
    let mut victim = Browser::default();
    let back = begin(&mut victim);
    let own = "/callback/second";
    let name = |url: &str| part(url, "iss").unwrap();
    let swapped = attacker.issuer.replace(':', "%3A").replace('/', "%2F");
    for (url, why) in [
        (back.replace(own, "/callback/first"), "the attacker's address"),
        (back.replace(own, "/callback"), "an address of nobody"),
        (back.replace(own, "/callback/third"), "an address of nobody"),
        (back.replace(&name(&back), &swapped), "the attacker's name"),
        (back.replace(own, "/callback/first").replace(&name(&back), &swapped), "both"),
    ] {
        let mut browser = victim.clone();
        let page = browser.send("GET", &url, &[("Sec-Fetch-Site", "cross-site")], "");
        assert_eq!(page.status, 403, "{why}: {page:?}");
        assert!(browser.cookie(&two.world.origin, SESSION).is_none(), "{why}");
    }
    assert!(attacker.codes().is_empty() && honest.codes().is_empty(), "nobody was asked anything");
    // Control: where it belongs, it is taken.
    let page = victim.send("GET", &back, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!((page.status, victim.cookie(&two.world.origin, SESSION).is_some()), (303, true), "{page:?}");
    assert_eq!(honest.codes(), [part(&back, "code").unwrap()]);
    assert!(attacker.codes().is_empty());
}

/// The same without pages: a login knows whom it was begun with. Without that, the one that is named by the address gets the code.
#[test]
fn a_login_is_finished_by_the_provider_that_it_was_begun_with() {
    let origin = "http://127.0.0.1:9";
    let (attacker, honest) =
        (Idp::start(&callback(origin, "first")), Idp::start(&callback(origin, "second")));
    attacker.control(json!({ "metadata": { "authorization_response_iss_parameter_supported": false } }));
    let provider = |idp: &Idp, name: &str| {
        let settings: ProviderSettings = idp.settings().named(name.to_owned());
        Provider::new(settings, origin, Outbound::new(None).unwrap()).unwrap()
    };
    let (a, b) = (provider(&attacker, "first"), provider(&honest, "second"));
    let runtime = Runtime::new().unwrap();
    let begin = || runtime.block_on(b.begin(&mut SystemRandom, now())).unwrap();
    let answer = |url: &str| {
        let back = Browser::default().open_until(url, origin);
        Callback { code: part(&back, "code"), state: part(&back, "state"), ..Callback::default() }
    };
    let (url, login) = begin();
    let back = answer(&url);
    let finish = |provider: &Provider, login: Login, back: Callback| {
        runtime.block_on(provider.finish(login, back, now()))
    };
    let refused = finish(&a, login.clone(), back.clone()).unwrap_err();
    assert!(matches!(&refused, LoginError::NotTrusted(why) if why.contains("another provider")), "{refused}");
    assert!(attacker.codes().is_empty());
    // Control: a login that does not say whom it was begun with, as where a service keeps nothing but the state.
    let mut told: Value = serde_json::to_value(&login).unwrap();
    told["issuer"] = json!(attacker.issuer);
    let forgetful: Login = serde_json::from_value(told).unwrap();
    assert!(finish(&a, forgetful, back.clone()).is_err());
    assert_eq!(attacker.codes(), [back.code.clone().unwrap()], "the attacker has the honest provider's code");
    // And where it belongs it is good.
    let (url, login) = begin();
    let said = Callback { iss: Some(honest.issuer.clone()), ..answer(&url) };
    assert_eq!(finish(&b, login, said).unwrap().human.subject, "anna");
}

/// What an attacker's provider says of itself: another's name, or tokens in it.
#[test]
fn a_provider_speaks_for_nobody_but_itself() {
    let two = Two::start();
    let attacker = &two.world.idp;
    attacker.control(json!({ "metadata": { "issuer": two.second.issuer } }));
    let page = two.log_in(&mut Browser::default(), "first");
    assert_eq!(page.status, 502, "who calls itself another is not that one: {page:?}");
    attacker.control(json!({ "metadata": {}, "spoil": "issuer" }));
    let page = two.log_in(&mut Browser::default(), "first");
    assert_eq!(page.status, 403, "{page:?}");
    assert!(!two.knows(&two.second.issuer, "anna"));
    // Control: under its own name it logs its own humans in, who are nobody there.
    attacker.control(json!({ "spoil": null }));
    assert_eq!(two.log_in(&mut Browser::default(), "first").status, 200);
    assert!(two.knows(&attacker.issuer, "anna") && !two.knows(&two.second.issuer, "anna"));
}
