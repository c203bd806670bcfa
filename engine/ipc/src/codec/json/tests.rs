//! The JSON form, as the contract writes it.

use super::*;
use crate::codec::Codec;
use crate::control::{ControlMethod, ControlProtocol, ControlReply, ControlRequest, FlushScope};
use crate::message::{AgentMethod, AgentProtocol, AgentRequest};
use crate::names::SessionId;

fn agent_request(body: &str) -> Result<Request<AgentProtocol>, RejectedRequest> {
    decode_request(body.as_bytes())
}

fn rejected(body: &str) -> (Option<RequestId>, ErrorCode, String) {
    let rejected = agent_request(body).unwrap_err();
    (rejected.id, rejected.refusal.code(), rejected.refusal.message().to_owned())
}

#[test]
fn requests_are_read_as_the_contract_writes_them() {
    let request = agent_request(
        r#"{"jsonrpc":"2.0","id":"a1","method":"dequeueToken","params":{"tool":"mail","waitMs":30000,"audience":"https://a"}}"#,
    )
    .unwrap();
    assert_eq!(request.id, RequestId::text("a1").unwrap());
    let AgentRequest::DequeueToken(params) = request.call else { panic!() };
    assert_eq!(params.tool.as_str(), "mail");
    assert_eq!(params.wait_ms.as_millis(), 30_000);
    assert_eq!(params.audience.unwrap().as_str(), "https://a");

    let request =
        agent_request(r#" {"params" : {"tool":"mail"}, "method":"dequeueToken", "id": 0, "jsonrpc":"2.0"} "#)
            .unwrap();
    let AgentRequest::DequeueToken(params) = request.call else { panic!() };
    assert_eq!((params.wait_ms.as_millis(), params.audience), (0, None));
}

#[test]
fn params_may_be_left_out_where_none_are_needed() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo","params":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tokenStatus"}"#,
        r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"session\u0049nfo","later":[]}"#,
    ] {
        assert!(agent_request(body).is_ok(), "{body}");
    }
}

#[test]
fn any_number_is_an_id_and_comes_back_as_it_was_written() {
    let refusal = Refusal::no_session();
    for id in ["0", "18446744073709551615", "18446744073709551616", "-1", "-0", "1.0", "1.5e300", "7E+2"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"sessionInfo"}}"#);
        let request = Codec::Json.decode_request::<AgentProtocol>(body.as_bytes()).unwrap();
        let answer = Codec::Json.encode_response::<AgentProtocol>(Some(&request.id), Err(&refusal)).unwrap();
        let text = core::str::from_utf8(answer.body()).unwrap();
        assert!(text.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error""#)), "{text}");
        let read = Codec::Json.decode_response(answer.body()).unwrap();
        assert_eq!(read.id(), Some(&request.id));
        let odd =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"dequeueToken","params":{{"waitMs":0.5}}}}"#);
        let rejected = Codec::Json.decode_request::<AgentProtocol>(odd.as_bytes()).unwrap_err();
        assert_eq!(rejected.id, Some(request.id), "refused under its own id");
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"sessionInfo"}}"#, "7".repeat(65));
    assert_eq!(Codec::Json.decode_request::<AgentProtocol>(long.as_bytes()).unwrap_err().id, None);
}

#[test]
fn a_session_document_travels_as_the_object_it_is() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"provision","params":{"session":{"a":[1, {"b":"\u00e9"}]}}}"#;
    let request = decode_request::<ControlProtocol>(body.as_bytes()).unwrap();
    let ControlRequest::Provision(params) = &request.call else { panic!() };
    assert_eq!(params.session.expose(), r#"{"a":[1, {"b":"\u00e9"}]}"#);
    let frame = Codec::Json.encode_request::<ControlProtocol>(&request.id, &request.call).unwrap();
    assert_eq!(frame.body(), body.as_bytes());
}

