//! Any bytes as the first message of a handshake: the service takes those that a client made for it, byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::handshake::{Genuine, ORIGIN, Seeded};
use obol_fuzz::seeds;
use obol_handshake::Responder;

fuzz_target!(init: seeds::write_if_asked("handshake_hello"), |data: &[u8]| {
    let world = Genuine::get();
    let accepted = Responder::accept(ORIGIN, &world.service, data, b"{}", &mut Seeded(7)).is_ok();
    let genuine = world.messages.iter().any(|messages| messages.hello == data);
    assert_eq!(accepted, genuine);
});
