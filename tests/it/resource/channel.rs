//! Proof of possession and per-token channel encryption over HTTP: the layer and the service.

use core::net::SocketAddr;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use axum::Json;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::post;
use ed25519_dalek::{Signer, SigningKey};
use obol_resource::service::Options;
use obol_resource::{Gate, MAX_SEALED_BYTES, SEALED_CONTENT_TYPE, SpentToken, TbacLayer, ToolCall};
use obol_token::text::{from_base64url, to_base64url};
use obol_token::{ChannelKeys, Jti, ResponseKey, possession_transcript};
use obol_verify::arguments_hash;
use obol_world::forge::Forge;
use obol_world::scope::scope_with;
use obol_world::server::{Server, session};
use obol_world::{SESSION, TOOL};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::running::Running;
use crate::end_to_end::api;
use crate::resource::{self, Answer, refusal};

/// The private half of the fixture's session key for proofs.
fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[0x77; 32])
}

/// A server with every route twice: behind the layer, and as the service.
struct Site {
    _runtime: Runtime,
    server: Server,
    app: SocketAddr,
    service: Running,
}

impl Site {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let session = session().with_pop_key(signing_key().verifying_key().as_bytes()).unwrap();
        let server = Server::with_session(session, |builder| builder);
        let gate = Gate::new(server.verifier.clone());
        let (app, service) = runtime.block_on(async {
            let app = api::listen(routes(&gate)).await;
            let options = Options::new("127.0.0.1:0".parse().unwrap());
            (app, Running::start(options.bind(gate).await.unwrap()))
        });
        Self { _runtime: runtime, server, app, service }
    }

    /// A request to a route behind the layer.
    fn call(&self, route: &str, token: &Forge, more: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!(
            "POST {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: TBAC {}\r\nContent-Length: \
             {}\r\n",
            token.text(),
            body.len()
        );
        for (name, value) in more {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        resource::send(self.app, [head.as_bytes(), b"\r\n", body].concat())
    }

    fn plain(&self, token: &Forge, arguments: &Value, proof: Option<&str>) -> Answer {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(proof.map(|proof| ("TBAC-PoP", proof)));
        self.call("/echo", token, &headers, arguments.to_string().as_bytes())
    }

    fn sealed(&self, route: &str, token: &Forge, body: &[u8]) -> Answer {
        self.call(route, token, &[("Content-Type", SEALED_CONTENT_TYPE)], body)
    }

    fn verify(&self, token: &Forge, more: Value) -> Answer {
        let mut body = json!({"token": token.text(), "tool": TOOL});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource::post(self.service.local_addr(), "/v1/verify", &body.to_string())
    }
}

fn routes(gate: &Gate) -> Router {
    /// Says what it was told, and that nothing of the token reached it.
    async fn echo(_token: SpentToken, headers: axum::http::HeaderMap, body: String) -> impl IntoResponse {
        assert!(!headers.contains_key("authorization") && !headers.contains_key("tbac-pop"));
        assert_eq!(headers["content-length"], *body.len().to_string());
        let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap());
        ([("etag", "\"1\"")], Json(json!({"type": kind, "body": body})))
    }
    async fn keeps_the_keys(token: SpentToken) -> String {
        token.take_channel_keys().unwrap();
        "secret".to_owned()
    }
    async fn talkative(_token: SpentToken) -> String {
        "secret".repeat(MAX_SEALED_BYTES)
    }
    async fn silent(_token: SpentToken) -> axum::http::StatusCode {
        axum::http::StatusCode::NO_CONTENT
    }
    async fn fails(_token: SpentToken) -> (axum::http::StatusCode, &'static str) {
        (axum::http::StatusCode::CONFLICT, "secret")
    }
    let layer = || TbacLayer::new(gate.clone(), ToolCall::new(TOOL).action("read"));
    Router::new()
        .route("/echo", post(echo))
        .route("/keeps", post(keeps_the_keys))
        .route("/talkative", post(talkative))
        .route("/silent", post(silent))
        .route("/fails", post(fails))
        .route_layer(layer().json_arguments())
        .merge(Router::new().route("/blind", post(echo)).route_layer(layer()))
}

