//! Steps 13 and 14 of the cascade: what a scope allows, what policy and parents allow a scope, who presents it.

use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};
use obol_token::delegation::{Widening, check_attenuation, hash_of};
use obol_token::possession_transcript;
use obol_token::text::{to_base64url, to_hex};
use obol_verify::{Arguments, Ceiling, Request, Template, TemplateTable, Templates, arguments_hash};
use obol_world::forge::Forge;
use obol_world::scope::{parsed, scope_json, scope_with};
use obol_world::server::{Server, names, reading, session};
use obol_world::{NOW, SESSION, TOOL};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::token::known_answers::published_vectors;

type Names = (&'static str, &'static str);
const OK: Names = ("ok", "ok");
const INSUFFICIENT: Names = ("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION");

fn present(scope: Value, request: &Request<'_>) -> Names {
    names(Server::new().present(&Forge::new(1, &scope), request))
}

fn accept(scope: Value) -> Names {
    present(scope, &reading())
}

#[test]
fn audience_and_organisation_are_checked_again_inside() {
    let header_says_us = |fields: Value| names(Server::new().accept(&Forge::new(1, &scope_with(fields))));
    assert_eq!(header_says_us(json!({"aud": "https://other"})), ("AUD_MISMATCH", "AUDIENCE_VALIDATION"));
    for org in ["other-org", "example-org2", "example-or", "Example-org"] {
        assert_eq!(header_says_us(json!({"org_id": org})), ("ORG_ID_MISMATCH", "ORG_ID_VALIDATION"), "{org}");
    }
}

#[test]
fn tool_action_and_resource_must_be_the_requested_ones() {
    let request = |tool, action, resource| Request { action, resource, ..Request::new(tool) };
    let scope = scope_with(json!({"action": ["read", "list"], "resource": "docs/*/public"}));
    let ask = |tool, action, resource| present(scope.clone(), &request(tool, action, resource));
    assert_eq!(ask(TOOL, Some("list"), Some("docs/a/public")), OK);
    assert_eq!(ask(TOOL, None, None), OK);
    for refused in [
        ask("delete", None, None),
        ask("searc", None, None),
        ask(TOOL, Some("write"), None),
        ask(TOOL, Some("rea"), None),
        ask(TOOL, None, Some("docs/a/b/public")),
        ask(TOOL, None, Some("docs/a")),
        ask(TOOL, None, Some("")),
    ] {
        assert_eq!(refused, INSUFFICIENT);
    }
    assert_eq!(accept(scope_with(json!({"resource": "*"}))), OK, "a bare star is the whole tool");
}

fn under(template: Template, fields: Value) -> Names {
    let server = Server::configured(|builder| builder.templates(Arc::new(template)));
    names(server.accept(&Forge::new(1, &scope_with(fields))))
}

fn ceiling(json: Value) -> Template {
    Template::Ceiling(Arc::new(serde_json::from_value(json).unwrap()))
}

#[test]
fn without_a_template_nothing_is_allowed_and_any_template_allows_all() {
    assert_eq!(under(Template::None, json!({})), INSUFFICIENT);
    assert_eq!(under(Template::Any, json!({})), OK);
    assert_eq!(under(ceiling(json!({})), json!({})), OK);
}

#[test]
fn every_action_of_the_token_must_be_within_the_template() {
    let template = || ceiling(json!({"allowed_actions": ["read", "list"]}));
    assert_eq!(under(template(), json!({"action": ["list", "read"]})), OK);
    assert_eq!(under(template(), json!({"action": ["read", "write"]})), INSUFFICIENT);
    assert_eq!(under(ceiling(json!({"allowed_actions": []})), json!({})), INSUFFICIENT);
}

