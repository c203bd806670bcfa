//! The provider asks an agent's owner itself (CIBA, poll mode), and what it says is a word like any other: no more often than it wants to be
//! asked, of nobody else, and not where policy would not take it.

use core::time::Duration;

use obol_authority::directory::{CallStanding, CallState};
use obol_authority::id::ApprovalId;
use obol_authority::identity::ProviderSettings;
use obol_ipc::approvals::{ApprovalResult, ApprovalState};
use obol_ipc::names::Label;
use obol_world::home::wait_until;
use serde_json::{Value, json};

use super::World;
use super::browser::Browser;
use super::calls::{ask, auth, standing};
use super::console::approved;

fn asking(settings: ProviderSettings) -> ProviderSettings {
    settings.approves_calls(true)
}

/// What the provider has asked humans so far.
fn asked(world: &World) -> Vec<Value> {
    let page = Browser::default().send("GET", &format!("{}/asked", world.idp.issuer), &[], "");
    serde_json::from_str::<Vec<Value>>(&page.body).unwrap()
}

fn code(of: &ApprovalResult) -> String {
    ApprovalId::parse(&of.approval_id).unwrap().code()
}

/// Has the agent ask, and waits until the provider has asked what came of it once.
fn asked_there(world: &World) -> ApprovalResult {
    let mine = ask(world);
    wait_until("the provider asks, and is asked", || {
        asked(world)
            .iter()
            .any(|one| one["code"] == code(&mine) && !one["polls"].as_array().unwrap().is_empty())
    });
    mine
}

fn decided(world: &World, of: &ApprovalResult) -> ApprovalState {
    let id = Label::new(of.approval_id.as_str()).unwrap();
    auth(world).approval_status(id, Duration::from_secs(20)).unwrap().state
}

#[test]
fn a_yes_at_the_provider_is_the_owners_yes_and_a_no_is_a_no() {
    let world = World::with(asking);
    let _running = world.agent();
    let _browser = approved(&world);
    let yes = asked_there(&world);
    let seen = asked(&world);
    assert_eq!(
        (&seen[0]["who"], &seen[0]["code"]),
        (&json!("anna"), &json!(code(&yes))),
        "who answers for the agent"
    );
    assert!(yes.approval_id.to_uppercase().starts_with(&format!("APR_{}", code(&yes).replace('-', ""))));
    assert_eq!(standing(&world, &yes), CallStanding::Waiting, "being asked is no yes");
    world.idp.control(json!({ "word": "yes" }));
    assert_eq!(decided(&world, &yes), ApprovalState::Approved);
    let id = ApprovalId::parse(&yes.approval_id).unwrap();
    let row = world.authority.directory().call_approval(&id).unwrap().unwrap();
    let CallState::Approved { by, .. } = row.state else { panic!("{row:?}") };
    assert_eq!((by.issuer, by.subject.as_str()), (world.idp.issuer.clone(), "anna"));

    world.idp.control(json!({ "word": "wait" }));
    let no = asked_there(&world);
    world.idp.control(json!({ "word": "no" }));
    assert_eq!(decided(&world, &no), ApprovalState::Denied);
}

#[test]
fn the_provider_is_asked_no_more_often_than_it_wants_and_its_silence_is_no_word() {
    let world = World::with(asking);
    let _running = world.agent();
    let mut browser = approved(&world);
    world.idp.control(json!({ "slowDowns": 1 }));
    let mine = ask(&world);
    let polls = || {
        let all = asked(&world);
        let mine = all.iter().find(|one| one["code"] == code(&mine))?.clone();
        Some(mine["polls"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap()).collect::<Vec<_>>())
    };
    wait_until("it is asked twice", || polls().is_some_and(|polls| polls.len() >= 2));
    let polls = polls().unwrap();
    // It said one second; once asked to slow down, five more.
    assert!(polls[1] - polls[0] >= 5_900, "{polls:?}");
    assert_eq!(standing(&world, &mine), CallStanding::Waiting);

    // One question at a time for each human: the next one is on the page alone.
    let second = ask(&world);
    assert!(browser.open(&world.url("/console/approvals")).body.contains(&second.approval_id));
    assert!(asked(&world).iter().all(|one| one["code"] != code(&second)));

    // Nobody says anything at the provider: the request still waits, and the page decides.
    world.idp.control(json!({ "word": "over" }));
    let path = format!("/console/approvals/{}", mine.approval_id);
    let page = browser.open(&world.url(&path));
    let token = page.hidden("token");
    assert_eq!(browser.submit(&page.url, &[("token", &token), ("word", "approve")]).status, 303);
    assert_eq!(decided(&world, &mine), ApprovalState::Approved);
    assert_eq!(standing(&world, &second), CallStanding::Waiting);
}

#[test]
fn no_forged_or_other_word_at_the_provider_counts() {
    // Tokens that an honest provider would not make; the first is one that it would, made the same way.
    for spoil in [
        "none_at_all",
        "audience",
        "old_login",
        "forged_key",
        "unsigned",
        "symmetric_by_secret",
        "another_human",
    ] {
        let world = World::with(asking);
        let _running = world.agent();
        let _browser = approved(&world);
        let mine = asked_there(&world);
        world.idp.control(json!({ "word": "yes", "spoil": spoil }));
        if spoil == "none_at_all" {
            assert_eq!(decided(&world, &mine), ApprovalState::Approved, "the control");
            continue;
        }
        let polls = || asked(&world)[0]["polls"].as_array().unwrap().len();
        let before = polls();
        wait_until("the word is fetched", || polls() > before);
        // It would hear of a yes at once.
        let id = Label::new(mine.approval_id.as_str()).unwrap();
        let heard = auth(&world).approval_status(id, Duration::from_secs(2)).unwrap().state;
        assert_eq!(
            (heard, standing(&world, &mine)),
            (ApprovalState::Waiting, CallStanding::Waiting),
            "{spoil}"
        );
    }
}

#[test]
fn nobody_is_asked_who_may_not_say_yes() {
    let world = World::with(asking);
    let _running = world.agent();
    // Bert answers for the agent, and may not say yes to calls; Anna may.
    world.idp.control(json!({ "account": "bert" }));
    let _bert = approved(&world);
    let mine = ask(&world);
    let mut anna = world.logged_in("anna");
    let page = anna.open(&world.url(&format!("/console/approvals/{}", mine.approval_id)));
    let token = page.hidden("token");
    assert_eq!(anna.submit(&page.url, &[("token", &token), ("word", "approve")]).status, 303);
    assert_eq!(decided(&world, &mine), ApprovalState::Approved);
    assert!(asked(&world).is_empty(), "{:?}", asked(&world));
}
