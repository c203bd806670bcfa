//! Any stream of bytes on either socket. Framing does not depend on how the stream is cut up; hello and messages never
//! panic; what is read can be written, in either codec, and says the same again.
//!
//! Input: a byte that says how the stream is cut up, then the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::seeds;
use obol_ipc::Protocol;
use obol_ipc::as_control::AsControlProtocol;
use obol_ipc::auth::AuthProtocol;
use obol_ipc::codec::{Codec, RequestId, ResponseError};
use obol_ipc::control::ControlProtocol;
use obol_ipc::frame::{EncodeError, FrameDecoder, FrameError, MAX_BODY_BYTES};
use obol_ipc::hello::ClientHello;
use obol_ipc::message::AgentProtocol;
use obol_ipc::names::PeerName;
use obol_ipc::refusal::{MAX_MESSAGE_BYTES, Refusal};
use obol_ipc::rs_control::RsControlProtocol;

const CODECS: [Codec; 2] = [Codec::Json, Codec::Bincode];

fuzz_target!(init: seeds::write_if_asked("frame"), |data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    let in_pieces = frames(stream, usize::from(*cut).max(1));
    assert_eq!(whole, in_pieces, "frames depend on how the stream is cut up");
    for body in &whole.0 {
        message(body);
    }
    message(stream);
});

/// Every frame of a stream that arrives in pieces of this size, and how it ends.
fn frames(mut stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut bodies = Vec::new();
    while !stream.is_empty() {
        let taken = decoder.push(&stream[..piece.min(stream.len())]);
        stream = &stream[taken..];
        let before = bodies.len();
        loop {
            match decoder.pop() {
                Ok(Some(body)) => {
                    assert!((1..=MAX_BODY_BYTES).contains(&body.len()));
                    bodies.push(body.to_vec());
                }
                Ok(None) => break,
                Err(error) => return (bodies, Some(error)),
            }
        }
        assert!(taken > 0 || bodies.len() > before, "the decoder neither takes nor gives");
    }
    (bodies, None)
}

fn message(body: &[u8]) {
    hello(body);
    for codec in CODECS {
        request::<AgentProtocol>(codec, body);
        request::<AsControlProtocol>(codec, body);
        request::<AuthProtocol>(codec, body);
        request::<ControlProtocol>(codec, body);
        request::<RsControlProtocol>(codec, body);
        response::<AgentProtocol>(codec, body);
        response::<AsControlProtocol>(codec, body);
        response::<AuthProtocol>(codec, body);
        response::<ControlProtocol>(codec, body);
        response::<RsControlProtocol>(codec, body);
    }
}

fn hello(body: &[u8]) {
    match ClientHello::decode(body) {
        Ok(hello) => {
            let written = hello.encode().expect("a hello fits a frame");
            assert_eq!(ClientHello::decode(written.body()), Ok(hello));
        }
        Err(refusal) => {
            let written = refusal.encode().expect("a refusal fits a frame");
            let asked = ClientHello { codec: Codec::Json, client: PeerName::new("fuzz/1").expect("a name") };
            assert!(asked.answered(written.body()).is_err(), "a refusal is not a welcome");
        }
    }
    for codec in CODECS {
        let asked = ClientHello { codec, client: PeerName::new("fuzz/1").expect("a name") };
        if let Ok(answer) = asked.answered(body) {
            let written = answer.encode().expect("a hello fits a frame");
            assert_eq!(asked.answered(written.body()).ok(), Some(answer));
        }
    }
}

/// Writes a request in each codec, reads it again, and expects the same bytes when that is written.
fn request<P: Protocol>(codec: Codec, body: &[u8]) {
    let request = match codec.decode_request::<P>(body) {
        Ok(request) => request,
        Err(rejected) => return refusal::<P>(rejected.id.as_ref(), &rejected.refusal),
    };
    for codec in CODECS {
        // JSON escapes; what fitted one codec may not fit the other.
        let Ok(written) = codec.encode_request::<P>(&request.id, &request.call) else { continue };
        let again = codec.decode_request::<P>(written.body()).expect("what was written can be read");
        assert_eq!(again.id, request.id);
        let twice = codec.encode_request::<P>(&again.id, &again.call).expect("it fitted before");
        assert_eq!(twice.body(), written.body(), "a request changes on its way");
    }
}

fn refusal<P: Protocol>(id: Option<&RequestId>, refusal: &Refusal) {
    assert!(refusal.message().len() <= MAX_MESSAGE_BYTES && !refusal.message().contains(char::is_control));
    for codec in CODECS {
        let written = match codec.encode_response::<P>(id, Err(refusal)) {
            // A number that only JSON can write came in JSON, and is answered in it.
            Err(EncodeError::Inexpressible) if is_of_json_alone(id) && codec != Codec::Json => continue,
            written => written.expect("a refusal fits a frame"),
        };
        let response = codec.decode_response(written.body()).expect("what was written can be read");
        assert_eq!(response.id(), id);
        let outcome = response.outcome::<P>(P::METHODS[0]).expect("what was written can be read");
        assert_eq!(outcome.err().as_ref(), Some(refusal));
    }
}

fn is_of_json_alone(id: Option<&RequestId>) -> bool {
    matches!(id, Some(RequestId::Digits(_)))
}

fn response<P: Protocol>(codec: Codec, body: &[u8]) {
    for method in P::METHODS {
        let Ok(response) = codec.decode_response(body) else { return };
        let id = response.id().cloned();
        let Ok(outcome) = response.outcome::<P>(*method) else { continue };
        reply::<P>(id.as_ref(), &outcome, *method);
    }
}

fn reply<P: Protocol>(id: Option<&RequestId>, outcome: &Result<P::Reply, Refusal>, method: P::Method) {
    for codec in CODECS {
        let Ok(written) = codec.encode_response::<P>(id, outcome.as_ref()) else { continue };
        let again = read_reply::<P>(codec, written.body(), method).expect("what was written can be read");
        let twice = codec.encode_response::<P>(id, again.as_ref()).expect("it fitted before");
        assert_eq!(twice.body(), written.body(), "a response changes on its way");
    }
}

fn read_reply<P: Protocol>(
    codec: Codec,
    body: &[u8],
    method: P::Method,
) -> Result<Result<P::Reply, Refusal>, ResponseError> {
    codec.decode_response(body)?.outcome::<P>(method)
}
