//! What a session was granted is the most that its tokens may allow, whatever their minter says.

use std::sync::Arc;

use obol_verify::{Ceiling, Template};
use obol_world::TOOL;
use obol_world::forge::Forge;
use obol_world::scope::{parsed, scope_with};
use obol_world::server::{Server, names, session};
use serde_json::{Value, json};

type Names = (&'static str, &'static str);
const OK: Names = ("ok", "ok");
const INSUFFICIENT: Names = ("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION");

fn grant() -> Value {
    scope_with(json!({
        "action": ["read", "list"], "resource": "docs/**", "delegation_depth": 1,
        "constraints": {"max_rows": 10, "time_window_sec": 60, "data_classification": "internal",
                        "allowed_parameters": {"path": "/reports/*"}}
    }))
}

/// A server whose session was granted this, and by what it asks further.
fn server(grants: &[Value], template: Template) -> Server {
    let session = session().with_grants(grants.iter().map(parsed));
    Server::with_session(session, |builder| builder.templates(Arc::new(template)))
}

/// A token as whoever has the session's keys can mint it: the grant with other fields.
fn minted(change: impl FnOnce(&mut Value)) -> Forge {
    let mut scope = grant();
    scope["action"] = json!("read");
    change(&mut scope);
    Forge::new(1, &scope)
}

#[test]
fn a_token_within_its_grant_is_accepted() {
    type Change = fn(&mut Value);
    let narrower: [Change; 5] = [
        |_| {},
        |scope| scope["resource"] = json!("docs/a"),
        |scope| scope["delegation_depth"] = json!(0),
        |scope| scope["require_pop"] = json!(false),
        |scope| scope["constraints"]["max_rows"] = json!(1),
    ];
    for change in narrower {
        assert_eq!(names(server(&[grant()], Template::Granted).accept(&minted(change))), OK);
    }
}

#[test]
fn a_captured_minter_cannot_go_beyond_its_grants_in_any_field() {
    type Change = fn(&mut Value);
    let wider: [(&str, Change); 12] = [
        ("actions", |scope| scope["action"] = json!(["read", "write"])),
        ("resource", |scope| scope["resource"] = json!("**")),
        ("delegation", |scope| scope["delegation_depth"] = json!(2)),
        ("trust", |scope| scope["trust_level"] = json!(2)),
        ("issuer", |scope| scope["iss"] = json!("somebody-else")),
        ("subject", |scope| scope["sub"] = json!("agent-key:2")),
        ("agent", |scope| scope["agent_instance_id"] = json!("agent-2")),
        ("rows", |scope| scope["constraints"]["max_rows"] = json!(11)),
        ("window", |scope| scope["constraints"]["time_window_sec"] = Value::Null),
        ("classification", |scope| scope["constraints"]["data_classification"] = json!("secret")),
        ("parameters", |scope| scope["constraints"]["allowed_parameters"]["path"] = json!("/**")),
        ("limits", |scope| scope["constraints"] = Value::Null),
    ];
    for (what, change) in wider {
        for template in [Template::Granted, Template::Any] {
            let answer = server(&[grant()], template).accept(&minted(change));
            assert_eq!(names(answer), INSUFFICIENT, "{what}");
        }
        // With the grant out of the way the same token is accepted: nothing else stopped it.
        let open = Server::with_session(session(), |builder| builder.templates(Arc::new(Template::Any)));
        assert_eq!(names(open.accept(&minted(change))), OK, "{what}");
    }
    let mut asks = grant();
    asks["require_pop"] = json!(true);
    assert_eq!(names(server(&[asks], Template::Granted).accept(&minted(|_| {}))), INSUFFICIENT, "proof");
    let mut asks = grant();
    asks["constraints"]["require_channel_encryption"] = json!(true);
    assert_eq!(names(server(&[asks], Template::Granted).accept(&minted(|_| {}))), INSUFFICIENT, "channel");
}