#[test]
fn a_token_is_a_subset_of_its_template() {
    let rows = |rows: Value| json!({"constraints": {"max_rows": rows}});
    let cases = [
        (json!({"max_rows": 10}), rows(json!(10)), OK),
        (json!({"max_rows": 10}), rows(json!(11)), INSUFFICIENT),
        // No limit is wider than any limit.
        (json!({"max_rows": 10}), rows(json!(null)), INSUFFICIENT),
        (json!({"max_rows": 10}), json!({}), INSUFFICIENT),
        (json!({"time_window_sec": 9}), json!({"constraints": {"time_window_sec": 9}}), OK),
        (json!({"time_window_sec": 9}), json!({"constraints": {"time_window_sec": 10}}), INSUFFICIENT),
        (json!({"time_window_sec": 9}), json!({}), INSUFFICIENT),
        // A token is one call, whether it says so or not.
        (json!({"max_calls": 1}), json!({}), OK),
        (json!({"max_calls": 10}), json!({"constraints": {"max_calls": 1}}), OK),
        (json!({"max_calls": 0}), json!({}), INSUFFICIENT),
        (json!({"min_trust_level": 1}), json!({}), OK),
        (json!({"min_trust_level": 2}), json!({}), INSUFFICIENT),
        (json!({"permitted_audiences": ["https://api.example/mcp"]}), json!({}), OK),
        (json!({"permitted_audiences": ["https://api.example"]}), json!({}), INSUFFICIENT),
        (json!({"permitted_audiences": []}), json!({}), INSUFFICIENT),
        (json!({"max_delegation_depth": 1}), json!({"delegation_depth": 1}), OK),
        (json!({"max_delegation_depth": 1}), json!({"delegation_depth": 2}), INSUFFICIENT),
        (json!({"require_pop": true}), json!({}), INSUFFICIENT),
        (json!({"require_ciba": true}), json!({}), INSUFFICIENT),
        (json!({"require_intent_capture": true}), json!({}), INSUFFICIENT),
    ];
    for (template, fields, expected) in cases {
        assert_eq!(under(ceiling(template.clone()), fields.clone()), expected, "{fields} under {template}");
    }
}

#[test]
fn templates_are_found_by_agent_and_tool() {
    let mut table = TemplateTable::new();
    table.insert("agent-1", TOOL, Ceiling { max_rows: Some(5), ..Ceiling::default() });
    assert!(matches!(table.template("agent-1", TOOL), Template::Ceiling(found) if found.max_rows == Some(5)));
    assert!(matches!(table.template("agent-1", "other"), Template::None));
    assert!(matches!(table.template("agent-2", TOOL), Template::None));
}

