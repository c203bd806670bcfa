//! Any text as base64url and as hex, against decoders that go bit by bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{seeds, text};
use obol_token::text::{bytes_from_hex, from_base64url, from_hex, to_base64url, to_hex};
use obol_token::{Jti, MAX_TOKEN_TEXT, SessionId};

fuzz_target!(init: seeds::write_if_asked("text"), |data: &[u8]| {
    assert_eq!(to_base64url(data).as_bytes(), text::to_base64url(data));
    let expected = text::from_base64url(data).filter(|_| data.len() <= MAX_TOKEN_TEXT);
    assert_eq!(from_base64url(data).ok(), expected);

    assert_eq!(text::from_hex(&to_hex(data)).as_deref(), Some(data));
    if let Ok(digits) = str::from_utf8(data) {
        let expected = text::from_hex(digits);
        assert_eq!(bytes_from_hex(digits), expected);
        let eight: Option<[u8; 8]> = expected.and_then(|bytes| bytes.try_into().ok());
        assert_eq!(from_hex::<8>(digits), eight);
        assert_eq!(SessionId::parse(digits), eight.map(|bytes| SessionId::from_u64(u64::from_be_bytes(bytes))));
    }
    if let Some(jti) = Jti::parse(data) {
        assert_eq!(jti.as_bytes().as_slice(), data);
    }
});
