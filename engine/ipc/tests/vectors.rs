//! Both codecs against the frames in `tests/vectors/ipc`, which clients in other languages read as well.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use obol_ipc::as_control::AsControlProtocol;
use obol_ipc::auth::AuthProtocol;
use obol_ipc::codec::Codec;
use obol_ipc::control::ControlProtocol;
use obol_ipc::frame::{EncodedFrame, FrameDecoder};
use obol_ipc::hello::{ClientHello, HelloError, HelloRefusal, HelloRefusalCode};
use obol_ipc::message::AgentProtocol;
use obol_ipc::names::PeerName;
use obol_ipc::rs_control::RsControlProtocol;
use obol_ipc::{Protocol, codec};
use obol_secret::text::{bytes_from_hex, to_hex};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Request,
    Response,
}

/// One message of one socket.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    kind: Kind,
    method: String,
    message: Box<RawValue>,
    json: String,
    bincode: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Client,
    Server,
    Refusal,
}

/// One first frame.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    what: String,
    from: From,
    message: Box<RawValue>,
    json: String,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/ipc").join(name)
}

fn read<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let cases: Vec<T> = serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{name}");
    cases
}

/// The body of a frame in hex, which must be that frame and nothing more.
fn body(hex: &str) -> Vec<u8> {
    let frame = bytes_from_hex(hex).unwrap();
    let mut decoder = FrameDecoder::new();
    assert_eq!(decoder.push(&frame), frame.len());
    let body = decoder.pop().unwrap().unwrap().to_vec();
    assert!(decoder.pop().unwrap().is_none());
    assert_eq!(frame.len(), 4 + body.len());
    body
}

/// The message in this body, written in the codec `to`.
fn rewritten<P: Protocol>(case: &Case, body: &[u8], from: Codec, to: Codec) -> EncodedFrame {
    let method = *P::METHODS.iter().find(|method| P::method_name(**method) == case.method).unwrap();
    match case.kind {
        Kind::Request => {
            let codec::Request { id, call } = from.decode_request::<P>(body).unwrap();
            assert!(P::method_of(&call) == method, "{}", case.what);
            to.encode_request::<P>(&id, &call).unwrap()
        }
        Kind::Response => {
            let response = from.decode_response(body).unwrap();
            let id = response.id().cloned();
            let outcome = response.outcome::<P>(method).unwrap();
            to.encode_response::<P>(id.as_ref(), outcome.as_ref()).unwrap()
        }
    }
}

/// Writes what the codecs make of each message now; the diff then shows what a change did to the format.
fn bless<P: Protocol>(name: &str) {
    let mut cases: Vec<Case> = read(name);
    for case in &mut cases {
        let message = case.message.get().as_bytes();
        let frame = |codec| to_hex(rewritten::<P>(case, message, Codec::Json, codec).as_bytes());
        (case.json, case.bincode) = (frame(Codec::Json), frame(Codec::Bincode));
    }
    std::fs::write(path(name), serde_json::to_string_pretty(&cases).unwrap() + "\n").unwrap();
}

fn check<P: Protocol>(name: &str) {
    if std::env::var_os("OBOL_BLESS").is_some() {
        return bless::<P>(name);
    }
    for case in read::<Case>(name) {
        let (json, bincode) = (body(&case.json), body(&case.bincode));
        let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(value(&json), value(case.message.get().as_bytes()), "{name}: {}", case.what);
        for (codec, body) in [(Codec::Json, &json), (Codec::Bincode, &bincode)] {
            for (written, hex) in [(Codec::Json, &case.json), (Codec::Bincode, &case.bincode)] {
                let frame = rewritten::<P>(&case, body, codec, written);
                assert_eq!(to_hex(frame.as_bytes()), *hex, "{name}, {codec} to {written}: {}", case.what);
            }
        }
    }
}

#[test]
fn every_frame_of_the_agents_socket_is_written_to_the_byte() {
    check::<AgentProtocol>("agent.json");
}

#[test]
fn every_frame_of_the_authenticators_socket_is_written_to_the_byte() {
    check::<AuthProtocol>("auth.json");
}

#[test]
fn every_frame_of_the_control_socket_is_written_to_the_byte() {
    check::<ControlProtocol>("control.json");
}

#[test]
fn every_frame_of_a_resource_servers_control_socket_is_written_to_the_byte() {
    check::<RsControlProtocol>("rs-control.json");
}

#[test]
fn every_frame_of_the_authentication_services_control_socket_is_written_to_the_byte() {
    check::<AsControlProtocol>("as-control.json");
}

/// What the file of a socket's messages has: kinds and methods.
fn held(name: &str) -> BTreeSet<(Kind, String)> {
    read::<Case>(name).into_iter().map(|case| (case.kind, case.method)).collect()
}

fn wanted<P: Protocol>() -> BTreeSet<(Kind, String)> {
    let both = |method: &P::Method| {
        [Kind::Request, Kind::Response].map(|kind| (kind, P::method_name(*method).to_owned()))
    };
    P::METHODS.iter().flat_map(both).collect()
}

#[test]
fn every_method_has_a_request_and_an_answer_and_every_code_an_example() {
    assert!(held("agent.json") == wanted::<AgentProtocol>());
    assert!(held("auth.json") == wanted::<AuthProtocol>());
    assert!(held("control.json") == wanted::<ControlProtocol>());
    assert!(held("rs-control.json") == wanted::<RsControlProtocol>());
    assert!(held("as-control.json") == wanted::<AsControlProtocol>());
    let number = |case: Case| {
        serde_json::from_str::<Value>(case.message.get())
            .unwrap()
            .pointer("/error/code")
            .and_then(Value::as_i64)
    };
    let cases = read("agent.json").into_iter().chain(read("auth.json"));
    let numbers: BTreeSet<i64> = cases.filter_map(number).collect();
    let document = std::fs::read_to_string(path("../../../docs/protocol.md")).unwrap();
    let documented: BTreeSet<i64> = (-32_016..=-32_001).chain([-32_601, -32_602]).collect();
    assert!(documented.iter().all(|number| document.contains(&format!("| {number} |"))));
    assert_eq!(numbers, documented.into_iter().chain([-32_700, -32_600]).collect());
}

#[test]
fn every_hello_is_written_to_the_byte() {
    let mut asked = None;
    for case in read::<Hello>("hello.json") {
        let body = body(&case.json);
        assert_eq!(body, case.message.get().as_bytes(), "{}", case.what);
        let written = match case.from {
            From::Client => {
                let hello = ClientHello::decode(&body).unwrap();
                asked.insert(hello).encode().unwrap()
            }
            From::Server => asked.take().unwrap().answered(&body).unwrap().encode().unwrap(),
            From::Refusal => {
                let hello = ClientHello { codec: Codec::Json, client: PeerName::new("test/1").unwrap() };
                let refused = hello.answered(&body).unwrap_err();
                let HelloError::Refused { code, message } = refused else { panic!("{refused}") };
                assert_eq!(code, HelloRefusalCode::UnknownCodec.name());
                HelloRefusal::new(HelloRefusalCode::UnknownCodec, message).encode().unwrap()
            }
        };
        assert_eq!(to_hex(written.as_bytes()), case.json, "{}", case.what);
    }
}
