//! Known answers that were not computed by this project's code: `tests/vectors/atp`, and another folder of the same form
//! where `OBOL_ATP_VECTORS` names one.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::AgentId;
use crate::body::{BodyError, RevokeBody, Signed, TokenBody};
use crate::jwt::{self, Algorithm, Claims, JwtKey};
use crate::signature::{Secret, canonical, sign_atp_body, verify_atp_signature};

fn folders() -> Vec<PathBuf> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/atp"));
    core::iter::once(own).chain(std::env::var_os("OBOL_ATP_VECTORS").map(PathBuf::from)).collect()
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    folders()
        .iter()
        .map(|folder| serde_json::from_slice(&std::fs::read(folder.join(name)).expect(name)).expect(name))
        .collect()
}

#[derive(Deserialize)]
struct HmacFile {
    vectors: Vec<HmacVector>,
}

#[derive(Deserialize)]
struct HmacVector {
    name: String,
    secret: String,
    body: Map<String, Value>,
    canonical: String,
    signature: String,
    #[serde(default)]
    texts: Vec<String>,
    outside_the_schema: Option<String>,
}

#[test]
fn every_text_of_a_value_has_the_signature_of_the_vectors() {
    for vector in read::<HmacFile>("hmac.json").into_iter().flat_map(|file| file.vectors) {
        let key = vector.secret.as_bytes();
        assert_eq!(sign_atp_body(&vector.body, key).as_deref(), Ok(&*vector.signature), "{}", vector.name);
        for text in &vector.texts {
            let body: Map<String, Value> = serde_json::from_str(text).unwrap();
            assert_eq!(canonical(&body).unwrap(), vector.canonical.as_bytes(), "{}: {text}", vector.name);
            assert!(verify_atp_signature(&body, &vector.signature, key), "{}: {text}", vector.name);
        }
    }
}

fn verified(text: &[u8], key: &Secret) -> Result<bool, BodyError> {
    if text.windows(8).any(|bytes| bytes == b"\"action\"") {
        return Signed::<RevokeBody<'_>>::parse(text).map(|signed| signed.verify(key, key).is_some());
    }
    Signed::<TokenBody<'_>>::parse(text).map(|signed| signed.verify(key, key).is_some())
}

#[test]
fn a_token_endpoint_takes_exactly_the_vectors_within_the_schema() {
    let mut taken = 0;
    for vector in read::<HmacFile>("hmac.json").into_iter().flat_map(|file| file.vectors) {
        let fit = Secret::new(vector.secret.as_bytes()).is_ok();
        let key = Secret::of_any_length(vector.secret.as_bytes());
        for text in &vector.texts {
            let mut body: Map<String, Value> = serde_json::from_str(text).unwrap();
            body.insert("signature".into(), vector.signature.clone().into());
            let outcome = verified(&serde_json::to_vec(&body).unwrap(), &key);
            let no_scopes =
                vector.body.get("scopes").is_some_and(|scopes| scopes.as_array().is_some_and(Vec::is_empty));
            if vector.outside_the_schema.is_none() {
                assert!(fit && outcome == Ok(true), "{}: {outcome:?}", vector.name);
                taken += 1;
            } else {
                // An empty list of scopes has a sound form; it is refused when scopes are granted.
                assert!(!fit || no_scopes || outcome.is_err(), "{}: {outcome:?}", vector.name);
            }
        }
    }
    assert!(taken > 10);
}

#[derive(Deserialize)]
struct AgentIdFile {
    seed: Vec<Seed>,
    keyed: Vec<Keyed>,
}

#[derive(Deserialize)]
struct Seed {
    name: String,
    hostname: String,
    username: String,
    machine_id_as_read: String,
    agent_id: String,
}

#[derive(Deserialize)]
struct Keyed {
    machine_id: String,
    host: String,
    agent_id: String,
}

#[test]
fn agent_ids_are_those_of_the_vectors() {
    for file in read::<AgentIdFile>("agent-id.json") {
        for seed in file.seed {
            let id = AgentId::from_machine(&seed.hostname, &seed.username, &seed.machine_id_as_read);
            assert_eq!(id.to_string(), seed.agent_id, "{}", seed.name);
        }
        for keyed in file.keyed {
            assert_eq!(AgentId::keyed(&keyed.machine_id, &keyed.host).to_string(), keyed.agent_id);
        }
    }
}

#[derive(Deserialize)]
struct JwtFile {
    issuer: String,
    now: u64,
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Accepted {
    key_hex: Option<String>,
    seed_hex: Option<String>,
    header: String,
    claims: String,
    token: String,
}

#[derive(Deserialize)]
struct Refused {
    why: String,
    token: String,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: String,
}

#[test]
fn tokens_are_made_and_refused_as_in_the_vectors() {
    for file in read::<JwtFile>("jwt.json") {
        let mut keys = Vec::new();
        for accepted in &file.accepted {
            let header: Header = serde_json::from_str(&accepted.header).unwrap();
            let bytes = accepted.key_hex.as_ref().or(accepted.seed_hex.as_ref()).unwrap();
            let key =
                JwtKey::new(&header.kid, header.alg, obol_secret::text::from_hex(bytes).unwrap()).unwrap();
            let claims: Claims = serde_json::from_str(&accepted.claims).unwrap();
            assert_eq!(key.mint(&claims), accepted.token);
            keys.push(key);
            assert_eq!(jwt::read(&keys, &accepted.token, &file.issuer, file.now), Some(claims));
        }
        for refused in &file.refused {
            assert_eq!(jwt::read(&keys, &refused.token, &file.issuer, file.now), None, "{}", refused.why);
        }
        assert!(!file.refused.is_empty());
    }
}

#[derive(Deserialize)]
struct Malformed {
    name: String,
    text: String,
    status: u16,
}

#[test]
fn malformed_bodies_are_refused_before_any_key_is_looked_at() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/atp/malformed.json");
    let all: Vec<Malformed> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for case in &all {
        let outcome = Signed::<TokenBody<'_>>::parse(case.text.as_bytes());
        assert!(outcome.is_err(), "{}", case.name);
        assert_eq!(case.status == 413, case.text.len() > crate::MAX_BODY_BYTES, "{}", case.name);
    }
    assert!(all.len() > 100);
}
