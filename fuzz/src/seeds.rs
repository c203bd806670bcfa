//! The first inputs of every target, made from the project's own vectors and from this crate's world, so that none
//! have to be kept in the repository.

use std::fs;
use std::path::PathBuf;

use obol_stream::{Item, What, Word, frame};
use obol_token::text::{bytes_from_hex, to_base64url, to_hex};
use obol_token::{Scope, Suite};
use serde_json::{Value, json};

use crate::atp;
use crate::canonical::body_scope;
use crate::handshake::{Genuine, Messages};
use crate::mcp;
use crate::mutation::{BYTE_STEPS, FIELDS, TEXT_STEPS};
use crate::policy;
use crate::world::{AUDIENCE, Keys, NOW, ORG, TOOL, World};

const VECTORS: [&str; 4] = [
    include_str!("../../tests/vectors/token-suite1.json"),
    include_str!("../../tests/vectors/token-suite2.json"),
    include_str!("../../tests/vectors/token-suite3.json"),
    include_str!("../../tests/vectors/token-suite4.json"),
];

/// Writes the seeds of `target` and ends the process, where the variable `OBOL_FUZZ_SEEDS` names a folder for them.
/// Does nothing otherwise.
pub fn write_if_asked(target: &str) {
    let Some(folder) = std::env::var_os("OBOL_FUZZ_SEEDS").map(PathBuf::from) else { return };
    fs::create_dir_all(&folder).expect("the folder for seeds can be made");
    for (number, seed) in of(target).into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed).expect("a seed can be written");
    }
    std::process::exit(0);
}

/// The seeds of one target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "token" => tokens(),
        "body" => scopes().into_iter().map(|scope| body(&scope)).collect(),
        "scope" => scopes(),
        "parameter" => parameters(),
        "resource" => resources(),
        "text" => tokens().iter().map(|token| to_base64url(token).into_bytes()).collect(),
        "frame" => frames(),
        "jsonl" => jsonl(),
        "document" => documents(),
        "mutation" => mutations(),
        "handshake_hello" => handshakes(|messages| &messages.hello),
        "handshake_reply" => handshakes(|messages| &messages.reply),
        "handshake_proof" => handshakes(|messages| &messages.proof),
        "handshake_cookie" => handshakes(|messages| &messages.cookie),
        "catalogue" => {
            vec![policy::CATALOGUE.into(), policy::CATALOGUE.replace("\n", "\r\n").into(), Vec::new()]
        }
        "policy" => vec![policy::POLICIES.into(), policy::POLICIES.replace("permit", "forbid").into()],
        "stream" => streams(),
        "mcp" => mcp::seeds(),
        "atp_body" => atp::bodies(),
        "atp_document" => atp::documents(),
        "atp_jwt_header" => atp::tokens(),
        _ => panic!("no target of this name: {target}"),
    }
}

/// One message of every handshake that was made.
fn handshakes(message: impl Fn(&Messages) -> &Vec<u8>) -> Vec<Vec<u8>> {
    Genuine::get().messages.iter().map(|messages| message(messages).clone()).collect()
}

/// Items and words as they are read, and streams of them as they come from the network.
fn streams() -> Vec<Vec<u8>> {
    let items = [
        Item::Listed { seq: 7 }.to_bytes(),
        Item::Heartbeat { head: 9, now: NOW }.to_bytes(),
        Item::Happened { seq: 9, prev: 7, what: What::AgentEnabled }.to_bytes(),
        Item::Refused { code: "REVOKED".to_owned(), detail: "gone".to_owned() }.to_bytes(),
    ];
    let plain = items.iter().map(|item| item.to_vec()).chain([Word::Applied { seq: 7 }.to_bytes()]);
    let framed: Vec<u8> = items.iter().flat_map(|item| frame(item)).collect();
    plain.chain([framed]).map(|seed| [&[15][..], &seed].concat()).collect()
}

/// The vectors' entries.
pub fn vectors() -> impl Iterator<Item = Value> {
    VECTORS.into_iter().flat_map(|file| match serde_json::from_str(file) {
        Ok(Value::Array(entries)) => entries,
        _ => panic!("the vectors are a list"),
    })
}

fn hex_in(entry: &Value, path: &str) -> Vec<u8> {
    let text = entry.pointer(path).and_then(Value::as_str);
    text.and_then(bytes_from_hex).unwrap_or_else(|| panic!("{path} is hex in every vector"))
}

/// Every token of the vectors.
pub fn vector_tokens() -> Vec<Vec<u8>> {
    vectors().map(|entry| hex_in(&entry, "/expected/token")).collect()
}

