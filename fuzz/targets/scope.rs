//! Any bytes as a scope: what is read is written back as the same bytes, unless vendor tags were skipped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_token::Scope;

fuzz_target!(|data: &[u8]| {
    let Ok(scope) = Scope::from_tlv(data) else { return };
    let written = scope.to_tlv().expect("what was read can be written");
    assert!(written.len() <= data.len());
    if written.len() == data.len() {
        assert_eq!(written, data, "there is one canonical form");
    }
    assert_eq!(Scope::from_tlv(&written).as_ref(), Ok(&scope));
});
