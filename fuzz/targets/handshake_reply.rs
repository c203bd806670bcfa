//! Any bytes as the answer to a first message: a client takes those of its service, byte for byte but for the cookie,
//! which only the service can read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::handshake::Genuine;
use obol_fuzz::seeds;

/// What stands behind the cookie.
fn message(reply: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*reply.get(1)?, *reply.get(2)?]));
    reply.get(3 + length..)
}

fuzz_target!(init: seeds::write_if_asked("handshake_reply"), |data: &[u8]| {
    let world = Genuine::get();
    for messages in &world.messages {
        let accepted = world.client(messages).read(data).is_ok();
        let genuine = data.first() == Some(&1) && message(data) == message(&messages.reply);
        assert_eq!(accepted, genuine && data.len() <= obol_handshake::MAX_MESSAGE_BYTES);
    }
});
