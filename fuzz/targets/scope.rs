//! Any bytes as a scope: only canonical bytes are read, what is read is written back as the same bytes, and JSON says
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::canonical::without_vendor_tags;
use obol_fuzz::seeds;
use obol_token::Scope;

fuzz_target!(init: seeds::write_if_asked("scope"), |data: &[u8]| {
    let Ok(scope) = Scope::from_tlv(data) else { return };
    let canonical = without_vendor_tags(data).expect("only canonical bytes are read");
    let written = scope.to_tlv().expect("what was read can be written");
    assert_eq!(written, canonical, "there is one canonical form");
    assert_eq!(Scope::from_tlv(&written).as_ref(), Ok(&scope));

    let json = serde_json::to_string(&scope).expect("a scope is JSON");
    let read: Scope = serde_json::from_str(&json).expect("what was written can be read");
    assert_eq!(read, scope, "JSON says the same");
    scope.compute_approval_digest().expect("what was read can be hashed");
});
