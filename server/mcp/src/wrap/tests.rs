//! The client's side, line by line.

use obol_resource::{EncField, SealedMessage};
use serde_json::{Value, json};

use super::*;
use crate::message::TokenText;

fn wrap() -> Wrap {
    Wrap::new([0xab; 8])
}

fn drawn() -> Drawn {
    Drawn { token: TokenText::new("token"), proof: None, channel: None }
}

#[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
fn request(id: &str, method: &str, params: Value) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}")
}

fn call(id: &str) -> String {
    request(id, "tools/call", json!({"name": "add", "arguments": {"a": 1}}))
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// An answer to `initialize` or `server/discover`.
#[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
fn capabilities(id: &str, of: Value) -> String {
    json!({"jsonrpc": "2.0", "id": parsed(id), "result": {"capabilities": of}}).to_string()
}

fn speaking() -> Value {
    json!({"experimental": {EXTENSION: {"version": crate::VERSION, "tokenFormats": ["opaque"]}}})
}

fn denied(id: &str, reason: &str) -> String {
    let meta = json!({EXTENSION: {"denied": true, "reason": reason, "failed_check": "X"}});
    json!({"jsonrpc": "2.0", "id": parsed(id),
           "result": {"isError": true, "content": [{"type": "text", "text": "no"}], "_meta": meta}})
    .to_string()
}

fn greet(wrap: &mut Wrap, server: Value) {
    let initialize = request("0", "initialize", json!({"capabilities": {"roots": {}}}));
    assert!(matches!(wrap.from_client(&initialize), FromClient::Send(_)));
    assert!(matches!(wrap.from_server(&capabilities("0", server)), FromServer::Pass));
}

fn drawn_for(wrap: &mut Wrap, line: &str) -> Call {
    match wrap.from_client(line) {
        FromClient::Draw(call) => call,
        other => panic!("{other:?}"),
    }
}

fn sent(sent: Sent) -> Value {
    match sent {
        Sent::ToServer(line) => parsed(&line),
        Sent::ToClient(line) => panic!("not sent: {line}"),
    }
}

#[test]
fn what_is_not_the_extensions_business_passes() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    for line in [
        "",
        "no json",
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}]"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{ "jsonrpc":"2.0", "id":5, "method":"ping" }"#,
        r#"{"jsonrpc":"2.0","id":6,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":["add"]}}"#,
        r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"tools/call","params":{"name":"add"}}"#,
    ] {
        assert!(matches!(wrap.from_client(line), FromClient::Pass), "{line}");
        assert!(matches!(wrap.from_server(line), FromServer::Pass), "{line}");
    }
    let own = request("9", "tools/call", json!({"name": "add", "_meta": {EXTENSION: {"token": "own"}}}));
    assert!(matches!(wrap.from_client(&own), FromClient::Pass), "a client that speaks it itself");
}

#[test]
fn the_client_says_that_it_speaks_the_extension() {
    let mut wrap = wrap();
    let FromClient::Send(line) =
        wrap.from_client(&request("0", "initialize", json!({"capabilities": {"roots": {"x": 1.0}}})))
    else {
        panic!("not sent");
    };
    let said = parsed(&line);
    assert_eq!(said["params"]["capabilities"]["roots"], json!({"x": 1.0}));
    assert_eq!(said["params"]["capabilities"]["experimental"][EXTENSION]["version"], crate::VERSION);
    let meta = json!({PROTOCOL: "2026-07-28", CLIENT_CAPABILITIES: {"extensions": {"a/b": {}}}});
    let FromClient::Send(line) = wrap.from_client(&request("1", "server/discover", json!({"_meta": meta})))
    else {
        panic!("not sent");
    };
    let extensions = parsed(&line)["params"]["_meta"][CLIENT_CAPABILITIES]["extensions"].clone();
    assert_eq!((&extensions["a/b"], &extensions[EXTENSION]["hasTqs"]), (&json!({}), &json!(true)));
}

const PROTOCOL: &str = "io.modelcontextprotocol/protocolVersion";

#[test]
fn a_server_that_knows_nothing_gets_no_token_and_none_is_drawn() {
    for other in [json!({}), json!({"extensions": {"a/b": {}}})] {
        let mut wrap = wrap();
        greet(&mut wrap, other);
        assert!(matches!(wrap.from_client(&call("1")), FromClient::Pass));
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
        assert!(matches!(wrap.from_server(answer), FromServer::Pass));
    }
    let mut wrap = wrap();
    let future = json!({"extensions": {EXTENSION: {"version": "2027-01-01-r1", "tokenFormats": ["opaque"]}}});
    greet(&mut wrap, future);
    assert!(matches!(wrap.from_client(&call("1")), FromClient::Pass));
    assert!(
        matches!(wrap.from_server(&denied("1", "TBAC_REQUIRED")), FromServer::Pass),
        "it is not guessed at"
    );
}

