//! Any bytes as a cookie: the service opens those that it sealed, byte for byte, for the purpose they were made for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::handshake::{Genuine, NOW};
use obol_fuzz::seeds;
use obol_handshake::{Pending, Purpose};

fuzz_target!(init: seeds::write_if_asked("handshake_cookie"), |data: &[u8]| {
    let world = Genuine::get();
    let genuine = world.messages.iter().any(|messages| messages.cookie == data);
    for purpose in Purpose::ALL {
        let opened = Pending::open(data, purpose, &world.ring, NOW).is_ok();
        assert_eq!(opened, genuine && purpose == Purpose::Session);
    }
});
