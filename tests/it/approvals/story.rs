//! From the agent's question to the call, and the answers that are not a yes.

use core::time::Duration;

use obol_client::CallError;
use obol_ipc::approvals::{ApprovalState, WantedCall};
use obol_ipc::names::Label;
use obol_world::home::wait_until;
use obol_world::http::Http;
use obol_world::rs::RsProcess;
use serde_json::{Value, json};

use super::{API, POLICIES, World, pay, request, tool};

pub(super) fn refused(error: &CallError) -> &'static str {
    let CallError::Refused(refusal) = error else { panic!("{error}") };
    refusal.code().name()
}

/// Presents a token to the process: `OK`, or the code.
pub(super) fn present(rs: &RsProcess, token: &str, arguments: &Value) -> String {
    let body = json!({
        "token": token, "tool": "pay", "action": "pay", "resource": "accounts/7", "arguments": arguments
    });
    let body = body.to_string();
    let (_, answer) = Http::new(rs.port())
        .exchange(&format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    if answer["ok"] == true { "OK".to_owned() } else { answer["code"].as_str().unwrap().to_owned() }
}

#[test]
fn a_call_is_asked_for_shown_approved_and_made_once() {
    let world = World::new();
    let mut rs = RsProcess::follow(world.path(), &world.service, API, &["--first-start"]);
    let without = world.client().dequeue_token(&tool(), Duration::ZERO).unwrap_err();
    assert_eq!(refused(&without), "APPROVAL_REQUIRED");

    let arguments = json!({"amount": "12.50", "to": "\u{202e}bank\u{1b}[2J"});
    let call = WantedCall { arguments: Some(arguments.to_string()), ..pay() };
    let mut asked = request(call);
    asked.purpose = Some("invoice \u{202e}7".to_owned());
    let asked = world.auth().request_approval(asked).unwrap();
    assert_eq!(asked.state, ApprovalState::Waiting);
    assert_eq!(refused(&world.draw(&asked.calls[0]).unwrap_err()), "APPROVAL_REQUIRED", "nobody said yes");

    // The human sees all of it, and nothing that hides or steers.
    let shown = world.service.told(&["approvals"]);
    let shown = &shown["approvals"][0];
    assert_eq!((&shown["approvalId"], &shown["agent"]), (&json!(asked.approval_id), &json!("builder")));
    assert_eq!((&shown["allowed"], &shown["calls"][0]["resource"]), (&json!(true), &json!("accounts/7")));
    assert_eq!(shown["calls"][0]["actions"], json!(["pay"]));
    let text = shown.to_string();
    assert!(text.contains("12.50") && text.contains("invoice") && !text.contains('\u{202e}'), "{text}");

    let approved = world.approve(&asked);
    assert_eq!(approved.state, ApprovalState::Approved);
    let token = world.draw(&approved.calls[0]).unwrap();
    assert_eq!(refused(&world.draw(&approved.calls[0]).unwrap_err()), "APPROVAL_REQUIRED", "one token alone");
    // What it has not heard of yet it refuses, and spends nothing.
    let code = "APPROVAL_DIGEST_MISMATCH";
    wait_until("other arguments are seen", || present(&rs, &token, &json!({"amount": "9000"})) == code);
    wait_until("the server hears of the yes", || present(&rs, &token, &arguments) == "OK");
    assert_eq!(present(&rs, &token, &arguments), "TOKEN_REPLAYED");

    // A restart revives nothing, and forgets what was approved before it.
    let unused = world.approved_token(pay());
    rs.terminate();
    rs.start_again();
    for token in [&token, &unused] {
        let answer = present(&rs, token, &arguments);
        assert!(["TOKEN_REPLAYED", "APPROVAL_DIGEST_MISMATCH"].contains(&answer.as_str()), "{answer}");
    }
    let fresh = world.approved_token(pay());
    wait_until("the server hears of the next yes", || present(&rs, &fresh, &json!({})) == "OK");
}

#[test]
fn one_yes_for_a_list_of_calls_gives_each_as_often_as_was_said() {
    let world = World::new();
    let refund = WantedCall { actions: vec!["refund".to_owned()], ..pay() };
    let mut asked = request(WantedCall { count: Some(2), ..pay() });
    asked.calls.push(refund);
    let asked = world.auth().request_approval(asked).unwrap();
    assert_eq!(asked.calls.len(), 2);
    world.approve(&asked);
    let tokens = [0, 0, 1].map(|call: usize| world.draw(&asked.calls[call]).unwrap());
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2]);
    for call in &asked.calls {
        assert_eq!(refused(&world.draw(call).unwrap_err()), "APPROVAL_REQUIRED");
    }
}

#[test]
fn denied_over_and_unreachable_are_three_answers() {
    let mut world = World::new();
    let denied = world.ask(pay());
    world.service.told(&["deny", &denied.approval_id]);
    assert_eq!(world.status(&denied).state, ApprovalState::Denied);
    assert_eq!(refused(&world.draw(&denied.calls[0]).unwrap_err()), "APPROVAL_REQUIRED");

    // A yes is no use to an agent that was ended, also once it is let in again.
    let ended = world.ask(pay());
    assert_eq!(world.approve(&ended).state, ApprovalState::Approved);
    let waiting = world.ask(pay());
    world.service.told(&["agent", "disable", "builder"]);
    assert_eq!(world.status(&waiting).state, ApprovalState::Expired);
    world.service.told(&["agent", "enable", "builder"]);
    wait_until("a session again", || world.auth().authenticate().is_ok());
    assert_eq!(refused(&world.draw(&ended.calls[0]).unwrap_err()), "APPROVAL_REQUIRED");

    let lost = world.ask(pay());
    world.service.kill();
    let id = Label::new(lost.approval_id.as_str()).unwrap();
    let unreachable = world.auth().approval_status(id, Duration::ZERO).unwrap_err();
    assert_eq!(refused(&unreachable), "AUTHORITY_UNREACHABLE");
}

#[test]
fn what_policy_does_not_offer_is_not_asked_and_four_eyes_are_two_people() {
    const FOUR_EYES: &str = r#"
@id("four-eyes") forbid (principal, action == Obol::Action::"approveCall", resource) when { context.agent.owner == principal };
"#;
    let world = World::with_policies(&format!("{POLICIES}{FOUR_EYES}"));
    let more = WantedCall { resource: Some("vault/1".to_owned()), ..pay() };
    let error = world.auth().request_approval(request(more)).unwrap_err();
    assert_eq!(refused(&error), "POLICY_DENY", "{error}");
    let ahead = WantedCall { tool: obol_ipc::names::ToolName::new("search").unwrap(), ..pay() };
    assert_eq!(refused(&world.auth().request_approval(request(ahead)).unwrap_err()), "POLICY_DENY");

    // Whoever approved the agent answers for it.
    let asked = world.ask(pay());
    assert_eq!(world.service.told(&["approvals"])["approvals"][0]["allowed"], false);
    let own = world.service.operate(&["approve", &asked.approval_id, "--yes"]);
    assert!(!own.status.success(), "{own:?}");
    assert!(String::from_utf8_lossy(&own.stderr).contains("does not let you"), "{own:?}");
    assert_eq!(world.service.told(&["approvals"])["approvals"][0]["state"], "waiting");
    world.service.told(&["deny", &asked.approval_id]);
}

#[test]
fn an_agent_asks_ten_times_an_hour_and_no_more() {
    let world = World::new();
    for _ in 0..10 {
        world.ask(pay());
    }
    let error = world.auth().request_approval(request(pay())).unwrap_err();
    assert!(error.to_string().contains("TOO_MANY"), "{error}");
}