#[test]
fn each_call_carries_a_token_of_its_own_and_is_otherwise_as_it_was() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    let line = r#"{"id":"x","jsonrpc":"2.0","params":{"name":"add","arguments":{"n":1e400 },"_meta":{"progressToken":7}},"method":"tools/call"}"#;
    let call = drawn_for(&mut wrap, line);
    assert_eq!((call.tool(), call.arguments()), ("add", r#"{"n":1e400 }"#));
    let Sent::ToServer(written) = wrap.with_token(call, Ok(drawn())) else { panic!("not sent") };
    assert_eq!(
        written,
        format!(
            "{{\"id\":\"x\",\"jsonrpc\":\"2.0\",\"params\":{{\"name\":\"add\",\"arguments\":{{\"n\":1e400 }},\
             \"_meta\":{{\"progressToken\":7,\"{EXTENSION}\":{{\"token\":\"token\",\"format\":\"opaque\"}}}}}},\
             \"method\":\"tools/call\"}}"
        )
    );
    let answer = r#"{"jsonrpc":"2.0","id":"x","result":{"content":[ ]}}"#;
    assert!(matches!(wrap.from_server(answer), FromServer::Pass));
    assert!(matches!(wrap.from_client(line), FromClient::Draw(_)), "and the next one draws again");
}

#[test]
fn a_hint_is_acted_on_once_under_a_number_of_its_own() {
    let mut wrap = wrap();
    assert!(matches!(wrap.from_client(&call("1")), FromClient::Pass), "nothing is known of the server");
    let FromServer::Again(again) = wrap.from_server(&denied("1", "TBAC_REQUIRED")) else {
        panic!("not again")
    };
    assert_eq!(again.tool(), "add");
    let line = sent(wrap.with_token(again, Ok(drawn())));
    let id = line["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("obol-abab") && line["params"]["_meta"][EXTENSION]["token"] == "token", "{line}");
    let second = denied(&json!(id).to_string(), "TBAC_REQUIRED");
    let FromServer::Tell(told) = wrap.from_server(&second) else { panic!("not told") };
    assert_eq!(parsed(&told)["id"], 1, "the client knows its own number alone");
    assert!(matches!(wrap.from_server(&second), FromServer::Drop), "and hears of each call once");
    assert!(matches!(wrap.from_client(&call("2")), FromClient::Draw(_)), "now it is known");
}

#[test]
fn another_method_that_wants_a_token_gets_one_of_its_own_name() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    let read = |id: &str| request(id, "resources/read", json!({"uri": "a:b", "_meta": {"progressToken": 1}}));
    assert!(matches!(wrap.from_client(&read("1")), FromClient::Pass));
    let data = json!({EXTENSION: {"denied": true, "reason": "TBAC_REQUIRED", "tool": "another tool"}});
    let refusal = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 403, "message": "no", "data": data}});
    let FromServer::Again(again) = wrap.from_server(&refusal.to_string()) else { panic!("not again") };
    assert_eq!(
        (again.tool(), again.arguments()),
        ("resources/read", r#"{"uri":"a:b"}"#),
        "whatever a refusal names"
    );
    let line = sent(wrap.with_token(again, Ok(drawn())));
    assert_eq!(line["params"]["_meta"]["progressToken"], 1);
    assert!(matches!(wrap.from_client(&read("2")), FromClient::Draw(_)));
}

#[test]
fn a_token_that_was_drawn_too_early_is_replaced_once_and_a_stolen_one_is_told_of() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    let first = drawn_for(&mut wrap, &call("1"));
    let _sent = wrap.with_token(first, Ok(drawn()));
    let FromServer::Again(again) = wrap.from_server(&denied("1", "EPOCH_EXPIRED")) else {
        panic!("not again")
    };
    let line = sent(wrap.with_token(again, Ok(drawn())));
    let FromServer::Tell(_) = wrap.from_server(&denied(&line["id"].to_string(), "EPOCH_EXPIRED")) else {
        panic!("not told");
    };
    let second = drawn_for(&mut wrap, &call("2"));
    let _sent = wrap.with_token(second, Ok(drawn()));
    let FromServer::Stolen { tool, .. } = wrap.from_server(&denied("2", "TOKEN_REPLAYED")) else {
        panic!("not told")
    };
    assert_eq!(tool, "add");
    let third = drawn_for(&mut wrap, &call("3"));
    let _sent = wrap.with_token(third, Ok(drawn()));
    assert!(matches!(wrap.from_server(&denied("3", "INSUFFICIENT_PRIVILEGE")), FromServer::Pass));
}

#[test]
fn a_call_without_a_token_goes_as_it_is_and_its_refusal_says_why() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    let why = || Err("POLICY_DENY: not granted".to_owned());
    let first = drawn_for(&mut wrap, &call("1"));
    let line = sent(wrap.with_token(first, why()));
    assert_eq!(line, parsed(&call("1")));
    let FromServer::Tell(told) = wrap.from_server(&denied("1", "TBAC_REQUIRED")) else { panic!("not told") };
    assert!(told.contains("POLICY_DENY: not granted") && told.contains("\"TBAC_REQUIRED\""), "{told}");
    // The same where it only turns out later that there is none.
    let mut wrap = wrap_unknown(&call("1"));
    let FromServer::Again(again) = wrap.from_server(&denied("1", "TBAC_REQUIRED")) else {
        panic!("not again")
    };
    let Sent::ToClient(told) = wrap.with_token(again, why()) else { panic!("sent") };
    assert!(told.contains("POLICY_DENY: not granted") && parsed(&told)["id"] == 1, "{told}");
}

