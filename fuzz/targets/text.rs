//! Any text as base64url: there is one text for any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_token::text::{from_base64url, to_base64url};

fuzz_target!(|data: &[u8]| {
    if let Ok(bytes) = from_base64url(data) {
        assert_eq!(to_base64url(&bytes).as_bytes(), data, "two texts read as the same bytes");
    }
});
