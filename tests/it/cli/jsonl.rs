//! `obol verify --jsonl`: the protocol line by line.

use obol_conformance::{MAX_LINE_BYTES, run};
use obol_token::delegation::hash_of;
use obol_token::text::{to_base64url, to_hex};
use obol_world::forge::Forge;
use obol_world::scope::{parsed, scope_json, scope_with};
use obol_world::{AUDIENCE, KEYS, NOW, ORG, SESSION, TOOL};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::token::known_answers::published_vectors;

/// What is answered to these lines, one JSON value each.
fn answers(input: &[u8]) -> Vec<Value> {
    let mut output = Vec::new();
    run(input, &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    assert!(output.is_empty() || output.ends_with('\n'));
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ask(lines: &[Value]) -> Vec<Value> {
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    answers(input.as_bytes())
}

fn ask_one(line: Value) -> Value {
    let [answer] = ask(&[line]).try_into().unwrap();
    answer
}

fn session_fields() -> Value {
    json!({
        "K_session": to_hex(&KEYS.session_key), "verifier_secret": to_hex(&KEYS.verifier_secret),
        "mutual_auth": to_hex(&KEYS.mutual_auth), "SEK_PK": to_hex(&KEYS.sek_public),
        "session_id": SESSION.to_string(), "org_id": ORG,
        "window": {"start": NOW - 100, "duration": 1_000}
    })
}

fn verify_line(token: &Forge) -> Value {
    json!({
        "op": "verify", "token_b64url": token.text(), "session": session_fields(),
        "rs": {"aud": AUDIENCE, "now": NOW, "policy_epoch": 1, "request": {"tool": TOOL}}
    })
}

/// The line with other or more fields; `/` in a name leads inside.
fn with(mut line: Value, fields: Value) -> Value {
    for (path, value) in fields.as_object().unwrap() {
        let (last, inside) =
            path.rsplit_once('/').map_or((path.as_str(), ""), |(inside, last)| (last, inside));
        let place =
            if inside.is_empty() { &mut line } else { line.pointer_mut(&format!("/{inside}")).unwrap() };
        place[last] = value.clone();
    }
    line
}

fn code(answer: &Value) -> &str {
    if answer["ok"] == true { "ok" } else { answer["code"].as_str().unwrap() }
}

fn invalid(answer: &Value) -> &str {
    assert_eq!(
        (answer["ok"].as_bool(), code(answer), answer["failed_check"].as_str()),
        (Some(false), "INVALID_REQUEST", Some("JSONL")),
        "{answer}"
    );
    answer["error"].as_str().unwrap()
}

#[test]
fn an_accepted_token_is_answered_with_its_scope() {
    let token = Forge::standard(1);
    let answer = ask_one(verify_line(&token));
    assert_eq!(
        answer,
        json!({"ok": true, "scope": scope_json(), "jti": token.jti().as_str(), "session_id": SESSION.as_u64().to_string()})
    );
}

#[test]
fn refusals_have_code_and_check_and_nothing_else() {
    let token = Forge::standard(1);
    let line = with(verify_line(&token), json!({"rs/request": {"tool": "delete"}}));
    let refusal =
        json!({"ok": false, "code": "INSUFFICIENT_PRIVILEGE", "failed_check": "TBAC_SCOPE_EVALUATION"});
    assert_eq!(ask_one(line), refusal);
    let mut absent = verify_line(&token);
    absent.as_object_mut().unwrap().remove("token_b64url");
    assert_eq!(
        ask_one(absent),
        json!({"ok": false, "code": "TBAC_REQUIRED", "failed_check": "TOKEN_ABSENT"})
    );
}

#[test]
fn stores_last_for_the_process_unless_a_line_has_its_own_or_they_are_reset() {
    let line = verify_line(&Forge::standard(1));
    let fresh = with(line.clone(), json!({"fresh": true}));
    let lines =
        [&fresh, &line, &line, &fresh, &fresh, &json!({"op": "reset"}), &line, &line].map(Value::clone);
    let codes: Vec<_> = ask(&lines).iter().map(|answer| code(answer).to_owned()).collect();
    assert_eq!(codes, ["ok", "ok", "TOKEN_REPLAYED", "ok", "ok", "ok", "ok", "TOKEN_REPLAYED"]);
}

#[test]
fn a_name_is_spent_for_every_token_that_bears_it() {
    let first = Forge::standard(1);
    let others = [0, 1, 29, 30, 60].map(|later| {
        Forge::standard(1).with(|token| {
            token.issued_at += later;
            token.expires_at = token.issued_at + 60 - later / 2;
        })
    });
    let mut lines = vec![verify_line(&first)];
    lines.extend(others.iter().map(verify_line));
    let codes: Vec<_> = ask(&lines).iter().map(|answer| code(answer).to_owned()).collect();
    assert_eq!(codes[0], "ok");
    assert!(codes[1..].iter().all(|code| code == "TOKEN_REPLAYED"), "{codes:?}");
}

#[test]
fn every_field_of_a_verify_line_counts() {
    let line = || verify_line(&Forge::standard(1));
    let cases = [
        (json!({"token_b64url": null, "token_hex": to_hex(&Forge::standard(1).token())}), "ok"),
        (json!({"token_b64url": "AAAA"}), "MALFORMED_TOKEN"),
        (json!({"token_b64url": null, "token_hex": ""}), "MALFORMED_TOKEN"),
        (json!({"session": null}), "SESSION_NOT_FOUND"),
        (json!({"session/session_id": "0000000000000001"}), "SESSION_NOT_FOUND"),
        (json!({"session/status": "active"}), "ok"),
        (json!({"session/status": "suspended"}), "SESSION_EXPIRED"),
        (json!({"session/org_id": "other"}), "ORG_ID_MISMATCH"),
        (json!({"session/window": {"start": NOW - 9, "end": NOW}}), "ok"),
        (json!({"session/window": {"start": NOW - 9, "end": NOW - 1}}), "SESSION_EXPIRED"),
        (json!({"session/window": {"start": NOW - 9, "duration": 8}}), "SESSION_EXPIRED"),
        (json!({"session/window": {"start": NOW, "duration": u64::MAX}}), "ok"),
        (json!({"session/K_session": "00".repeat(32)}), "INVALID_SIGNATURE"),
        (json!({"rs/aud": "https://other"}), "AUD_MISMATCH"),
        (json!({"rs/now": NOW + 121}), "STALE_TIMESTAMP"),
        (json!({"rs/now": NOW + 121, "rs/clock_skew": 61}), "ok"),
        (json!({"rs/max_ttl": 59}), "STALE_TIMESTAMP"),
        (json!({"rs/policy_epoch": 2}), "EPOCH_EXPIRED"),
        (json!({"rs/template": {}}), "ok"),
        (json!({"rs/template": null}), "INSUFFICIENT_PRIVILEGE"),
        (json!({"rs/template": {"allowed_actions": ["write"]}}), "INSUFFICIENT_PRIVILEGE"),
        (json!({"rs/template": {"min_trust_level": 2}}), "INSUFFICIENT_PRIVILEGE"),
        (
            json!({"rs/request": {"tool": TOOL, "action": "read", "resource": "docs/a", "arguments": {}}}),
            "ok",
        ),
        (json!({"rs/request": {"tool": TOOL, "action": "write"}}), "INSUFFICIENT_PRIVILEGE"),
        (json!({"rs/request": {"tool": TOOL, "resource": "private"}}), "INSUFFICIENT_PRIVILEGE"),
    ];
    for (fields, expected) in cases {
        let answer = ask_one(with(line(), fields.clone()));
        assert_eq!(code(&answer), expected, "{fields}: {answer}");
    }
}

#[test]
fn encrypted_requests_and_limited_arguments_are_told_apart() {
    let scope = scope_with(json!({
        "constraints": {"require_channel_encryption": true, "allowed_parameters": {"q": "rows*"}}
    }));
    let line = verify_line(&Forge::new(1, &scope));
    let request = |fields: Value| {
        let request = with(json!({"tool": TOOL}), fields);
        code(&ask_one(with(line.clone(), json!({"rs/request": request})))).to_owned()
    };
    assert_eq!(request(json!({"encrypted": true, "arguments": {"q": "rows 1"}})), "ok");
    assert_eq!(
        request(json!({"encrypted": false, "arguments": {"q": "rows 1"}})),
        "CHANNEL_ENCRYPTION_REQUIRED"
    );
    assert_eq!(request(json!({"encrypted": true, "arguments": {"q": "other"}})), "INSUFFICIENT_PRIVILEGE");
}

#[test]
fn proofs_of_possession_travel_as_in_mcp() {
    use ed25519_dalek::{Signer, SigningKey};
    let signing = SigningKey::from_bytes(&[7; 32]);
    let token = Forge::new(1, &scope_with(json!({"require_pop": true})));
    let line =
        with(verify_line(&token), json!({"session/pop_pub": to_hex(signing.verifying_key().as_bytes())}));
    assert_eq!(code(&ask_one(line.clone())), "POP_REQUIRED");
    let hash = obol_verify::arguments_hash(None).unwrap();
    let transcript = obol_token::possession_transcript(SESSION, &token.jti(), &hash);
    let pop = |alg: &str, sig: &[u8]| {
        ask_one(with(line.clone(), json!({"rs/request/pop": {"alg": alg, "sig": to_base64url(sig)}})))
    };
    assert_eq!(code(&pop("Ed25519", &signing.sign(&transcript).to_bytes())), "ok");
    assert_eq!(code(&pop("Ed25519", &[0; 64])), "POP_FAILED");
    assert!(invalid(&pop("RS256", &[0; 64])).contains("rs.request.pop.alg"));
}

#[test]
fn parents_count_as_spent_here() {
    let parent = scope_with(json!({"delegation_depth": 1}));
    let mut child = scope_json();
    child["parent_token_hash"] = json!(to_base64url(&hash_of(&parsed(&parent)).unwrap()));
    let child = Forge::new(2, &child);
    assert_eq!(code(&ask_one(verify_line(&child))), "INSUFFICIENT_PRIVILEGE");
    assert_eq!(code(&ask_one(with(verify_line(&child), json!({"parents": [parent]})))), "ok");
    // Spending the parent in an earlier line is the same.
    let answers = ask(&[verify_line(&Forge::new(1, &parent)), verify_line(&child)]);
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), ["ok", "ok"]);
}