#[test]
fn a_token_is_for_one_call() {
    for (calls, expected) in [(0, INSUFFICIENT), (1, OK), (2, INSUFFICIENT)] {
        assert_eq!(accept(scope_with(json!({"constraints": {"max_calls": calls}}))), expected);
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn channel_encryption_is_asked_for_where_the_scope_says_so() {
    let missing = ("CHANNEL_ENCRYPTION_REQUIRED", "CHANNEL_ENCRYPTION_MISSING");
    let scope = scope_with(json!({"constraints": {"require_channel_encryption": true}}));
    let arguments = object(json!({}));
    for (arguments, expected) in [
        (Arguments::Opened(Some(&arguments)), OK),
        (Arguments::Opened(None), OK),
        (Arguments::Plain(Some(&arguments)), missing),
        (Arguments::Plain(None), missing),
        (Arguments::Unseen, missing),
    ] {
        assert_eq!(present(scope.clone(), &Request { arguments, ..reading() }), expected);
    }
    let relaxed = scope_with(json!({"constraints": {"require_channel_encryption": false}}));
    assert_eq!(present(relaxed, &reading()), OK);
}

#[test]
fn arguments_must_match_their_patterns() {
    let scope = scope_with(json!({
        "constraints": {"allowed_parameters": {"path": "/reports/*", "format": "pdf", "x-tag": "a"}}
    }));
    let call = |arguments: Value| {
        let arguments = object(arguments);
        present(scope.clone(), &Request { arguments: Arguments::Plain(Some(&arguments)), ..reading() })
    };
    for allowed in [
        json!({}),
        json!({"path": "/reports/q3.pdf"}),
        json!({"path": "/reports/", "format": "pdf", "x-trace": {"any": 1}, "x-tag": "a"}),
    ] {
        assert_eq!(call(allowed.clone()), OK, "{allowed}");
    }
    for refused in [
        json!({"path": "/reports/2025/q3.pdf"}),
        json!({"path": "/etc/passwd"}),
        json!({"path": ["/reports/q3.pdf"]}),
        json!({"path": null}),
        json!({"query": "x"}),
        json!({"X-trace": "x"}),
        json!({"x-tag": "b"}),
        json!({"format": "pdf", "Path": "/reports/q3.pdf"}),
    ] {
        assert_eq!(call(refused.clone()), INSUFFICIENT, "{refused}");
    }
    let absent = Request { arguments: Arguments::Plain(None), ..reading() };
    assert_eq!(present(scope.clone(), &absent), OK);
    // What cannot be seen cannot be held against a limit.
    assert_eq!(present(scope, &Request { arguments: Arguments::Unseen, ..reading() }), INSUFFICIENT);
    let none_allowed = scope_with(json!({"constraints": {"allowed_parameters": {}}}));
    let arguments = object(json!({"path": "x"}));
    let request = Request { arguments: Arguments::Plain(Some(&arguments)), ..reading() };
    assert_eq!(present(none_allowed, &request), INSUFFICIENT);
}

#[test]
fn an_argument_that_is_a_path_does_not_lead_out_of_its_pattern() {
    let scope = scope_with(json!({
        "constraints": {"allowed_parameters": {"path": "/reports/**", "note": "**"}}
    }));
    let call = |name: &str, value: &str| {
        let arguments = object(json!({name: value}));
        present(scope.clone(), &Request { arguments: Arguments::Plain(Some(&arguments)), ..reading() })
    };
    for path in ["/reports/a", "/reports/2025/q3 (final).pdf", "/reports/.../x", "/reports/ü"] {
        assert_eq!(call("path", path), OK, "{path}");
    }
    for path in [
        "/reports/../etc/passwd",
        "/reports/%2e%2e/%2e%2e/etc",
        "/reports/..;/etc",
        "/reports/.\t./etc",
        "/reports/..\\..\\etc",
        "/reports//etc/passwd",
        "/reports/..\0",
    ] {
        assert_eq!(call("path", path), INSUFFICIENT, "{path:?}");
        assert_eq!(call("note", path), OK, "its pattern takes it for no path: {path:?}");
    }
}

fn approved(confirmed_at: u64, change: impl FnOnce(&mut Value)) -> Value {
    let mut scope = scope_with(json!({
        "trust_level": 3, "human_confirmed_at": confirmed_at, "approval_digest": "00".repeat(32), "purpose": "report"
    }));
    let digest = parsed(&scope).compute_approval_digest().unwrap();
    scope["approval_digest"] = json!(to_hex(&digest));
    change(&mut scope);
    scope
}

#[test]
fn an_approval_is_for_exactly_this_scope() {
    let mismatch = ("APPROVAL_DIGEST_MISMATCH", "CIBA_DIGEST_VALIDATION");
    assert_eq!(accept(approved(NOW, |_| {})), OK);
    assert_eq!(accept(approved(NOW, |scope| scope["resource"] = json!("**"))), mismatch);
    assert_eq!(accept(approved(NOW, |scope| scope["purpose"] = json!("other"))), mismatch);
    assert_eq!(accept(approved(NOW, |scope| scope["action"] = json!(["read", "write"]))), mismatch);
    assert_eq!(accept(approved(NOW, |scope| scope["constraints"] = json!({"max_rows": 9}))), mismatch);
}

#[test]
fn an_approval_is_neither_old_nor_from_the_future() {
    let expired = ("CIBA_APPROVAL_EXPIRED", "CIBA_VALIDATION");
    for (confirmed_at, expected) in [
        (NOW - 300, OK),
        (NOW - 301, expired),
        (NOW + 60, OK),
        (NOW + 61, expired),
        (1, expired),
        (u64::MAX, expired),
    ] {
        assert_eq!(accept(approved(confirmed_at, |_| {})), expected, "{confirmed_at}");
    }
}

#[test]
fn an_intent_must_be_the_one_that_was_hashed() {
    let intent =
        |hash: String| accept(scope_with(json!({"user_raw_intent": "list it", "intent_hash": hash})));
    assert_eq!(intent(to_hex(&Sha256::digest("list it"))), OK);
    let failed = ("INTENT_INTEGRITY_FAILED", "INTENT_HASH_CHECK");
    assert_eq!(intent(to_hex(&Sha256::digest("delete it"))), failed);
}

fn parent() -> Value {
    scope_with(json!({
        "delegation_depth": 2, "action": ["read", "list"],
        "constraints": {"max_rows": 10, "allowed_parameters": {"path": "/reports/*"}}
    }))
}

fn child_of(parent: &Value, fields: Value) -> Value {
    let mut child = parent.clone();
    child["delegation_depth"] = json!(1);
    child["parent_token_hash"] = json!(to_base64url(&hash_of(&parsed(parent)).unwrap()));
    for (name, value) in object(fields) {
        child[name] = value;
    }
    child
}

#[test]
fn a_child_counts_only_after_its_parent_was_spent_here() {
    let server = Server::new();
    let child = Forge::new(2, &child_of(&parent(), json!({})));
    assert_eq!(names(server.accept(&child)), INSUFFICIENT);
    // To verify the parent is not enough.
    drop(server.verify(&Forge::new(1, &parent()), &reading()).unwrap());
    assert_eq!(names(server.accept(&child)), INSUFFICIENT);
    server.accept(&Forge::new(1, &parent())).unwrap();
    assert_eq!(names(server.accept(&child)), OK);
    assert_eq!(names(server.accept(&child)).0, "TOKEN_REPLAYED");
    // The child may be a parent in turn, down to depth 0.
    let grandchild = child_of(&child_of(&parent(), json!({})), json!({"delegation_depth": 0}));
    assert_eq!(names(server.accept(&Forge::new(3, &grandchild))), OK);
    let too_deep = child_of(&grandchild, json!({"delegation_depth": 0}));
    assert_eq!(names(server.accept(&Forge::new(4, &too_deep))), INSUFFICIENT);
}

#[test]
fn a_child_never_allows_more_than_its_parent() {
    let narrower = [
        json!({}),
        json!({"action": "list", "resource": "docs/a"}),
        json!({"constraints": {"max_rows": 3, "allowed_parameters": {}}}),
        json!({"require_pop": false, "trust_level": 0}),
    ];
    let wider = [
        json!({"delegation_depth": 2}),
        json!({"action": ["read", "write"]}),
        json!({"resource": "*"}),
        json!({"resource": "**"}),
        json!({"trust_level": 2}),
        json!({"sub": "agent-key:2"}),
        json!({"agent_instance_id": "agent-2"}),
        json!({"constraints": null}),
        json!({"constraints": {"allowed_parameters": {"path": "/reports/*"}}}),
        json!({"constraints": {"max_rows": 11, "allowed_parameters": {"path": "/reports/*"}}}),
        json!({"constraints": {"max_rows": 10}}),
        json!({"constraints": {"max_rows": 10, "allowed_parameters": {"path": "/**"}}}),
    ];
    for (fields, expected) in
        narrower.map(|fields| (fields, OK)).into_iter().chain(wider.map(|fields| (fields, INSUFFICIENT)))
    {
        let server = Server::new();
        server.accept(&Forge::new(1, &parent())).unwrap();
        let child = Forge::new(2, &child_of(&parent(), fields.clone()));
        let asked = Request { arguments: Arguments::Plain(None), ..Request::new(TOOL) };
        assert_eq!(names(server.present(&child, &asked)), expected, "{fields}");
    }
}

#[test]
fn parents_that_did_not_pass_do_not_count() {
    let server = Server::new();
    let refused = Forge::new(1, &parent());
    assert_eq!(names(server.present(&refused, &Request::new("other"))), INSUFFICIENT);
    assert_eq!(names(server.accept(&Forge::new(2, &child_of(&parent(), json!({}))))), INSUFFICIENT);
}

/// A child that asks for every resource under a parent that has one folder: at the minter's and here.
fn widening_is_refused(parent: &Value, child: &Value) {
    assert_eq!(check_attenuation(&parsed(child), &parsed(parent)), Err(Widening::Resource));
    let server = Server::new();
    let request = Request::new(TOOL);
    server.present(&Forge::new(1, parent), &request).unwrap();
    let mut child = child.clone();
    child["parent_token_hash"] = json!(to_base64url(&hash_of(&parsed(parent)).unwrap()));
    assert_eq!(names(server.present(&Forge::new(2, &child), &request)), INSUFFICIENT);
}

#[test]
fn the_widening_attack_is_refused_at_mint_and_at_verification() {
    let parent = scope_with(json!({"resource": "public/*", "delegation_depth": 2}));
    for resource in ["*", "**", "public/**", "public/*/x", "public", "*/*"] {
        let child = scope_with(json!({"resource": resource, "delegation_depth": 1}));
        widening_is_refused(&parent, &child);
    }
}

#[test]
fn the_published_widening_attack_is_refused_at_mint_and_at_verification() {
    let Some(folder) = published_vectors() else { return };
    let text = std::fs::read_to_string(folder.join("r40-attenuation.json")).unwrap();
    let vector: Value = serde_json::from_str(&text).unwrap();
    let ours = |scope: &Value| {
        let mut scope = scope.clone();
        for field in ["aud", "org_id", "tool"] {
            scope[field] = scope_json()[field].clone();
        }
        scope
    };
    widening_is_refused(&ours(&vector["parent"]), &ours(&vector["child"]));
}

#[test]
fn proof_of_possession_binds_the_token_to_its_arguments() {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let with_key = || session().with_pop_key(signing.verifying_key().as_bytes()).unwrap();
    let token = Forge::new(1, &scope_with(json!({"require_pop": true})));
    let arguments = object(json!({"query": "rows", "n": 1.0}));
    let proof_over = |arguments: Option<&Map<String, Value>>| {
        let hash = arguments_hash(arguments).unwrap();
        signing.sign(&possession_transcript(SESSION, &token.jti(), &hash)).to_bytes()
    };
    let check = |session, arguments, proof: Option<&[u8]>| {
        let server = Server::with_session(session, |builder| builder);
        names(server.present(&token, &Request { arguments, proof, ..reading() }))
    };
    let failed = ("POP_FAILED", "POP_VERIFICATION");
    let good = proof_over(Some(&arguments));
    assert_eq!(check(with_key(), Arguments::Plain(Some(&arguments)), Some(&good)), OK);
    assert_eq!(check(with_key(), Arguments::Plain(None), Some(&proof_over(None))), OK);
    assert_eq!(check(with_key(), Arguments::Plain(Some(&arguments)), None), ("POP_REQUIRED", "POP_MISSING"));
    assert_eq!(check(with_key(), Arguments::Plain(None), Some(&good)), failed);
    assert_eq!(check(with_key(), Arguments::Unseen, Some(&good)), failed);
    assert_eq!(check(session(), Arguments::Plain(Some(&arguments)), Some(&good)), failed);
    assert_eq!(check(with_key(), Arguments::Plain(Some(&arguments)), Some(&good[..63])), failed);
    let other = SigningKey::from_bytes(&[8; 32]).sign(b"something else").to_bytes();
    assert_eq!(check(with_key(), Arguments::Plain(Some(&arguments)), Some(&other)), failed);
}

#[test]
fn a_proof_that_was_not_asked_for_is_not_looked_at() {
    assert_eq!(present(scope_json(), &Request { proof: Some(b"nonsense"), ..reading() }), OK);
}
