//! Step 14: proof of possession (TBAC r41, section 3.5).

use ed25519_dalek::Signature;
use obol_secret::json::canonical;
use obol_token::{Jti, Scope, SessionId};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::denial::{Code, Denial, FailedCheck};
use crate::request::Arguments;
use crate::session::Session;

/// RFC 8785 of a call without arguments.
const NO_ARGUMENTS: &[u8] = b"{}";

/// SHA-256 over the canonical form of a call's arguments (RFC 8785). `None` if they have none, as where a number in them
/// lies beyond 2^53: there is more than one that a reader may take it for.
/// [`obol_token::possession_transcript`] takes it.
pub fn arguments_hash(arguments: Option<&Map<String, Value>>) -> Option<[u8; 32]> {
    let canonical = match arguments {
        Some(arguments) => canonical(arguments)?,
        None => NO_ARGUMENTS.to_vec(),
    };
    Some(Sha256::digest(canonical).into())
}

/// What a proof of possession signs, with plain Ed25519: 32 bytes, SHA-256 over label, session, token and canonical
/// arguments (TBAC r41, section 3.5). `None` if the arguments have no canonical form.
pub(crate) fn transcript(
    session_id: SessionId,
    jti: &Jti,
    arguments: Option<&Map<String, Value>>,
) -> Option<[u8; 32]> {
    Some(obol_token::possession_transcript(session_id, jti, &arguments_hash(arguments)?))
}

pub(crate) fn check(
    session: &Session,
    jti: &Jti,
    scope: &Scope,
    arguments: Arguments<'_>,
    rounded: bool,
    proof: Option<&[u8]>,
) -> Result<(), Denial> {
    if !scope.require_pop {
        return Ok(());
    }
    let Some(proof) = proof else {
        let code = Code::PopRequired;
        return Err(Denial::new(code, FailedCheck::PopMissing, "the request carries no proof of possession"));
    };
    let failed = |detail| Denial::new(Code::PopFailed, FailedCheck::PopVerification, detail);
    let arguments = match arguments {
        Arguments::Plain(arguments) | Arguments::Opened(arguments) => arguments,
        Arguments::Unseen | Arguments::Sealed { .. } => {
            return Err(failed("the proof covers arguments that this server cannot see"));
        }
    };
    let key = session.pop_key().ok_or_else(|| failed("the session has no key for proofs of possession"))?;
    let signature = Signature::from_slice(proof).map_err(|_| failed("the proof is no Ed25519 signature"))?;
    // Whoever reads the arguments themselves may see another number than was signed.
    let transcript = match rounded {
        true => None,
        false => transcript(session.session_id(), jti, arguments),
    };
    let transcript = transcript.ok_or_else(|| failed("the arguments have no canonical form"))?;
    // Strict: no signature is accepted that other implementations might refuse.
    key.verify_strict(&transcript, &signature).map_err(|_| failed("the proof does not hold"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(arguments: Option<Value>) -> [u8; 32] {
        let arguments = arguments.map(|value| value.as_object().unwrap().clone());
        transcript(SessionId::from_u64(7), &Jti::from_random([1; 16]), arguments.as_ref()).unwrap()
    }

    #[test]
    fn absent_and_empty_arguments_are_the_same() {
        assert_eq!(of(None), of(Some(json!({}))));
    }

    #[test]
    fn arguments_are_canonical_before_they_are_hashed() {
        let text = r#"{"peach":"x","péché":1e2,"pêche":0.000001,"sin":-0.0,"nested":{"b":[1.50,"\u20ac\u000a"],"a":null}}"#;
        let canonical = "{\"nested\":{\"a\":null,\"b\":[1.5,\"€\\n\"]},\"peach\":\"x\",\"péché\":100,\"pêche\":0.000001,\"sin\":0}";
        let arguments: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json_canonicalizer::to_string(&arguments).unwrap(), canonical);
        assert_eq!(of(Some(Value::Object(arguments))), of(Some(serde_json::from_str(canonical).unwrap())));
    }

    #[test]
    fn the_transcript_is_the_published_concatenation() {
        let jti = Jti::from_random([1; 16]);
        let mut bytes = b"tbac-pop-v1\0\0\0\0\0\0\0\x07\0\x16".to_vec();
        bytes.extend_from_slice(jti.as_bytes());
        bytes.extend_from_slice(&Sha256::digest(br#"{"q":"rows"}"#));
        assert_eq!(of(Some(json!({"q": "rows"}))), <[u8; 32]>::from(Sha256::digest(bytes)));
    }
}
