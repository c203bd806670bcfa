//! The codec `bincode` against input that is not what it should be, and against what bincode itself makes of the structs the documentation shows.

use super::*;
use crate::codec::Codec;
use crate::control::ControlProtocol;
use crate::frame::EncodedFrame;
use crate::message::{
    AgentMethod, AgentProtocol, AgentReply, AgentRequest, DequeueTokenParams, DequeueTokenResult,
};
use crate::names::{Audience, ToolName};
use crate::numbers::WaitMs;
use crate::secret::TokenText;

fn dequeue() -> AgentRequest {
    AgentRequest::DequeueToken(DequeueTokenParams {
        tool: ToolName::new("mail").unwrap(),
        wait_ms: WaitMs::new(1_000).unwrap(),
        audience: Some(Audience::new("api").unwrap()),
        pop_for: None,
        approval_id: None,
    })
}

fn body_of(frame: Result<EncodedFrame, EncodeError>) -> Vec<u8> {
    frame.unwrap().body().to_vec()
}

fn rejected(body: &[u8]) -> RejectedRequest {
    decode_request::<AgentProtocol>(body).unwrap_err()
}

#[test]
fn bincodes_own_derive_writes_the_same() {
    #[derive(bincode::Encode)]
    struct Request {
        id: Id,
        call: Call,
    }
    #[derive(bincode::Encode)]
    #[expect(dead_code, reason = "variants hold the numbers of those that follow")]
    enum Id {
        Number(u64),
        Text(String),
    }
    #[derive(bincode::Encode)]
    enum Call {
        DequeueToken(Params),
    }
    #[derive(bincode::Encode)]
    struct Params {
        tool: String,
        wait_ms: u32,
        audience: Option<String>,
        pop_for: Option<String>,
        approval_id: Option<String>,
    }
    let params = Params {
        tool: "mail".into(),
        wait_ms: 1_000,
        audience: Some("api".into()),
        pop_for: None,
        approval_id: None,
    };
    let mirror = Request { id: Id::Number(u64::MAX), call: Call::DequeueToken(params) };
    let derived = bincode::encode_to_vec(mirror, bincode::config::standard()).unwrap();
    assert_eq!(
        body_of(Codec::Bincode.encode_request::<AgentProtocol>(&RequestId::Number(u64::MAX), &dequeue())),
        derived
    );

    #[derive(bincode::Encode)]
    struct Response {
        id: Option<Id>,
        outcome: Result<(), Error>,
    }
    #[derive(bincode::Encode)]
    struct Error {
        code: Code,
        message: String,
    }
    #[derive(bincode::Encode)]
    #[expect(dead_code, reason = "variants hold the numbers of those that follow")]
    enum Code {
        ParseError,
        InvalidRequest,
        MethodNotAllowed,
        InvalidArgument,
        QueueEmpty { renewal_pending: bool, retry_after_ms: u64 },
    }
    let code = Code::QueueEmpty { renewal_pending: false, retry_after_ms: 70_000 };
    let mirror = Response { id: None, outcome: Err(Error { code, message: "m".into() }) };
    let derived = bincode::encode_to_vec(mirror, bincode::config::standard()).unwrap();
    let code = ErrorCode::QueueEmpty { renewal_pending: false, retry_after_ms: 70_000 };
    let refusal = Refusal::new(code, "m");
    assert_eq!(body_of(Codec::Bincode.encode_response::<AgentProtocol>(None, Err(&refusal))), derived);
}

#[test]
fn a_broken_request_is_answered_with_its_id_once_that_is_known() {
    let body = body_of(Codec::Bincode.encode_request::<AgentProtocol>(&RequestId::Number(7), &dequeue()));
    for length in 0..body.len() {
        let rejected = rejected(&body[..length]);
        let (id, code) = match length {
            0..2 => (None, ErrorCode::ParseError),
            2 => (Some(RequestId::Number(7)), ErrorCode::InvalidRequest),
            _ => (Some(RequestId::Number(7)), ErrorCode::InvalidArgument),
        };
        assert_eq!((rejected.id, rejected.refusal.code()), (id, code), "cut to {length}");
    }
}

#[test]
fn a_refused_parameter_is_named() {
    let tool = rejected(b"\x00\x01\x00\x03a b\x00\x00");
    assert!(tool.refusal.message().contains("tool must be"), "{}", tool.refusal);
    let wait = rejected(b"\x00\x01\x00\x01a\xfc\xff\xff\xff\xff\x00");
    assert!(wait.refusal.message().contains("waitMs must be"), "{}", wait.refusal);
    let audience = rejected(b"\x00\x01\x00\x01a\x00\x02");
    assert!(audience.refusal.message().contains("audience: 2 where"), "{}", audience.refusal);
    let hash = rejected(b"\x00\x01\x00\x01a\x00\x00\x01\x02AA");
    assert!(hash.refusal.message().contains("popFor must be"), "{}", hash.refusal);
    let cut = rejected(b"\x00\x01\x00\x01a\x00\x01\x05ab");
    assert!(cut.refusal.message().contains("audience: the body ends too early"), "{}", cut.refusal);
}

#[test]
fn a_method_of_the_other_socket_is_not_allowed() {
    for number in [3_u8, 6, 200] {
        let rejected = rejected(&[0, 1, number]);
        assert_eq!(rejected.id, Some(RequestId::Number(1)));
        assert_eq!(rejected.refusal.code(), ErrorCode::MethodNotAllowed);
    }
}

#[test]
fn a_declared_length_beyond_the_frame_is_refused_before_it_is_allocated() {
    // A string of 2^62 bytes, and one of a byte more than a frame.
    for length in [&b"\xfd\x00\x00\x00\x00\x00\x00\x00\x40"[..], b"\xfc\x01\x00\x01\x00"] {
        let rejected = rejected(&[b"\x00\x01\x00", length, b"mail"].concat());
        assert_eq!(rejected.refusal.code(), ErrorCode::InvalidArgument);
    }
    // A list of 2^62 tools.
    let body = b"\x00\x01\x03\x01\xfd\x00\x00\x00\x00\x00\x00\x00\x40\x01a";
    let rejected = decode_request::<ControlProtocol>(body).unwrap_err();
    assert!(rejected.refusal.message().contains("denied_tools"), "{}", rejected.refusal);
}

#[test]
fn an_id_that_is_too_long_is_no_id() {
    let body = [b"\x01\x41", &[b'a'; 65][..], b"\x02"].concat();
    assert_eq!(rejected(&body).id, None);
    let body = [b"\x01\x40", &[b'a'; 64][..], b"\x02"].concat();
    assert!(decode_request::<AgentProtocol>(&body).is_ok());
}

#[test]
fn an_answer_to_another_method_is_not_taken_for_this_ones() {
    let reply = AgentReply::DequeueToken(DequeueTokenResult {
        token: TokenText::new("dG9r").unwrap(),
        tool: ToolName::new("mail").unwrap(),
        expires_at: 1,
        channel: None,
        pop: None,
    });
    let body =
        body_of(Codec::Bincode.encode_response::<AgentProtocol>(Some(&RequestId::Number(1)), Ok(&reply)));
    let response = decode_response(&body).unwrap();
    let error = response.outcome::<AgentProtocol>(AgentMethod::SessionInfo).unwrap_err();
    assert!(error.to_string().contains("sessionInfo was asked"), "{error}");
}