fn requiring_proof(number: u64) -> Forge {
    Forge::new(number, &scope_with(json!({"require_pop": true})))
}

fn requiring_encryption(number: u64) -> Forge {
    let constraints = json!({"require_channel_encryption": true, "allowed_parameters": {"q": "rows*"}});
    Forge::new(number, &scope_with(json!({"constraints": constraints})))
}

/// A proof over the published concatenation, with no code of the crates but the hash's.
fn proof(token: &Forge, canonical: &str) -> [u8; 64] {
    use sha2::{Digest, Sha256};
    let mut bytes = b"tbac-pop-v1".to_vec();
    bytes.extend_from_slice(&SESSION.as_u64().to_be_bytes());
    bytes.extend_from_slice(&[0, 22]);
    bytes.extend_from_slice(token.jti().as_bytes());
    bytes.extend_from_slice(&Sha256::digest(canonical));
    signing_key().sign(&Sha256::digest(bytes)).to_bytes()
}

fn proof_text(token: &Forge, canonical: &str) -> String {
    to_base64url(&proof(token, canonical))
}

fn keys(token: &Forge) -> ChannelKeys {
    ChannelKeys::derive(SESSION, &token.jti(), &ResponseKey::from_bytes(token.response_key))
}

/// Nonce, ciphertext and tag, as the body of a request.
fn seal(token: &Forge, plaintext: &str) -> Vec<u8> {
    let iv = [9; 12];
    [&iv[..], &keys(token).seal_request(&iv, plaintext.as_bytes()).unwrap()].concat()
}

/// What a sealed response says.
fn open(token: &Forge, answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-type"), Some(SEALED_CONTENT_TYPE));
    assert_eq!(answer.header("content-length"), Some(&*answer.bytes.len().to_string()));
    assert_eq!(answer.header("etag"), None);
    let (iv, ciphertext) = answer.bytes.split_first_chunk().unwrap();
    assert_eq!(iv, keys(token).response_iv());
    keys(token).open_response(iv, ciphertext).unwrap()
}

fn malformed() -> (u16, String, String) {
    refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING")
}