#[test]
fn a_tool_that_was_not_granted_is_refused() {
    let mut other = grant();
    other["tool"] = json!("delete");
    assert_eq!(names(server(&[other.clone()], Template::Granted).accept(&minted(|_| {}))), INSUFFICIENT);
    assert_eq!(names(server(&[], Template::Any).accept(&minted(|_| {}))), INSUFFICIENT, "no grant at all");
    assert_eq!(names(server(&[other, grant()], Template::Granted).accept(&minted(|_| {}))), OK);
}

#[test]
fn a_session_that_says_nothing_of_grants_needs_a_template() {
    let with = |template| Server::with_session(session(), |builder| builder.templates(Arc::new(template)));
    let accept = |template| names(with(template).accept(&minted(|_| {})));
    assert_eq!(accept(Template::Granted), INSUFFICIENT);
    assert_eq!(accept(Template::None), INSUFFICIENT);
    assert_eq!(accept(Template::Any), OK);
    assert_eq!(accept(Template::Ceiling(Arc::new(Ceiling::default()))), OK);
    // It is what a verifier does that nobody told otherwise.
    let silent = Server::with_session(session(), |builder| builder.templates(Arc::new(Template::default())));
    assert_eq!(names(silent.accept(&minted(|_| {}))), INSUFFICIENT);
}

#[test]
fn a_template_and_a_grant_both_hold() {
    let ceiling = |json: Value| Template::Ceiling(Arc::new(serde_json::from_value(json).unwrap()));
    for (template, expected) in [
        (json!({"resource": "docs/**", "max_rows": 10}), OK),
        (json!({"resource": "docs/a"}), INSUFFICIENT),
        (json!({"max_rows": 9}), INSUFFICIENT),
        (json!({"data_classification": "internal"}), OK),
        (json!({"data_classification": "public"}), INSUFFICIENT),
        (json!({"allowed_parameters": {"path": "/reports/*", "more": "x"}}), OK),
        (json!({"allowed_parameters": {}}), INSUFFICIENT),
        (json!({"require_channel_encryption": true}), INSUFFICIENT),
    ] {
        let answer = server(&[grant()], ceiling(template.clone())).accept(&minted(|_| {}));
        assert_eq!(names(answer), expected, "{template}");
    }
    let wide = json!({"resource": "**"});
    let wider = minted(|scope| scope["resource"] = json!("**"));
    assert_eq!(
        names(server(&[grant()], ceiling(wide)).accept(&wider)),
        INSUFFICIENT,
        "the grant holds as well"
    );
}

/// The answer for a scope is kept with the scope; a session in the place of another has its own.
#[test]
fn what_is_kept_of_a_scope_does_not_outlive_its_sessions_grants() {
    let server = server(&[grant()], Template::Granted);
    let token = |number| {
        let mut scope = grant();
        scope["action"] = json!("read");
        Forge::new(number, &scope)
    };
    for number in 1..4 {
        assert_eq!(names(server.accept(&token(number))), OK);
    }
    server.sessions.add(session().with_grants([])).unwrap();
    assert_eq!(names(server.accept(&token(4))), INSUFFICIENT);
    server.sessions.add(session().with_grants([parsed(&grant())])).unwrap();
    assert_eq!(names(server.accept(&token(4))), OK);
    assert_eq!(names(server.accept(&Forge::new(5, &scope_with(json!({"tool": TOOL}))))), INSUFFICIENT);
}

#[test]
fn a_token_is_not_delegated_further_than_the_server_advertises() {
    let server = Server::with_session(session(), |builder| builder);
    assert_eq!(server.verifier.limits().max_delegation_depth, 3);
    let deep = |number, depth: u64| Forge::new(number, &scope_with(json!({"delegation_depth": depth})));
    assert_eq!(names(server.accept(&deep(1, 3))), OK);
    for depth in [4, u64::MAX] {
        assert_eq!(names(server.accept(&deep(2, depth))), INSUFFICIENT, "{depth}");
    }
}