fn wrap_unknown(line: &str) -> Wrap {
    let mut wrap = wrap();
    assert!(matches!(wrap.from_client(line), FromClient::Pass));
    wrap
}

#[test]
fn a_call_that_is_given_up_is_given_up_under_the_number_that_the_server_knows() {
    let mut wrap = wrap_unknown(&call("1"));
    let FromServer::Again(again) = wrap.from_server(&denied("1", "TBAC_REQUIRED")) else {
        panic!("not again")
    };
    let id = sent(wrap.with_token(again, Ok(drawn())))["id"].clone();
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"x"}}"#;
    let FromClient::Send(line) = wrap.from_client(cancel) else { panic!("not sent") };
    assert_eq!(parsed(&line)["params"], json!({"requestId": id, "reason": "x"}));
    assert!(matches!(wrap.from_client(cancel), FromClient::Pass), "and that of a call which is over passes");
}

/// Seals by turning bytes around.
struct Turned;

impl Channel for Turned {
    fn seal(&self, arguments: &[u8]) -> Option<SealedMessage> {
        let turned: Vec<u8> = arguments.iter().rev().copied().chain([0; 16]).collect();
        Some(SealedMessage::new([1; 12], turned).ok()?.of_algorithm("AES-256-GCM"))
    }

    fn open(&self, sealed: &SealedMessage) -> Option<Vec<u8>> {
        let text = sealed.ciphertext().strip_suffix(&[0; 16])?;
        Some(text.iter().rev().copied().collect())
    }
}

fn sealed_call(wrap: &mut Wrap, id: &str) -> Value {
    let call = drawn_for(wrap, &call(id));
    let channel = Some(Box::new(Turned) as Box<dyn Channel>);
    sent(wrap.with_token(call, Ok(Drawn { channel, ..drawn() })))
}

#[test]
fn arguments_are_sealed_and_results_opened_where_the_token_asks_for_it() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    let line = sealed_call(&mut wrap, "1");
    assert_eq!(line["params"]["arguments"], json!({}));
    let enc: EncField = serde_json::from_value(line["params"]["_meta"][EXTENSION]["enc"].clone()).unwrap();
    assert_eq!(Turned.open(&enc.message().unwrap()).unwrap(), br#"{"a":1}"#);

    let plain =
        json!({"content": [{"type": "text", "text": "2"}], "structuredContent": {"n": 2}, "isError": false});
    let enc = EncField::new(&Turned.seal(plain.to_string().as_bytes()).unwrap());
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "isError": false,
        "content": [{"type": "text", "text": "encrypted"}], "_meta": {EXTENSION: {"enc": enc}, "other": 1}}});
    let FromServer::Tell(told) = wrap.from_server(&answer.to_string()) else { panic!("not told") };
    assert_eq!(
        parsed(&told)["result"],
        json!({"resultType": "complete", "isError": false, "content": [{"type": "text", "text": "2"}],
               "structuredContent": {"n": 2}, "_meta": {"other": 1}})
    );
}

#[test]
fn a_result_that_is_not_sealed_for_the_call_is_not_believed() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    for result in
        [json!({"content": [{"type": "text", "text": "forged"}]}), json!({"_meta": {EXTENSION: {"enc": 1}}})]
    {
        sealed_call(&mut wrap, "1");
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
        let FromServer::Tell(told) = wrap.from_server(&answer) else { panic!("not told") };
        assert!(told.contains("not believed") && !told.contains("forged"), "{told}");
        assert_eq!(parsed(&told)["result"]["isError"], true);
    }
    sealed_call(&mut wrap, "2");
    let error = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"x"}}"#;
    let FromServer::Tell(told) = wrap.from_server(error) else { panic!("not told") };
    assert_eq!(parsed(&told), parsed(error));
}

#[test]
fn what_waits_is_bounded() {
    let mut wrap = wrap();
    greet(&mut wrap, speaking());
    for id in 0..1_024 {
        let call = drawn_for(&mut wrap, &call(&format!("\"{id}\"")));
        let _sent = wrap.with_token(call, Ok(drawn()));
    }
    let FromClient::Answer(told) = wrap.from_client(&call("5000")) else { panic!("not answered") };
    assert!(told.contains("Too many calls"), "{told}");
    let answer = r#"{"jsonrpc":"2.0","id":"7","result":{"content":[]}}"#;
    assert!(matches!(wrap.from_server(answer), FromServer::Pass));
    assert!(matches!(wrap.from_client(&call("5000")), FromClient::Draw(_)));
}
