//! A provider replaces its keys while it runs: logins go on, a key that it took back is worth nothing, and tokens under keys that are none cost
//! it no more than a request now and then.

use core::time::Duration;
use std::time::Instant;

use obol_world::home::wait_until;
use serde_json::json;

use super::World;
use super::browser::Browser;

const SESSION: &str = "__Host-obol";
/// How often the provider is asked for its keys at most, in seconds.
const PAUSE_SECS: u64 = 10;

fn logs_in(world: &World) -> bool {
    let mut browser = Browser::default();
    let page = browser.open(&world.url("/activate"));
    assert!([200, 403].contains(&page.status), "{page:?}");
    browser.cookie(&world.origin, SESSION).is_some()
}

#[test]
fn logins_go_on_while_keys_are_replaced_and_a_key_that_was_taken_back_is_none() {
    let world = World::new();
    assert!(logs_in(&world));
    // The new key is there beside the old one, and signs.
    world.idp.control(json!({ "rotate": "second", "keep": true }));
    wait_until("the new key is taken", || logs_in(&world));
    let fetched = world.idp.asked_for("/jwks");
    for _ in 0..5 {
        assert!(logs_in(&world), "and stays so");
    }
    world.idp.control(json!({ "spoil": "old_key" }));
    assert!(logs_in(&world), "control: while it is published, the old key is good");
    assert_eq!(world.idp.asked_for("/jwks"), fetched, "a key that is known is not asked for");

    // The old one is taken back; so is that one, for a third. Once that was seen, neither is good.
    world.idp.control(json!({ "rotate": "third", "spoil": null }));
    wait_until("the third key is taken", || logs_in(&world));
    world.idp.control(json!({ "spoil": "old_key" }));
    for _ in 0..3 {
        assert!(!logs_in(&world), "a key that the provider took back");
    }
    world.idp.control(json!({ "spoil": null }));
    assert!(logs_in(&world), "and nobody else is kept out by it");
}

#[test]
fn tokens_under_keys_that_are_none_have_the_provider_asked_now_and_then() {
    let world = World::new();
    assert!(logs_in(&world));
    let (before, began) = (world.idp.asked_for("/jwks"), Instant::now());
    world.idp.control(json!({ "spoil": "unknown_key" }));
    let mut tries = 0;
    // Long enough for two pauses, so that a bound that is none would be seen.
    while began.elapsed() < Duration::from_secs(2 * PAUSE_SECS + 1) || tries < 60 {
        assert!(!logs_in(&world));
        tries += 1;
    }
    let asked = world.idp.asked_for("/jwks") - before;
    let most = began.elapsed().as_secs() / PAUSE_SECS + 1;
    assert!((1..=most).contains(&asked), "{tries} tries, {asked} requests, at most {most}");
    world.idp.control(json!({ "spoil": null }));
    assert!(logs_in(&world), "control: the same, under a key that is one");
}
