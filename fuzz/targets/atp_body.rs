//! Any bytes as a signed body. What is read has the canonical form that a slow independent writer gives; and a signed body
//! with bytes changed verifies only if it says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_atp::{RevokeBody, Secret, Signed, TokenBody};
use obol_fuzz::{atp, seeds};
use serde_json::Value;

const SIGNED: &str = r#"{"agent_id":"1b02bfe114e87544e3cb8670cc40220cf69ccee6b8a12a11cf7dffdeac13990c","purpose":"p","scopes":["a","b"],"timestamp":1764547200123"#;

fuzz_target!(init: seeds::write_if_asked("atp_body"), |data: &[u8]| {
    let key = Secret::of_any_length(b"a key that no input knows");
    let bytes = match (Signed::<TokenBody<'_>>::parse(data), Signed::<RevokeBody<'_>>::parse(data)) {
        (Ok(_), Ok(_)) => panic!("one body is of one kind"),
        (Ok(body), Err(_)) => Some((body.canonical(), body.verify(&key, &key).is_some())),
        (Err(_), Ok(body)) => Some((body.canonical(), body.verify(&key, &key).is_some())),
        (Err(_), Err(_)) => None,
    };
    if let Some((bytes, verified)) = bytes {
        let mut value: Value = serde_json::from_slice(data).expect("what is accepted is JSON");
        value.as_object_mut().expect("it is an object").remove("signature");
        assert_eq!(String::from_utf8(bytes), Ok(atp::canonical(&value)));
        assert!(!verified, "nobody knows the key");
    }
    mutate(data, &key);
});

/// Takes the input as pairs of place and byte to write into a signed body.
fn mutate(data: &[u8], key: &Secret) {
    let canonical = format!("{SIGNED}}}");
    let signature = key.sign(canonical.as_bytes());
    let mut text = format!(r#"{SIGNED},"signature":"{signature}"}}"#).into_bytes();
    let length = text.len();
    for pair in data.chunks_exact(2) {
        let place = usize::from(pair[0]) * length / 256;
        text[place.min(length - 1)] = pair[1];
    }
    if let Ok(body) = Signed::<TokenBody<'_>>::parse(&text) {
        let same = body.canonical() == canonical.as_bytes();
        assert_eq!(body.verify(key, key).is_some() && !same, false, "another body verifies");
    }
}