#[test]
fn a_proof_of_possession_covers_the_canonical_arguments() {
    let site = Site::new();
    let token = requiring_proof(1);
    let arguments = json!({"q": "rows", "n": 1.50});
    let sig = proof_text(&token, r#"{"n":1.5,"q":"rows"}"#);
    assert_eq!(site.plain(&token, &arguments, None).problem(), refusal(401, "POP_REQUIRED", "POP_MISSING"));
    let failed = refusal(401, "POP_FAILED", "POP_VERIFICATION");
    // Of another token, of other arguments, and not made with this session's key.
    let others = proof_text(&requiring_proof(2), r#"{"n":1.5,"q":"rows"}"#);
    let anothers = to_base64url(&SigningKey::from_bytes(&[0x78; 32]).sign(b"x").to_bytes());
    for wrong in [&others, &proof_text(&token, r#"{"n":1.5,"q":"all"}"#), &anothers] {
        assert_eq!(site.plain(&token, &arguments, Some(wrong)).problem(), failed);
    }
    for unreadable in ["", "AAAA", &format!("{sig}=")] {
        assert_eq!(site.plain(&token, &arguments, Some(unreadable)).problem(), malformed());
    }
    let twice =
        [("Content-Type", "application/json"), ("TBAC-PoP", sig.as_str()), ("tbac-pop", sig.as_str())];
    let body = arguments.to_string();
    assert_eq!(site.call("/echo", &token, &twice, body.as_bytes()).problem(), malformed());
    // None of that burned the token.
    assert_eq!(site.plain(&token, &arguments, Some(&sig)).status, 200);
    let again = site.plain(&token, &arguments, Some(&sig));
    assert_eq!(again.problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));

    let token = requiring_proof(3);
    let nothing = site.call("/echo", &token, &[("TBAC-PoP", &proof_text(&token, "{}"))], b"");
    assert_eq!((nothing.status, &nothing.json()["body"]), (200, &json!("")));
}

#[test]
fn the_service_takes_proofs_as_a_field() {
    let site = Site::new();
    let token = requiring_proof(1);
    let canonical = r#"{"q":"rows"}"#;
    let ask = |pop: Value| site.verify(&token, json!({"arguments": {"q": "rows"}, "pop": pop}));
    let sig = proof_text(&token, canonical);
    assert_eq!(ask(Value::Null).problem(), refusal(401, "POP_REQUIRED", "POP_MISSING"));
    assert_eq!(ask(json!({"alg": "none", "sig": sig})).problem(), malformed());
    assert_eq!(ask(json!({"alg": "Ed25519", "sig": "AA"})).problem(), malformed());
    assert_eq!(ask(json!({"alg": "Ed25519", "sig": sig, "more": 1})).problem(), malformed());
    let wrong = proof_text(&token, "{}");
    assert_eq!(ask(json!({"alg": "Ed25519", "sig": wrong})).problem().1, "POP_FAILED");
    assert_eq!(ask(json!({"alg": "Ed25519", "sig": sig})).status, 200);
}

#[test]
fn sealed_arguments_must_name_the_suites_own_algorithm() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let body = seal(&token, r#"{"q":"rows"}"#);
    let (iv, ciphertext) = body.split_at(12);
    let ask = |alg: &str| {
        let enc = json!({"alg": alg, "iv": to_base64url(iv), "ct": to_base64url(ciphertext)});
        site.verify(&token, json!({"enc": enc}))
    };
    for other in ["ChaCha20-Poly1305", "aes-256-gcm", "none"] {
        assert_eq!(ask(other).problem(), malformed(), "{other}");
    }
    assert_eq!(ask("AES-256-GCM").status, 200, "and nothing of that burned the token");
}

/// What the API reads is what was signed: by whichever way the arguments come, and however their reader takes numbers.
#[test]
fn a_proof_covers_each_number_exactly() {
    const FAR: [(&str, &str); 4] = [
        ("9007199254740992", "9007199254740993"),
        ("18446744073709552000", "18446744073709551615"),
        ("-9007199254740992", "-9007199254740993"),
        ("1000000000000000000", "1000000000000000001"),
    ];
    const ROUNDED: [(&str, &str); 3] =
        [("0.1", "0.10000000000000001"), ("1", "1.0000000000000000001"), ("0", "1e-400")];
    const SAME: [(&str, &str); 4] =
        [("5", "5"), ("9007199254740992", "9007199254740992"), ("1.5", "1.50"), ("100", "1e2")];
    let site = Site::new();
    let arguments = |number: &str| format!(r#"{{"to":{number}}}"#);
    let service = |number, signed: &str, sent: &str| {
        let token = requiring_proof(number);
        let sig = proof_text(&token, &arguments(signed));
        let body = format!(
            r#"{{"token":"{}","tool":"{TOOL}","arguments":{},"pop":{{"alg":"Ed25519","sig":"{sig}"}}}}"#,
            token.text(),
            arguments(sent)
        );
        resource::post(site.service.local_addr(), "/v1/verify", &body)
    };
    let layer = |number, signed: &str, sent: &str| {
        let token = requiring_proof(number);
        let sig = proof_text(&token, &arguments(signed));
        let headers = [("Content-Type", "application/json"), ("TBAC-PoP", sig.as_str())];
        site.call("/echo", &token, &headers, arguments(sent).as_bytes())
    };
    for (number, (signed, sent)) in (1..).zip(SAME) {
        assert_eq!(service(number, signed, sent).status, 200, "{sent}");
        assert_eq!(layer(100 + number, signed, sent).status, 200, "{sent}");
    }
    let failed = refusal(401, "POP_FAILED", "POP_VERIFICATION");
    for (number, (signed, sent)) in (200..).zip(FAR) {
        assert_eq!(service(number, signed, sent).problem(), failed, "{sent}");
        assert_eq!(layer(number, signed, sent).problem(), failed, "{sent}");
    }
    for (number, (signed, sent)) in (300..).zip(ROUNDED) {
        assert_eq!(service(number, signed, sent).problem(), failed, "{sent}");
        let answer = layer(number, signed, sent).json();
        let read: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let as_signed: Value = serde_json::from_str(&arguments(signed)).unwrap();
        assert_eq!(
            read["to"].as_f64(),
            as_signed["to"].as_f64(),
            "the handler reads what was signed: {sent}"
        );
    }
}

#[test]
fn a_sealed_request_gets_a_sealed_response_once() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let body = seal(&token, r#"{ "q": "rows of x" }"#);
    let answer = site.sealed("/echo", &token, &body);
    assert_eq!(answer.status, 200, "{:?}", answer.bytes);
    assert_eq!(answer.header("tbac-sealed-type"), Some("application/json"));
    let opened: Value = serde_json::from_slice(&open(&token, &answer)).unwrap();
    assert_eq!(opened, json!({"type": "application/json", "body": r#"{"q":"rows of x"}"#}));
    let again = site.sealed("/echo", &token, &body);
    assert_eq!(again.problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));
}

#[test]
fn a_token_that_asks_for_encryption_is_refused_in_the_clear_and_not_burned() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let required = refusal(403, "CHANNEL_ENCRYPTION_REQUIRED", "CHANNEL_ENCRYPTION_MISSING");
    assert_eq!(site.plain(&token, &json!({"q": "rows"}), None).problem(), required);
    assert_eq!(site.call("/echo", &token, &[], b"").problem(), required);
    assert_eq!(site.verify(&token, json!({"arguments": {"q": "rows"}})).problem(), required);
    let body = seal(&token, r#"{"q":"rows"}"#);
    assert_eq!(site.sealed("/blind", &token, &body).problem(), required, "a route that reads no arguments");
    assert_eq!(site.sealed("/echo", &token, &body).status, 200);
}

#[test]
fn the_limits_hold_for_sealed_arguments_too() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let insufficient = refusal(403, "INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION");
    assert_eq!(site.sealed("/echo", &token, &seal(&token, r#"{"q":"all"}"#)).problem(), insufficient);
    for no_object in ["[1]", "\"q\"", "", "{\"q\":\"rows\"} {}", "\u{fffd}"] {
        assert_eq!(site.sealed("/echo", &token, &seal(&token, no_object)).problem(), malformed());
    }
    // Of a name that stands twice one reader takes the first and another the last.
    for twice in [r#"{"q":"all","q":"rows"}"#, r#"{"q":"rows","q":"all"}"#] {
        assert_eq!(site.sealed("/echo", &token, &seal(&token, twice)).problem(), malformed());
    }
    assert_eq!(site.sealed("/echo", &token, &seal(&token, r#"{"q":"rows"}"#)).status, 200);
}

#[test]
fn nothing_opens_but_what_was_sealed_as_a_request_for_this_token() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let good = seal(&token, r#"{"q":"rows"}"#);
    let of_another_token = seal(&requiring_encryption(2), r#"{"q":"rows"}"#);
    let another_key = seal(&token.clone().with(|token| token.response_key = [0x56; 32]), r#"{"q":"rows"}"#);
    let response = keys(&token);
    let iv = *response.response_iv();
    let swapped = [&iv[..], &response.seal_response(br#"{"q":"rows"}"#).unwrap()].concat();
    let mut refused = vec![of_another_token, another_key, swapped];
    for place in [0, 12, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[place] ^= 1;
        refused.push(damaged);
    }
    refused.push(good[..good.len() - 1].to_vec());
    refused.push(good[..27].to_vec());
    refused.push(Vec::new());
    refused.push([&good[..], b"\0"].concat());
    for body in refused {
        assert_eq!(site.sealed("/echo", &token, &body).problem(), malformed());
    }
    assert_eq!(site.server.spent.marks(), Some(0));
    let answer = site.sealed("/echo", &token, &good);
    let sealed = answer.bytes.split_at(12).1;
    assert!(
        keys(&token).open_request(keys(&token).response_iv(), sealed).is_err(),
        "no response is a request"
    );
    let others = keys(&requiring_encryption(2));
    assert!(others.open_response(keys(&token).response_iv(), sealed).is_err());
}

#[test]
fn nothing_is_sealed_under_a_token_that_does_not_ask_for_it() {
    let site = Site::new();
    let token = Forge::standard(1);
    assert_eq!(site.sealed("/echo", &token, &seal(&token, "{}")).problem(), malformed());
    let answer = site.plain(&token, &json!({"q": 1}), None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["body"], r#"{"q":1}"#);
}

#[test]
fn a_response_that_cannot_be_sealed_is_not_sent() {
    let site = Site::new();
    let sealed = |route, number| {
        let token = requiring_encryption(number);
        let answer = site.sealed(route, &token, &seal(&token, "{}"));
        (token, answer)
    };
    for (number, route) in [(1, "/keeps"), (2, "/talkative")] {
        let (_, answer) = sealed(route, number);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("SEALING_FAILED")));
        assert!(!answer.text().contains("secret"));
    }
    let (_, silent) = sealed("/silent", 3);
    assert_eq!((silent.status, silent.bytes.len()), (204, 0));
    let (token, failed) = sealed("/fails", 4);
    assert_eq!((failed.status, &*open(&token, &failed)), (409, &b"secret"[..]));
}

#[test]
fn a_body_is_read_only_in_one_form_and_within_bounds() {
    let site = Site::new();
    let token = Forge::standard(1);
    let json_type = ("Content-Type", "application/json; charset=utf-8");
    for (headers, body) in [
        (vec![("Content-Type", "text/plain")], "{}"),
        (vec![], "{}"),
        (vec![json_type, ("Content-Type", SEALED_CONTENT_TYPE)], "{}"),
        (vec![json_type, ("Content-Encoding", "gzip")], "{}"),
        (vec![json_type], "[]"),
        (vec![json_type], "{"),
        (vec![json_type], r#"{"q":1,"q":1}"#),
        (vec![json_type], r#"{"q":{"a":1,"\u0061":2}}"#),
    ] {
        let answer = site.call("/echo", &token, &headers, body.as_bytes());
        assert_eq!(answer.problem(), malformed(), "{headers:?} {body}");
    }
    let long = json!({"q": "x".repeat(MAX_SEALED_BYTES)}).to_string();
    assert_eq!(site.call("/echo", &token, &[json_type], long.as_bytes()).status, 413);
    assert_eq!(site.call("/echo", &token, &[json_type], b"{}").status, 200);
}

#[test]
fn the_service_refuses_arguments_that_two_readers_could_take_for_different_ones() {
    let site = Site::new();
    let constraints = json!({"allowed_parameters": {"q": "rows*"}});
    let token = Forge::new(1, &scope_with(json!({"constraints": constraints})));
    let ask = |arguments: &str| {
        let body = format!(r#"{{"token":"{}","tool":"{TOOL}","arguments":{arguments}}}"#, token.text());
        resource::post(site.service.local_addr(), "/v1/verify", &body)
    };
    // An API that reads what it was sent with another parser than ours might act on the one we did not look at.
    for twice in [r#"{"q":"all","q":"rows"}"#, r#"{"q":"rows","q":"all"}"#, r#"{"\u0071":"all","q":"rows"}"#]
    {
        let answer = ask(twice);
        assert_eq!(answer.problem(), malformed(), "{twice}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("duplicate field"), "{}", answer.text());
    }
    // Nor is a body a list of its fields.
    let listed = format!(r#"["{}","{TOOL}"]"#, token.text());
    let listed = resource::post(site.service.local_addr(), "/v1/verify", &listed);
    assert_eq!(listed.problem(), malformed());
    assert_eq!(ask(r#"{"q":"rows"}"#).status, 200, "none of that burned the token");
}

#[test]
fn the_service_opens_arguments_and_hands_out_what_seals_the_response() {
    let site = Site::new();
    let token = requiring_encryption(1);
    let enc =
        |iv: &[u8], ct: &[u8]| json!({"alg": "AES-256-GCM", "iv": to_base64url(iv), "ct": to_base64url(ct)});
    let body = seal(&token, r#"{"q":"rows"}"#);
    let good = enc(&body[..12], &body[12..]);
    let mut damaged = body.clone();
    damaged[20] ^= 1;
    let mut other_algorithm = good.clone();
    other_algorithm["alg"] = json!("AES-128-GCM");
    for wrong in [enc(&damaged[..12], &damaged[12..]), enc(&body[..11], &body[12..]), other_algorithm] {
        assert_eq!(site.verify(&token, json!({"enc": wrong})).problem(), malformed());
    }
    let both = json!({"enc": good, "arguments": {"q": "rows"}});
    assert_eq!(site.verify(&token, both).problem(), malformed());
    let answer = site.verify(&token, json!({"enc": good, "arguments": {}}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["arguments"], json!({"q": "rows"}));

    assert_eq!(answer.json()["response"]["alg"], "AES-256-GCM");
    let channel = |name: &str| from_base64url(answer.json()["response"][name].as_str().unwrap().as_bytes());
    let (key, iv, aad) = (channel("key").unwrap(), channel("iv").unwrap(), channel("aad").unwrap());
    let cipher = aes_gcm::Aes256Gcm::new(key.as_slice().try_into().unwrap());
    let nonce: [u8; 12] = iv.try_into().unwrap();
    let sealed = cipher.encrypt((&nonce).into(), Payload { msg: b"done", aad: &aad }).unwrap();
    assert_eq!(keys(&token).open_response(&nonce, &sealed).unwrap(), b"done");
    let plain = site.verify(&Forge::standard(2), json!({})).json();
    assert!(plain.get("response").is_none() && plain.get("arguments").is_none());
}

#[test]
fn proof_and_encryption_go_together() {
    let site = Site::new();
    let scope = scope_with(json!({"require_pop": true, "constraints": {"require_channel_encryption": true}}));
    let token = Forge::new(1, &scope);
    let body = seal(&token, r#"{ "q": "rows" }"#);
    let call = |proof: &str| {
        site.call("/echo", &token, &[("Content-Type", SEALED_CONTENT_TYPE), ("TBAC-PoP", proof)], &body)
    };
    assert_eq!(call(&proof_text(&token, "{}")).problem().1, "POP_FAILED", "it covers what was sealed");
    let answer = call(&proof_text(&token, r#"{"q":"rows"}"#));
    let opened: Map<String, Value> = serde_json::from_slice(&open(&token, &answer)).unwrap();
    assert_eq!(opened["body"], r#"{"q":"rows"}"#);
}

/// The document's figures were made with another implementation of everything (Python's `cryptography`).
#[test]
fn the_worked_example_in_the_protocol_document_is_right() {
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let keys = || {
        let response_key = ResponseKey::from_bytes([0x55; 32]);
        ChannelKeys::derive(SESSION, &Jti::from_random([1; 16]), &response_key)
    };
    let request = keys().seal_request(&[9; 12], br#"{"q":"rows"}"#).unwrap();
    let iv = *keys().response_iv();
    let response = keys().seal_response(br#"{"rows":3}"#).unwrap();
    let arguments = json!({"q": "rows"});
    let hash = arguments_hash(arguments.as_object()).unwrap();
    let signed = possession_transcript(SESSION, &Jti::from_random([1; 16]), &hash);
    assert!(document.contains(&format!("jti `{}`", Jti::from_random([1; 16]).as_str())));
    for (what, bytes) in [
        ("K_req", keys().request_key().to_vec()),
        ("the request's body", [&[9; 12][..], &request].concat()),
        ("K_resp", keys().response_key().to_vec()),
        ("the response's body, of `{\"rows\":3}`", [&iv[..], &response].concat()),
        ("what a proof of possession signs", signed.to_vec()),
    ] {
        let line = format!("| {what} | `{}` |", obol_token::text::to_hex(&bytes));
        assert!(document.contains(&line), "{line}");
    }
}
