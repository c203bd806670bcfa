//! Any bytes as a token: only one whose first segment is that of a live key, byte for byte, reaches a key, and none opens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_atp::jwt;
use obol_fuzz::{atp, seeds};
use obol_token::text::to_base64url;

fuzz_target!(init: seeds::write_if_asked("atp_jwt_header"), |data: &[u8]| {
    let Ok(token) = str::from_utf8(data) else { return };
    let keys = atp::keys();
    let first = token.split('.').next().unwrap_or_default();
    let expected = [("HS256", "harbour-1"), ("EdDSA", "harbour-2")].into_iter().find_map(|(alg, kid)| {
        let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{kid}"}}"#);
        (to_base64url(header.as_bytes()) == first && token.contains('.')).then_some(kid)
    });
    let found = jwt::key_of(&keys, token).map(|key| key.kid());
    assert_eq!(found, expected.filter(|_| token.len() <= jwt::MAX_TOKEN_BYTES));
    assert_eq!(jwt::read(&keys, token, "https://tokens.harbour.example", 0), None, "nobody knows the keys");
});
