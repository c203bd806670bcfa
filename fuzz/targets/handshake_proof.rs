//! Any bytes as the last message of a handshake: the service takes those that its client made, byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::handshake::{Genuine, NOW};
use obol_fuzz::seeds;
use obol_handshake::{Pending, Proof, Purpose};

fuzz_target!(init: seeds::write_if_asked("handshake_proof"), |data: &[u8]| {
    let world = Genuine::get();
    let accepted = Proof::read(data)
        .ok()
        .and_then(|proof| {
            let pending = Pending::open(proof.cookie, Purpose::Session, &world.ring, NOW).ok()?;
            pending.finish(proof.message).ok()
        })
        .is_some();
    assert_eq!(accepted, world.messages.iter().any(|messages| messages.proof == data));
});
