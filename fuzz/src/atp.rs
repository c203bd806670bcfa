//! For the targets of the Agent Token Protocol: a slow canonical form that shares no code with the quick one, and the first
//! inputs.

use obol_atp::jwt::{Algorithm, JwtKey};
use serde_json::{Value, json};

const HMAC: &str = include_str!("../../tests/vectors/atp/hmac.json");
const JWT: &str = include_str!("../../tests/vectors/atp/jwt.json");
const MALFORMED: &str = include_str!("../../tests/vectors/atp/malformed.json");

/// RFC 8785 as its text says, for objects without fractions: sorted by UTF-16, one character at a time.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<_>>());
            let members = members.iter().map(|(name, value)| format!("{}:{}", text(name), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

fn text(string: &str) -> String {
    let mut out = String::from('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// The live keys: one of each algorithm.
pub fn keys() -> Vec<JwtKey> {
    [("harbour-1", Algorithm::Hs256), ("harbour-2", Algorithm::EdDsa)]
        .map(|(kid, algorithm)| JwtKey::new(kid, algorithm, [9; 32]).expect("the name is plain"))
        .into()
}

fn parsed(file: &str) -> Value {
    serde_json::from_str(file).expect("the vectors are JSON")
}

fn texts(list: &Value, member: &str) -> Vec<Vec<u8>> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(|entry| entry.get(member)?.as_str().map(|text| text.as_bytes().to_vec())).collect()
}

/// Sound bodies with their signatures, and malformed ones.
pub fn bodies() -> Vec<Vec<u8>> {
    let mut bodies = texts(&parsed(MALFORMED), "text");
    for vector in parsed(HMAC)["vectors"].as_array().into_iter().flatten() {
        let mut body = vector["body"].clone();
        body["signature"] = vector["signature"].clone();
        bodies.push(body.to_string().into_bytes());
    }
    bodies
}

/// Documents of both dialects.
pub fn documents() -> Vec<Vec<u8>> {
    let url = "https://api.example.com/t";
    [
        json!({"auth": {"agent_token_endpoint": url, "atp_version": "1", "canonicalization": "jcs",
            "signature_alg": "HMAC-SHA256", "timestamp_unit": "ms", "agent_token_verify_endpoint": "https://a.api.example.com/v"}}),
        json!({"auth": {"agent_tokens": {"issue": format!("POST {url}"), "rotate": format!("POST {url}/{{id}}/rotate"),
            "revoke": format!("DELETE {url}/{{id}}")}}}),
        json!({"auth": {"agent_token_endpoint": "https://u@api.example.com:8443/%2e%2e/x?y#z"}}),
    ]
    .map(|document| document.to_string().into_bytes())
    .into()
}

/// Tokens of the vectors, and sound ones of the live keys.
pub fn tokens() -> Vec<Vec<u8>> {
    let file = parsed(JWT);
    let mut tokens = texts(&file["refused"], "token");
    tokens.extend(texts(&file["accepted"], "token"));
    tokens
}
