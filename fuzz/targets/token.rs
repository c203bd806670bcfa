//! Any bytes as a token: parsing and opening never panic, and nothing opens that was not minted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_token::{Envelope, MutualAuth, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret};

fuzz_target!(|data: &[u8]| {
    let Ok(envelope) = Envelope::parse(data) else { return };
    let session = SessionMaterial::new(
        SessionId(0xDEAD_BEEF),
        Suite::Tbac,
        SessionKey::from_bytes([1; 32]),
        VerifierSecret::from_bytes([2; 32]),
        MutualAuth::from_bytes([3; 32]),
        [4; 32],
    );
    assert!(session.open(&envelope).is_err(), "a token nobody minted opened");
});