#[test]
fn lines_that_cannot_be_read_are_answered_and_do_not_stop_the_stream() {
    let good = verify_line(&Forge::standard(1));
    let twice = |name: &str, member: &str| good.to_string().replace(name, &format!("{member},{name}"));
    let cases: [(String, &str); 21] = [
        (String::new(), "the document"),
        ("not json".to_owned(), "the document"),
        ("[]".to_owned(), "the document"),
        (r#"{"op":"spend"}"#.to_owned(), "op: expected"),
        (r#"{"op":"reset","all":true}"#.to_owned(), "all"),
        (format!("{good}{good}"), "something follows"),
        (with(good.clone(), json!({"extra": 1})).to_string(), "extra"),
        (with(good.clone(), json!({"rs/extra": 1})).to_string(), "rs.extra"),
        (with(good.clone(), json!({"session/extra": 1})).to_string(), "session.extra"),
        (with(good.clone(), json!({"rs/template": {"max_row": 1}})).to_string(), "rs.template.max_row"),
        (with(good.clone(), json!({"rs/now": -1})).to_string(), "rs.now: expected u64"),
        (with(good.clone(), json!({"token_hex": "00"})).to_string(), "exclude each other"),
        (with(good.clone(), json!({"session/window": {"start": 1}})).to_string(), "session.window"),
        (
            with(good.clone(), json!({"session/K_session": "00"})).to_string(),
            "session.K_session: expected 64",
        ),
        // A list is not an object, not even an empty one: this would be a template without limits.
        (with(good.clone(), json!({"rs/template": []})).to_string(), "rs.template: expected"),
        (
            with(good.clone(), json!({"session/window": [NOW - 9, 99]})).to_string(),
            "session.window: expected",
        ),
        (with(good.clone(), json!({"rs/request": [TOOL]})).to_string(), "rs.request: expected"),
        (r#"["verify"]"#.to_owned(), "the document"),
        // A name stands once in an object.
        (twice(r#""op""#, r#""op":"reset""#), "duplicate field"),
        (twice(r#""tool""#, r#""\u0074ool":"x""#), "duplicate field"),
        (twice(r#""tool""#, r#""arguments":{"a":{"b":1,"b":1}}"#), "duplicate field"),
    ];
    let mut input = String::new();
    for (line, _) in &cases {
        input += line;
        input.push('\n');
    }
    input += &good.to_string();
    let answers = answers(input.as_bytes());
    assert_eq!(answers.len(), cases.len() + 1);
    for ((line, expected), answer) in cases.iter().zip(&answers) {
        assert!(invalid(answer).contains(expected), "{line}: {answer}");
    }
    assert_eq!(code(answers.last().unwrap()), "ok", "a last line without an end counts too");
}

#[test]
fn lines_are_bounded() {
    let good = verify_line(&Forge::standard(1)).to_string();
    let mut input = vec![b'x'; 3 * MAX_LINE_BYTES];
    input.extend_from_slice(b"\n\xff\xfe\n");
    input.extend_from_slice(good.as_bytes());
    input.push(b'\n');
    // The longest line that is still read.
    let padding = MAX_LINE_BYTES - r#"{"op":"reset"}"#.len();
    input.extend_from_slice(format!("{{\"op\":\"reset\"{}}}\n", " ".repeat(padding)).as_bytes());
    input.extend_from_slice(format!("{{\"op\":\"reset\"{}}}", " ".repeat(padding + 1)).as_bytes());
    let answers = answers(&input);
    assert!(invalid(&answers[0]).contains("longer than 1048576 bytes"));
    invalid(&answers[1]);
    assert_eq!((code(&answers[2]), code(&answers[3])), ("ok", "ok"));
    assert!(invalid(&answers[4]).contains("longer than 1048576 bytes"));
}

#[test]
fn secrets_are_not_repeated_in_answers() {
    let secret = "5ec7e7".repeat(10);
    for field in [
        "session/K_session",
        "session/window",
        "rs/now",
        "rs/template",
        "session",
        "fresh",
        "rs/request/arguments",
    ] {
        let answer = ask_one(with(verify_line(&Forge::standard(1)), json!({field: secret})));
        assert!(!answer.to_string().contains("5ec7e7"), "{answer}");
    }
}

fn mint_line(fields: Value) -> Value {
    with(
        json!({"op": "mint", "session": session_fields(), "scope": scope_json(), "iat": NOW, "exp": NOW + 60, "policy_epoch": 1}),
        fields,
    )
}

fn mint_then_verify(mint: Value) -> (String, Value) {
    let minted = ask_one(mint);
    let token = minted["token_b64url"].as_str().unwrap().to_owned();
    let answer = ask_one(with(verify_line(&Forge::standard(1)), json!({"token_b64url": token})));
    (token, answer)
}

#[test]
fn what_is_minted_verifies() {
    let (one, answer) = mint_then_verify(mint_line(json!({})));
    assert_eq!(answer["scope"], scope_json());
    let (other, _) = mint_then_verify(mint_line(json!({})));
    assert_ne!(one, other, "randomness is real where none is given");
    let given =
        json!({"jti": "AAECAwQFBgcICQoLDA0ODw", "iv": "00".repeat(12), "response_key": "11".repeat(32)});
    let (one, answer) = mint_then_verify(mint_line(given.clone()));
    assert_eq!(answer["jti"], "AAECAwQFBgcICQoLDA0ODw");
    assert_eq!(mint_then_verify(mint_line(given)).0, one, "nothing is left to chance where all is given");
}

#[test]
fn the_session_says_which_suite() {
    for suite in 1..=4 {
        let mut mint = mint_line(json!({}));
        mint["session"]["suite"] = json!(suite);
        let minted = ask_one(mint);
        let token = minted["token_b64url"].as_str().unwrap_or_else(|| panic!("suite {suite}: {minted}"));
        let mut verify =
            with(verify_line(&Forge::standard(1)), json!({"token_b64url": token, "fresh": true}));
        for other in 1..=4 {
            verify["session"]["suite"] = json!(other);
            let expected = if other == suite { "ok" } else { "MALFORMED_TOKEN" };
            assert_eq!(code(&ask_one(verify.clone())), expected, "suite {suite} as {other}");
        }
    }
    for wrong in [json!(0), json!(5), json!("1"), json!(null), json!(-1)] {
        let mut mint = mint_line(json!({}));
        mint["session"]["suite"] = wrong;
        assert!(invalid(&ask_one(mint)).contains("suite"));
    }
}

#[test]
fn scopes_that_break_their_own_rules_are_not_minted() {
    let cases = [
        (json!({"scope/trust_level": 4}), "SCOPE_FIELD_MISSING"),
        (json!({"scope/tool": ""}), "SCOPE_FIELD_MISSING"),
        (json!({"scope/purpose": "x".repeat(40_000)}), "MALFORMED_TOKEN"),
        (
            json!({"scope/user_raw_intent": "x".repeat(4_097), "scope/intent_hash": "00".repeat(32)}),
            "INTENT_PAYLOAD_TOO_LARGE",
        ),
        (json!({"exp": NOW - 1}), "MALFORMED_TOKEN"),
        (json!({"scope/exp": NOW}), "INVALID_REQUEST"),
        (json!({"jti": "short"}), "INVALID_REQUEST"),
        (json!({"iv": "00"}), "INVALID_REQUEST"),
        (json!({"r_tok_seed": "00"}), "INVALID_REQUEST"),
        (json!({"session": null}), "INVALID_REQUEST"),
    ];
    for (fields, expected) in cases {
        assert_eq!(code(&ask_one(mint_line(fields.clone()))), expected, "{fields}");
    }
}

#[test]
fn a_delegated_scope_that_widens_is_not_minted() {
    let parent = scope_with(json!({"resource": "public/*", "delegation_depth": 2}));
    let child =
        |fields: Value| with(scope_with(json!({"resource": "public/a", "delegation_depth": 1})), fields);
    let mint = |child: Value, more: Value| ask_one(mint_line(with(json!({"scope": child}), more)));
    let exceeded = json!({
        "ok": false, "code": "INSUFFICIENT_PRIVILEGE", "failed_check": "TBAC_SCOPE_EVALUATION",
        "error": "ScopeCeilingExceeded"
    });
    for more in [json!({"parent": parent}), json!({"parents": [parent]})] {
        assert_eq!(mint(child(json!({"resource": "*"})), more.clone()), exceeded);
        assert_eq!(mint(child(json!({"delegation_depth": 2})), more.clone()), exceeded);
        assert_eq!(code(&mint(child(json!({})), more)), "ok");
    }
    let hash = json!(to_base64url(&hash_of(&parsed(&parent)).unwrap()));
    let named = child(json!({"parent_token_hash": hash}));
    assert_eq!(code(&mint(named.clone(), json!({"parents": [scope_json(), parent]}))), "ok");
    assert_eq!(mint(named, json!({"parents": [scope_json()]}))["error"], "ParentNotFound");
    invalid(&mint(child(json!({})), json!({"parents": [scope_json(), parent]})));
    // The hash is filled in, so that the child verifies once its parent was spent.
    let minted = mint(child(json!({})), json!({"parent": parent}));
    let line = with(verify_line(&Forge::standard(1)), json!({"token_b64url": minted["token_b64url"]}));
    let answers = ask(&[line.clone(), verify_line(&Forge::new(9, &parent)), line]);
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), ["INSUFFICIENT_PRIVILEGE", "ok", "ok"]);
}

#[test]
fn the_published_token_is_minted_byte_for_byte_and_accepted_once() {
    let Some(folder) = published_vectors() else { return };
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let (inputs, expected) = (read("inputs.json"), read("expected.json"));
    let hash_of_source = |name: &str| to_hex(&Sha256::digest(inputs[name].as_str().unwrap()));
    let seed = to_hex(&Sha256::digest("conformance-vector-rtok-seed-v1"));
    let session = json!({
        "K_session": inputs["K_session_hex"], "verifier_secret": hash_of_source("verifier_secret_src"),
        "mutual_auth": hash_of_source("mutual_auth_src"), "session_id": inputs["session_id_hex"],
        // 7·G, as the specification prints it.
        "SEK_PK": "44f53520926ec81fbd5a387845beb7df85a96a24ece18738bdcfa6a7822a176d",
        "org_id": "org-a-prod", "window": {"start": 1_741_305_000, "duration": 3_600}
    });
    for r_tok_seed in [seed.clone(), seed.repeat(2)] {
        let mint = json!({
            "op": "mint", "session": session, "scope": inputs["scope"], "iat": inputs["iat"], "exp": inputs["exp"],
            "policy_epoch": inputs["policy_epoch"], "jti": inputs["jti"], "iv": inputs["token_iv_hex"],
            "response_key": hash_of_source("response_key_src"), "r_tok_seed": r_tok_seed
        });
        let minted = ask_one(mint);
        let token =
            obol_token::text::from_base64url(minted["token_b64url"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(to_hex(&token), expected["token_hex"]);
    }
    let verify = json!({
        "op": "verify", "token_hex": expected["token_hex"], "session": session,
        "rs": {
            "aud": "https://rs.example.com/mcp", "now": 1_741_305_605, "policy_epoch": 1,
            "request": {"tool": "query_database", "action": "read", "encrypted": true}
        }
    });
    let answers = ask(&[verify.clone(), verify]);
    assert_eq!(answers[0]["scope"], inputs["scope"]);
    assert_eq!((&answers[0]["jti"], &answers[0]["session_id"]), (&inputs["jti"], &json!("3735928559")));
    assert_eq!(code(&answers[1]), "TOKEN_REPLAYED");
}
