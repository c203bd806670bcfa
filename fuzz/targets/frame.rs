//! Any stream of bytes on the agent's socket: framing, hello and both codecs never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_ipc::Codec;
use obol_ipc::control::ControlProtocol;
use obol_ipc::frame::{FrameDecoder, MAX_BUFFERED_BYTES};
use obol_ipc::hello::ClientHello;
use obol_ipc::message::AgentProtocol;

fuzz_target!(|data: &[u8]| {
    let mut decoder = FrameDecoder::new();
    let mut rest = data;
    while !rest.is_empty() {
        let taken = decoder.push(rest);
        rest = &rest[taken..];
        loop {
            match decoder.pop() {
                Ok(Some(body)) => decode(&body),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(taken > 0 || rest.len() <= MAX_BUFFERED_BYTES, "the decoder neither takes nor gives");
    }
    decode(data);
});

fn decode(body: &[u8]) {
    let _ = ClientHello::decode(body);
    for codec in [Codec::Json, Codec::Bincode] {
        let _ = codec.decode_request::<AgentProtocol>(body);
        let _ = codec.decode_request::<ControlProtocol>(body);
        let _ = codec.decode_response(body);
    }
}
