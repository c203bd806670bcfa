//! Answers that are not a yes, each told apart by the program that asked; and what a service that is killed knows afterwards.

use core::time::Duration;
use std::process::{Child, Stdio};

use obol_ipc::approvals::{ApprovalResult, ApprovalState};
use obol_ipc::names::Label;
use obol_world::authority::write_settings;
use obol_world::home::{self, command, wait_until};
use obol_world::rs::RsProcess;
use serde_json::{Value, json};

use super::story::present;
use super::{API, CATALOGUE, POLICIES, World, pay};

/// A program that asks for two payments and a refund, and waits.
fn asking(world: &World) -> Child {
    let calls = json!([
        {"tool": "pay", "action": "pay", "resource": "accounts/7", "arguments": {"amount": "12.50"}, "count": 2},
        {"tool": "pay", "action": ["refund"], "resource": "accounts/8", "constraints": {"max_rows": 5}},
    ]);
    std::fs::write(world.path().join("calls.json"), calls.to_string()).unwrap();
    let mut program = command(world.path());
    program.args(["approval", "request", "--calls", "calls.json", "--purpose", "two invoices", "--json"]);
    program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The one request that waits, as the operator is shown it.
fn waiting(world: &World) -> Value {
    let mut found = Value::Null;
    wait_until("a request waits", || {
        let shown = world.service.told(&["approvals"]);
        let all = shown["approvals"].as_array().unwrap();
        assert!(all.len() <= 1, "{shown}");
        found = all.first().cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

/// How a program ended, and what it said.
fn ended(program: Child) -> (Option<i32>, String, String) {
    let output = program.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_program_that_asks_is_told_yes_no_too_late_and_nobody_there_apart() {
    let home = home::home();
    write_settings(home.path(), "[as]\ncall_wait = 5\n");
    let mut world = World::at(home, CATALOGUE, POLICIES);
    let rs = RsProcess::follow(world.path(), &world.service, API, &["--first-start"]);

    let program = asking(&world);
    let shown = waiting(&world);
    assert_eq!((&shown["purpose"], &shown["calls"][0]["count"]), (&json!("two invoices"), &json!(2)));
    assert_eq!(shown["calls"][0]["arguments"], r#"{"amount":"12.50"}"#);
    assert_eq!(shown["calls"][1]["actions"], json!(["refund"]));
    world.service.told(&["approve", shown["approvalId"].as_str().unwrap(), "--yes"]);
    let (code, said, _) = ended(program);
    assert_eq!(code, Some(0));
    let approved: Value = serde_json::from_str(&said).unwrap();
    let first = approved["calls"][0].as_str().unwrap();
    for _ in 0..2 {
        let token = world.draw(first).unwrap();
        let arguments = json!({"amount": "12.50"});
        wait_until("the server hears of the yes", || present(&rs, &token, &arguments) == "OK");
        assert_eq!(present(&rs, &token, &arguments), "TOKEN_REPLAYED");
    }
    assert!(world.draw(first).is_err(), "as often as it says");

    let program = asking(&world);
    world.service.told(&["deny", waiting(&world)["approvalId"].as_str().unwrap()]);
    let (code, said, error) = ended(program);
    assert_eq!((code, said.as_str()), (Some(3), ""), "{error}");
    assert!(error.contains("APPROVAL_DENIED"), "{error}");

    // Nobody decides for the five seconds that there are.
    let program = asking(&world);
    let late = waiting(&world);
    let (code, said, error) = ended(program);
    assert_eq!((code, said.as_str()), (Some(5), ""), "{error}");
    assert!(error.contains("EXPIRED"), "{error}");
    let too_late = world.service.operate(&["approve", late["approvalId"].as_str().unwrap(), "--yes"]);
    assert!(!too_late.status.success(), "{too_late:?}");

    world.service.kill();
    let mut program = command(world.path());
    program.args(["approval", "request", "pay", "--timeout", "5", "--json"]);
    let (code, said, error) = ended(program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!((code, said.as_str()), (Some(4), ""), "{error}");
    assert!(error.contains("AUTHORITY_UNREACHABLE"), "{error}");
}

/// Waits until the agent's side knows, which has to find the service again.
fn hears_of_a_yes(world: &World, asked: &ApprovalResult) {
    wait_until("the agent hears of a yes", || {
        let id = Label::new(asked.approval_id.as_str()).unwrap();
        let status = world.auth().approval_status(id, Duration::from_secs(1));
        status.is_ok_and(|status| status.state == ApprovalState::Approved)
    });
}

#[test]
fn what_waits_and_what_was_approved_outlive_a_killed_service() {
    let mut world = World::new();
    let rs = RsProcess::follow(world.path(), &world.service, API, &["--first-start"]);
    let (waits, told) = (world.ask(pay()), world.ask(pay()));
    assert_eq!(world.approve(&told).state, ApprovalState::Approved);
    world.service.kill();
    world.service.start_again();
    let shown = world.service.told(&["approvals"]);
    assert_eq!(shown["approvals"][0]["approvalId"], json!(waits.approval_id), "{shown}");
    assert_eq!(shown["approvals"].as_array().unwrap().len(), 1, "{shown}");
    world.service.told(&["approve", &waits.approval_id, "--yes"]);
    hears_of_a_yes(&world, &waits);
    for asked in [&waits, &told] {
        let token = world.draw(&asked.calls[0]).unwrap();
        wait_until("the server hears of the yes", || present(&rs, &token, &json!({})) == "OK");
        assert_eq!(present(&rs, &token, &json!({})), "TOKEN_REPLAYED");
        assert!(world.draw(&asked.calls[0]).is_err(), "one token alone");
    }
}

#[test]
fn a_word_that_was_confirmed_is_never_lost_and_never_said_twice() {
    let mut world = World::new();
    let (mut confirmed, mut lost) = (0, 0);
    for round in 0..8_u64 {
        let asked = world.ask(pay());
        let mut word = command(world.path());
        word.args(["approve", &asked.approval_id, "--yes", "--json"]);
        let word = word.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Not a wait for something: kills that fall before, into and behind the decision.
        std::thread::sleep(Duration::from_millis(round * round * 4));
        world.service.kill();
        let said = word.wait_with_output().unwrap().status.success();
        world.service.start_again();
        let shown = world.service.told(&["approvals"]);
        let still =
            shown["approvals"].as_array().unwrap().iter().any(|one| one["approvalId"] == asked.approval_id);
        assert!(!(said && still), "round {round}: a word was confirmed, and is forgotten");
        if still {
            lost += 1;
            world.service.told(&["approve", &asked.approval_id, "--yes"]);
        } else {
            confirmed += usize::from(said);
        }
        let again = world.service.operate(&["approve", &asked.approval_id, "--yes"]);
        assert!(!again.status.success(), "round {round}: {again:?}");
        let again = world.service.operate(&["deny", &asked.approval_id]);
        assert!(!again.status.success(), "round {round}: {again:?}");
        hears_of_a_yes(&world, &asked);
        world.draw(&asked.calls[0]).unwrap();
        assert!(world.draw(&asked.calls[0]).is_err(), "round {round}: one token alone");
    }
    assert!(lost > 0, "no kill came before a decision");
    assert!(confirmed > 0, "no kill came behind one");
}