#[test]
fn what_is_not_json_is_a_parse_error_without_an_id() {
    for body in
        ["", "x", "{", r#"{"jsonrpc":"2.0","id":1"#, r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo"} x"#]
    {
        assert!(matches!(rejected(body), (None, ErrorCode::ParseError, _)), "{body}");
    }
    let rejected = decode_request::<AgentProtocol>(b"{\"id\":\"\xff\"}").unwrap_err();
    assert_eq!(rejected.refusal.code(), ErrorCode::ParseError);
}

#[test]
fn what_is_no_request_keeps_its_id_where_it_has_a_usable_one() {
    let one = || Some(RequestId::Number(1));
    for (body, id) in [
        ("[]", None),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"sessionInfo"}]"#, None),
        ("1", None),
        ("null", None),
        ("{}", None),
        (r#"{"jsonrpc":"2.0","method":"sessionInfo"}"#, None),
        (r#"{"jsonrpc":"2.0","id":null,"method":"sessionInfo"}"#, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"sessionInfo"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"sessionInfo"}"#, None),
        (r#"{"id":1,"method":"sessionInfo"}"#, one()),
        (r#"{"jsonrpc":"1.0","id":1,"method":"sessionInfo"}"#, one()),
        (r#"{"jsonrpc":2.0,"id":1,"method":"sessionInfo"}"#, one()),
        (r#"{"jsonrpc":"2.0","id":1}"#, one()),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, one()),
        (r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo","method":"sessionInfo"}"#, one()),
    ] {
        let (got, code, message) = rejected(body);
        assert_eq!((got, code), (id, ErrorCode::InvalidRequest), "{body}: {message}");
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"sessionInfo"}}"#, "x".repeat(65));
    assert!(matches!(rejected(&long), (None, ErrorCode::InvalidRequest, _)));
    assert!(rejected("[1]").2.contains("batches are not supported"));
    assert!(rejected(r#"{"jsonrpc":"2.0","method":"sessionInfo"}"#).2.contains("needs an id"));
}

#[test]
fn unknown_methods_are_not_allowed_and_the_known_ones_named() {
    for method in ["provision", "flush", "drain", "DequeueToken", "", "rpc.discover"] {
        let (id, code, message) = rejected(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#));
        assert_eq!((id, code), (Some(RequestId::Number(1)), ErrorCode::MethodNotAllowed));
        assert!(message.contains("dequeueToken, tokenStatus, sessionInfo"), "{message}");
    }
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"dequeueToken","params":{"tool":"mail"}}"#;
    let rejected = decode_request::<ControlProtocol>(body).unwrap_err();
    assert_eq!(rejected.refusal.code(), ErrorCode::MethodNotAllowed);
}

#[test]
fn a_refused_parameter_is_named() {
    for (params, named) in [
        (r#"{"tool":"mail","wait":1}"#, "unknown field `wait`"),
        (r#"{}"#, "missing field `tool`"),
        (r#"{"tool":"mail","tool":"mail"}"#, "duplicate field `tool`"),
        (r#"{"tool":5}"#, "tool: 1 to 256 bytes"),
        (r#"{"tool":""}"#, "tool must be 1 to 256 bytes"),
        (r#"{"tool":"mail","waitMs":30001}"#, "waitMs must be"),
        (r#"{"tool":"mail","waitMs":"1"}"#, "waitMs: a whole number"),
        (r#"{"tool":"mail","waitMs":1.5}"#, "waitMs: a whole number"),
        (r#"{"tool":"mail","audience":""}"#, "audience must be"),
        (r#"{"tool":"mail","popFor":"AA"}"#, "popFor must be"),
        (r#"["mail",0,null]"#, "a JSON object is needed"),
        (r#""mail""#, "a JSON object is needed"),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"dequeueToken","params":{params}}}"#);
        let (id, code, message) = rejected(&body);
        assert_eq!((id, code), (RequestId::text("x"), ErrorCode::InvalidArgument), "{params}");
        assert!(message.contains(named) && message.contains("dequeueToken"), "{message}");
        assert!(!message.contains(" at line "), "{message}");
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"sessionInfo","params":{"verbose":true}}"#;
    assert!(rejected(body).2.contains("unknown field `verbose`"));
}

#[test]
fn nesting_without_end_is_refused_without_a_crash() {
    let deep = "[".repeat(60_000);
    assert!(matches!(rejected(&deep), (None, ErrorCode::ParseError, _)));
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"dequeueToken","params":{{"tool":{nested}}}}}"#);
    assert!(matches!(rejected(&body), (Some(_), ErrorCode::InvalidArgument, _)));
}

#[test]
fn a_response_is_either_a_result_or_an_error() {
    for body in [
        "",
        "{}",
        "[]",
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
        r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":[],"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}} x"#,
    ] {
        assert!(decode_response(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn an_error_this_version_does_not_know_is_reported_in_the_daemons_words() {
    let body =
        br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32050,"message":"the moon","data":{"code":"MOON"}}}"#;
    let response = decode_response(body).unwrap();
    let error = response.outcome::<AgentProtocol>(AgentMethod::DequeueToken).unwrap_err().to_string();
    assert!(error.contains("-32050 MOON: the moon"), "{error}");
}

#[test]
fn plain_json_rpc_errors_are_understood() {
    for (error, code) in [
        (r#"{"code":-32601,"message":"Method not found"}"#, ErrorCode::MethodNotAllowed),
        (r#"{"code":-32602,"message":"Invalid params","data":"text"}"#, ErrorCode::InvalidArgument),
        (r#"{"code":-32700,"message":"Parse error","data":null}"#, ErrorCode::ParseError),
        (
            r#"{"code":-32001,"message":"","data":{"code":"QUEUE_EMPTY"}}"#,
            ErrorCode::QueueEmpty { renewal_pending: false, retry_after_ms: 0 },
        ),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{error}}}"#);
        let response = decode_response(body.as_bytes()).unwrap();
        assert_eq!(response.id, None);
        let refusal = response.outcome::<ControlProtocol>(ControlMethod::Status).unwrap().unwrap_err();
        assert_eq!(refusal.code(), code);
    }
}

#[test]
fn session_numbers_are_read_in_either_case_of_hex() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"flush","params":{"scope":{"session":"00000000DEADbeef"},"reason":"r"}}"#;
    let request = decode_request::<ControlProtocol>(body.as_bytes()).unwrap();
    let ControlRequest::Flush(params) = request.call else { panic!() };
    let session = SessionId::from_u64(0xDEAD_BEEF);
    assert_eq!(params.scope, FlushScope::Session(session));

    let body = concat!(
        r#"{"jsonrpc":"2.0","id":1,"result":{"sessionsEnded":1,"partitions":1,"tokensDiscarded":1,"#,
        r#""sessions":["00000000DEADBEEF"],"held":false}}"#
    );
    let reply = decode_response(body.as_bytes()).unwrap().outcome::<ControlProtocol>(ControlMethod::Flush);
    let ControlReply::Flush(flushed) = reply.unwrap().unwrap() else { panic!() };
    assert_eq!(flushed.sessions, [session]);
}
