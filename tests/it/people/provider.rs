//! Attack 6: a provider's answer that is not what it must be logs nobody in.

use obol_secret::text::to_base64url;
use serde_json::json;

use super::browser::{Browser, Page};
use super::{SECRET, World};

const SESSION: &str = "__Host-obol";

/// Logs in, with the provider's answer changed like this.
fn login(world: &World, browser: &mut Browser, spoil: &str) -> Page {
    world.idp.control(json!({ "spoil": spoil }));
    browser.open(&world.url("/activate"))
}

#[test]
fn an_id_token_that_is_not_what_it_must_be_logs_nobody_in() {
    let world = World::new();
    let honest = login(&world, &mut Browser::default(), "none_at_all");
    assert_eq!(honest.status, 200, "control: the same token, made the same way: {honest:?}");
    for spoil in [
        "nonce",
        "no_nonce",
        "audience",
        "more_audiences",
        "authorized_party",
        "issuer",
        "expired",
        "old_login",
        "no_auth_time",
        "old_token",
        "unknown_key",
        "forged_key",
        "embedded_key",
        "key_by_address",
        "unknown_extension",
        "no_expiry",
        "no_time",
        "no_audience",
        "of_tomorrow",
        "login_of_tomorrow",
        "unsigned",
        "unsigned_in_capitals",
        "unsigned_under_a_key",
        "symmetric_by_secret",
        "symmetric_by_public_key",
        "symmetric_by_public_jwk",
        "symmetric_by_modulus",
        "empty_subject",
        "hostile_subject",
        "groups_of_another_kind",
    ] {
        let mut browser = Browser::default();
        let page = login(&world, &mut browser, spoil);
        assert_eq!(page.status, 403, "{spoil}: {page:?}");
        assert!(page.body.contains("The login failed"), "{spoil}: {page:?}");
        assert!(browser.cookie(&world.origin, SESSION).is_none(), "{spoil}");
    }
    assert_eq!(login(&world, &mut Browser::default(), "none_at_all").status, 200, "and it goes on");
}

#[test]
fn a_key_that_the_provider_replaced_is_fetched() {
    let world = World::new();
    drop(world.logged_in("anna"));
    world.idp.control(json!({ "rotate": "second" }));
    // Keys are not asked for again at once: whoever sends tokens under keys that are none must not have the provider asked each time.
    obol_world::home::wait_until("the new key", || {
        Browser::default().open(&world.url("/activate")).status == 200
    });
}

#[test]
fn an_answer_of_another_provider_or_to_another_login_is_not_taken() {
    let world = World::new();
    let callback = world.url("/callback");
    let begin = |browser: &mut Browser| browser.open_until(&world.url("/login"), &callback);
    let (mut browser, mut other) = (Browser::default(), Browser::default());
    let refused = |browser: &mut Browser, url: &str, why: &str| {
        let page = browser.send("GET", url, &[("Sec-Fetch-Site", "cross-site")], "");
        assert_eq!(page.status, 403, "{why}: {page:?}");
        assert!(browser.cookie(&world.origin, SESSION).is_none(), "{why}");
    };
    // Mix-up (RFC 9207): the answer says another issuer, or none though the provider promises to say it.
    let back = begin(&mut browser);
    let (front, iss) = back.split_once("&iss=").unwrap_or_else(|| panic!("{back}"));
    let rest = iss.split_once('&').map_or("", |(_, rest)| rest);
    refused(
        &mut browser.clone(),
        &format!("{front}&iss=https%3A%2F%2Fevil.example&{rest}"),
        "another issuer",
    );
    refused(&mut browser.clone(), &format!("{front}&{rest}"), "no issuer");
    refused(&mut browser.clone(), &format!("{back}&iss=https%3A%2F%2Fevil.example"), "two issuers");
    // Somebody else's answer: without the browser that began it, or into another's login.
    refused(&mut Browser::default(), &back, "a browser that began nothing");
    let theirs = begin(&mut other);
    refused(&mut browser.clone(), &theirs, "another login's answer");
    // The code of another login under this login's state: PKCE ties it to its own.
    let part = |url: &str, name: &str| {
        let rest = url.split_once(&format!("{name}=")).unwrap().1;
        rest.split_once('&').map_or(rest, |(value, _)| value).to_owned()
    };
    let injected = back.replace(&part(&back, "code"), &part(&theirs, "code"));
    refused(&mut browser.clone(), &injected, "an injected code");
    // Control: untouched, it is taken.
    let page = browser.send("GET", &begin(&mut browser.clone()), &[], "");
    assert_eq!(page.status, 403, "of a copy of the browser that went on");
    let back = begin(&mut browser);
    let page = browser.send("GET", &back, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!((page.status, browser.cookie(&world.origin, SESSION).is_some()), (303, true), "{page:?}");
    // Once: the provider takes no code twice, and the browser has forgotten the login.
    assert_eq!(browser.send("GET", &back, &[], "").status, 403);
}

/// A code that was stolen on its way: whoever has it, and even the service's own secret, gets nothing for it without what the login began
/// with.
#[test]
fn a_stolen_code_is_worth_nothing_without_what_its_login_began_with() {
    let world = World::new();
    let pair = to_base64url(format!("obol:{SECRET}").as_bytes()).replace('-', "+").replace('_', "/");
    let basic = format!("Basic {pair}{}", "=".repeat((4 - pair.len() % 4) % 4));
    let exchange = |back: &str, more: &str| {
        let code = back.split_once("code=").unwrap().1.split('&').next().unwrap().to_owned();
        let to = world.url("/callback").replace(':', "%3A").replace('/', "%2F");
        let headers =
            [("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", basic.as_str())];
        let form = format!("grant_type=authorization_code&code={code}&redirect_uri={to}{more}");
        Browser::default().send("POST", &format!("{}/token", world.idp.issuer), &headers, &form)
    };
    let stolen = |url: &str| Browser::default().open_until(url, &world.url("/callback"));
    let begun = || Browser::default().send("GET", &world.url("/login"), &[], "").leads_to().unwrap();
    let none = exchange(&stolen(&begun()), "");
    assert!(none.status == 400 && none.body.contains("invalid_grant"), "{none:?}");
    let guessed = exchange(&stolen(&begun()), &format!("&code_verifier={}", "A".repeat(43)));
    assert!(guessed.status == 400 && guessed.body.contains("invalid_grant"), "{guessed:?}");
    // Control: a login that begins without PKCE.
    let begun = begun();
    let (front, rest) = begun.split_once('?').unwrap();
    let without: Vec<&str> = rest.split('&').filter(|part| !part.starts_with("code_challenge")).collect();
    assert_eq!(without.len() + 2, rest.split('&').count(), "both of its parts: {rest}");
    let taken = exchange(&stolen(&format!("{front}?{}", without.join("&"))), "");
    assert!(taken.status == 200 && taken.body.contains("id_token"), "{taken:?}");
}

#[test]
fn roles_are_mapped_and_a_provider_without_times_has_to_be_said() {
    let world = World::with(|settings| {
        settings.roles([("ops".to_owned(), "operator".to_owned())].into()).lacks_auth_time(true)
    });
    assert_eq!(login(&world, &mut Browser::default(), "no_auth_time").status, 200);
    let human = obol_authority::directory::Human { issuer: world.idp.issuer.clone(), subject: "anna".into() };
    let known = world.authority.directory().person(&human).unwrap().unwrap();
    assert_eq!(known.roles.into_iter().collect::<Vec<_>>(), ["operator"]);
}
