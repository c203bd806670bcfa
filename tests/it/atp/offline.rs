//! Tokens that others check by themselves: what `jwks.json` holds is enough for that, and holds nothing else.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use ed25519_dalek::{Signature, VerifyingKey};
use obol_atp::jwt::Algorithm;
use obol_atp_server::{Router, SecretBook};
use obol_token::text::from_base64url;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

const MASTER: &str = "the long-lived credential of the build server";
const MAX_BYTES: usize = 8 << 10;

fn provider(algorithm: Algorithm) -> axum::Router {
    let hash: String = Sha256::digest(MASTER).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = json!({"obol_atp": 1, "masters": [{"name": "ci", "sha256": hash, "scopes": ["read"]}]});
    let router = Router::builder("https://api.example.com/v1/agent-tokens".parse().unwrap())
        .secrets(SecretBook::parse(file.to_string().as_bytes()).unwrap())
        .scopes(["read"])
        .algorithm(algorithm)
        .build()
        .unwrap();
    axum::Router::new().nest("/v1/agent-tokens", router.into())
}

async fn call(provider: &axum::Router, method: &str, path: &str, body: &str) -> Value {
    let request = Request::builder().method(method).uri(format!("/v1/agent-tokens{path}"));
    let request = request.header("content-type", "application/json").header("x-api-key", MASTER);
    let answer = provider.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    serde_json::from_slice(&to_bytes(answer.into_body(), MAX_BYTES).await.unwrap()).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    from_base64url(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_key_set_holds_public_keys_alone_and_they_check_tokens_offline() {
    let offline = provider(Algorithm::EdDsa);
    let keys = call(&offline, "GET", "/jwks.json", "").await;
    let [key] = &keys["keys"].as_array().unwrap()[..] else { panic!("{keys}") };
    let mut names: Vec<_> = key.as_object().unwrap().keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"], "no private part: {keys}");
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into()));

    let issued = call(&offline, "POST", "/issue", r#"{"scopes":["read"]}"#).await;
    let token = issued["token"].as_str().unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let header: Value = serde_json::from_slice(&bytes(message.split('.').next().unwrap())).unwrap();
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key["kid"]}));
    let public: [u8; 32] = bytes(key["x"].as_str().unwrap()).try_into().unwrap();
    let public = VerifyingKey::from_bytes(&public).unwrap();
    let signature = Signature::from_slice(&bytes(signature)).unwrap();
    public.verify_strict(message.as_bytes(), &signature).unwrap();
    let changed = message.replacen('.', ".A", 1);
    assert!(public.verify_strict(changed.as_bytes(), &signature).is_err(), "control");

    let keys = call(&provider(Algorithm::Hs256), "GET", "/jwks.json", "").await;
    assert_eq!(keys, json!({"keys": []}), "a key that also makes tokens is shown to nobody");
}