/// The sessions of the vectors.
pub fn vector_sessions() -> Vec<Keys> {
    let key = |entry: &Value, name: &str| {
        hex_in(entry, &format!("/session/{name}")).try_into().expect("keys have 32 bytes")
    };
    vectors()
        .map(|entry| Keys {
            session_id: u64::from_be_bytes(
                hex_in(&entry, "/session/session_id").try_into().expect("session ids have 8 bytes"),
            ),
            suite: hex_in(&entry, "/expected/token")
                .get(1)
                .copied()
                .and_then(Suite::from_alg_id)
                .expect("a suite"),
            session_key: key(&entry, "session_key"),
            verifier_secret: key(&entry, "verifier_secret"),
            mutual_auth: key(&entry, "mutual_auth"),
            sek_public: key(&entry, "sek_public"),
        })
        .collect()
}

fn tokens() -> Vec<Vec<u8>> {
    vector_tokens().into_iter().chain(World::get().tokens.iter().cloned()).collect()
}

fn scopes() -> Vec<Vec<u8>> {
    let own = obol_world::scope::scope().to_tlv().expect("the scope is sound");
    let with_vendor_tag = [own.as_slice(), &[0x80, 1, 7]].concat();
    vectors().map(|entry| hex_in(&entry, "/expected/scope_tlv")).chain([own, with_vendor_tag]).collect()
}

/// A token's body around a scope.
fn body(scope: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    match u16::try_from(scope.len()) {
        Ok(length @ ..0x80) => body.push(length.to_le_bytes()[0]),
        Ok(length) => body.extend_from_slice(&(length | 0x8000).to_be_bytes()),
        Err(_) => panic!("scopes are short"),
    }
    body.extend_from_slice(scope);
    for tag in 2..=5 {
        body.extend_from_slice(&[tag, 32]);
        body.extend_from_slice(&[tag; 32]);
    }
    assert_eq!(body_scope(&body), Some(scope));
    body
}

fn parameters() -> Vec<Vec<u8>> {
    [
        ("/reports/*", "/reports/q3.pdf"),
        ("**/a?c", "x/y/abc"),
        ("\\*\\?\\\\", "*?\\"),
        ("*a*a*b", "aaaaab"),
        ("***", "a/b"),
        ("\\", "\\"),
    ]
    .map(|(pattern, argument)| {
        [pattern.as_bytes(), b"\n", argument.as_bytes(), b"\n", pattern.as_bytes()].concat()
    })
    .to_vec()
}

fn resources() -> Vec<Vec<u8>> {
    [
        ("a/**/b", "a/x/y/b"),
        ("public/*", "*"),
        ("**", "a//b"),
        ("a/b/c", "a/b"),
        ("\\*/a", "*/a"),
        ("**/*", "*/**"),
    ]
    .map(|(parent, child)| format!("{parent}\n{child}").into_bytes())
    .to_vec()
}

/// The golden frames of every socket, in each codec that they have.
fn frames() -> Vec<Vec<u8>> {
    const FILES: [&str; 6] = [
        include_str!("../../tests/vectors/ipc/hello.json"),
        include_str!("../../tests/vectors/ipc/agent.json"),
        include_str!("../../tests/vectors/ipc/as-control.json"),
        include_str!("../../tests/vectors/ipc/auth.json"),
        include_str!("../../tests/vectors/ipc/control.json"),
        include_str!("../../tests/vectors/ipc/rs-control.json"),
    ];
    let golden = |file| {
        let frames: Vec<Value> = serde_json::from_str(file).expect("golden frames are JSON");
        frames
    };
    let written = |frame: Value| {
        ["json", "bincode"].map(|codec| frame[codec].as_str().map(|text| bytes_from_hex(text).expect("hex")))
    };
    let frames = FILES.into_iter().flat_map(golden).flat_map(written).flatten();
    frames.map(|frame| [&[7], frame.as_slice()].concat()).collect()
}

fn session_fields(keys: &Keys) -> Value {
    json!({
        "K_session": to_hex(&keys.session_key), "verifier_secret": to_hex(&keys.verifier_secret),
        "mutual_auth": to_hex(&keys.mutual_auth), "SEK_PK": to_hex(&keys.sek_public),
        "session_id": format!("{:016x}", keys.session_id), "org_id": ORG, "suite": keys.suite.number(),
        "window": {"start": NOW - 100, "duration": 1_000}
    })
}

fn jsonl() -> Vec<Vec<u8>> {
    let world = World::get();
    let keys = &world.keys[0];
    let token = to_base64url(&world.tokens[0]);
    let verify = |token: &str, more: Value| {
        let mut line = json!({
            "op": "verify", "token_b64url": token, "session": session_fields(keys),
            "rs": {"aud": AUDIENCE, "now": NOW, "policy_epoch": 1, "max_ttl": 60, "clock_skew": 60,
                   "request": {"tool": TOOL, "action": "read", "resource": "docs/a", "arguments": {"q": "x"}}}
        });
        merge(&mut line, more);
        line.to_string()
    };
    let template = json!({"rs": {"template": {
        "allowed_actions": ["read"], "max_rows": 5, "max_calls": 1, "permitted_audiences": [AUDIENCE],
        "min_trust_level": 1, "max_delegation_depth": 0, "require_pop": false, "require_ciba": false
    }}});
    let scope = serde_json::to_value(obol_world::scope::scope()).expect("a scope is JSON");
    let mint = json!({
        "op": "mint", "session": session_fields(keys), "scope": scope, "iat": NOW, "exp": NOW + 60,
        "policy_epoch": 1, "jti": "AAAAAAAAAAAAAAAAAAAAAA", "iv": "000000000000000000000000",
        "response_key": "00".repeat(32), "r_tok_seed": "01".repeat(32)
    });
    let mut parent = scope.clone();
    merge(&mut parent, json!({"delegation_depth": 2}));
    let mut child = mint.clone();
    merge(&mut child, json!({"parent": parent, "scope": {"delegation_depth": 1}}));
    let reset = r#"{"op":"reset"}"#.to_owned();
    // A token of another suite, in a session of its own and in one that never negotiated it.
    let last = world.keys.len() - 1;
    let other = to_base64url(&world.tokens[world.tokens.len() - 1]);
    let own = json!({"session": session_fields(&world.keys[last])});
    [
        vec![verify(&other, own), verify(&other, json!({}))],
        vec![verify(&token, json!({})), verify(&token, json!({})), reset, verify(&token, json!({}))],
        vec![verify(&token, json!({"fresh": true})), verify(&token, json!({"session": null}))],
        vec![verify(&token, template)],
        vec![verify(&token, json!({"rs": {"template": null}}))],
        vec![verify(&token, json!({"rs": {"request": {"pop": {"alg": "Ed25519", "sig": "AAAA"}}}}))],
        vec![verify(&token, json!({"parents": [scope]}))],
        vec![verify(&token, json!({"rs": {"request": {"encrypted": true}}}))],
        vec![mint.to_string(), child.to_string()],
        vec![String::new(), "{".to_owned(), "null".to_owned()],
    ]
    .map(|lines| (lines.join("\n") + "\n").into_bytes())
    .to_vec()
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

/// A session document for a queue.
fn document(keys: &Keys) -> Value {
    json!({
        "obol_session": 1, "session_id": format!("{:016x}", keys.session_id), "suite": keys.suite.number(),
        "agent_instance_id": "agent-1", "org_id": ORG, "iss": "as.example", "sub": "agent-key:1",
        "established_at": NOW, "expires_at": NOW + 3600, "policy_epoch": 1,
        "resource_servers": [{
            "aud": AUDIENCE, "K_session": to_hex(&keys.session_key), "verifier_secret": to_hex(&keys.verifier_secret),
            "mutual_auth": to_hex(&keys.mutual_auth), "SEK_PK": to_hex(&keys.sek_public)
        }],
        "grants": [{"tool": TOOL, "aud": AUDIENCE, "action": ["read"], "resource": "docs/**", "ttl": 60,
                    "constraints": {"max_rows": 5, "allowed_parameters": {"q": "*"}}, "trust_level": 1}]
    })
}

fn documents() -> Vec<Vec<u8>> {
    let keys = &World::get().keys[0];
    let mut session = session_fields(keys);
    merge(
        &mut session,
        json!({
            "aud": AUDIENCE, "window": {"start": NOW, "end": NOW + 3600}, "status": "active",
            "policy_epoch": 1, "pop_pub": "5866666666666666666666666666666666666666666666666666666666666666"
        }),
    );
    session["window"].as_object_mut().expect("an object").remove("duration");
    let file = json!({"obol_rs_sessions": 1, "sessions": [session]});
    assert!(
        obol_verify::parse_sessions(file.to_string().as_bytes()).is_ok(),
        "a seed that is refused seeds nothing"
    );
    let scope: Scope = obol_world::scope::scope();
    let scope = serde_json::to_value(scope).expect("a scope is JSON");
    [document(keys), file, scope].map(|document| document.to_string().into_bytes()).to_vec()
}

/// One bit of every field of a token of every suite, then one input for each step. See `targets/mutation.rs` for what
/// the bytes mean.
fn mutations() -> Vec<Vec<u8>> {
    let fields =
        (0..FIELDS).flat_map(|field| [0, 4, 8, 12].map(|token| vec![token, 0, 0, 1, 0, 1, field, 0, 0]));
    let bytes = (0..BYTE_STEPS).map(|step| vec![0, 0, 0, 1, step, 0, 3, 5, 1, 0, 9]);
    let text = (0..TEXT_STEPS).map(|step| vec![0, 1, 0, 0, 1, 0, 2, step, 1]);
    let request = (0..8).map(|kind| vec![0, 0, kind, 0, 0, b'x', b'x', b'x']);
    fields.chain(bytes).chain(text).chain(request).collect()
}
