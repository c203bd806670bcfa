//! Channel encryption from one end to the other: an agent draws a token from the daemon, seals its request with the channel
//! that came with it, and opens the response of a resource server that knows nothing but its session.
//!
//! The agent's side uses no code of the crates but the decoding of base64url.

use core::net::SocketAddr;
use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use axum::routing::post;
use axum::{Json, Router};
use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::names::PeerName;
use obol_queue::{DequeueError, Draw, FlushScope, Queue};
use obol_resource::{SEALED_CONTENT_TYPE, SpentToken, TbacLayer, ToolCall};
use obol_token::text::from_base64url;
use obol_world::halves::AgentSession;
use obol_world::home::{self, Store, command};
use obol_world::now;
use obol_world::tqs::{self, Tqs};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::end_to_end::{AUDIENCE, api};
use crate::resource::{self, Answer, refusal};
use crate::sidecar::{PATIENCE, Raw, tool};

/// What an agent knows of a token, as the JSON says it.
struct Call {
    token: String,
    channel: Value,
}

impl Call {
    fn draw(agent: &mut Raw, tool: &str) -> Self {
        let answer = agent.call("dequeueToken", json!({"tool": tool, "waitMs": 20_000}));
        let result = &answer["result"];
        let token = result["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        Self { token, channel: result.get("channel").cloned().unwrap_or(Value::Null) }
    }

    fn part(&self, name: &str) -> Vec<u8> {
        from_base64url(self.channel[name].as_str().unwrap().as_bytes()).unwrap()
    }

    fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let (key, aad, iv) = (self.part("requestKey"), self.part("requestAad"), [9; 12]);
        let payload = Payload { msg: plaintext, aad: &aad };
        let sealed = match self.channel["alg"].as_str().unwrap() {
            "AES-256-GCM" => aes_gcm::Aes256Gcm::new_from_slice(&key).unwrap().encrypt((&iv).into(), payload),
            "ChaCha20-Poly1305" => chacha20poly1305::ChaCha20Poly1305::new_from_slice(&key)
                .unwrap()
                .encrypt((&iv).into(), payload),
            other => panic!("{other}"),
        };
        [&iv[..], &sealed.unwrap()].concat()
    }

    /// The plaintext of a sealed body, if it is one for this token.
    fn open(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (iv, sealed) = body.split_first_chunk::<12>().unwrap();
        let (key, aad) = (self.part("responseKey"), self.part("responseAad"));
        let payload = Payload { msg: sealed, aad: &aad };
        match self.channel["alg"].as_str().unwrap() {
            "AES-256-GCM" => aes_gcm::Aes256Gcm::new_from_slice(&key).unwrap().decrypt(iv.into(), payload),
            _ => {
                chacha20poly1305::ChaCha20Poly1305::new_from_slice(&key).unwrap().decrypt(iv.into(), payload)
            }
        }
        .ok()
    }

    fn send(&self, server: SocketAddr, kind: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: TBAC {}\r\nContent-Type: \
             {kind}\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        resource::send(server, [head.as_bytes(), body].concat())
    }
}

/// A session of both sides, whose tokens for `search` ask for channel encryption and those for `pay` do not.
fn create_session(home: &Path, suite: u8) {
    let created = command(home)
        .args(["session", "create", "--audience", AUDIENCE, "--tool", "search", "--tool", "pay", "--suite"])
        .arg(suite.to_string())
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    let file = home.join("agent-session.json");
    let mut session: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let grant = session["grants"].as_array_mut().unwrap().iter_mut().find(|grant| grant["tool"] == "search");
    grant.unwrap()["constraints"] =
        json!({"require_channel_encryption": true, "allowed_parameters": {"q": "rows*"}});
    home::write_private(&file, &session.to_string());
}

/// A server that repeats the arguments it was sent.
fn serve(runtime: &Runtime, home: &Path) -> SocketAddr {
    async fn echo(token: SpentToken, Json(arguments): Json<Value>) -> Json<Value> {
        assert!(token.opened_arguments().is_some());
        Json(json!({"found": arguments}))
    }
    let gate = api::gate(home, AUDIENCE);
    let layer = TbacLayer::new(gate, ToolCall::new("search")).json_arguments();
    let routes = Router::new().route("/search", post(echo)).route_layer(layer);
    runtime.block_on(api::listen(routes))
}

fn a_sealed_call_in_suite(suite: u8) {
    let home = home::home();
    let home = home.path();
    create_session(home, suite);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let runtime = Runtime::new().unwrap();
    let server = serve(&runtime, home);
    let mut agent = Raw::greeted(home, "agent.sock");

    let [call, other, third] = [(); 3].map(|()| Call::draw(&mut agent, "search"));
    let arguments = json!({"q": "rows of march"}).to_string();
    // In the clear the token is good for nothing, and is not burned by the attempt.
    let clear = call.send(server, "application/json", arguments.as_bytes());
    assert_eq!(clear.problem(), refusal(403, "CHANNEL_ENCRYPTION_REQUIRED", "CHANNEL_ENCRYPTION_MISSING"));
    // Nor does it take what was sealed for another.
    let crossed = call.send(server, SEALED_CONTENT_TYPE, &other.seal(arguments.as_bytes()));
    assert_eq!(crossed.problem(), refusal(400, "MALFORMED_REQUEST", "REQUEST_FRAMING"));

    let sealed = call.seal(arguments.as_bytes());
    assert!(!sealed.windows(8).any(|window| window == b"of march"));
    let answer = call.send(server, SEALED_CONTENT_TYPE, &sealed);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(SEALED_CONTENT_TYPE)), "{suite}");
    assert!(!answer.bytes.windows(8).any(|window| window == b"of march"));
    let opened: Value = serde_json::from_slice(&call.open(&answer.bytes).unwrap()).unwrap();
    assert_eq!(opened, json!({"found": {"q": "rows of march"}}));
    assert_eq!(other.open(&answer.bytes), None, "another token's keys open nothing");
    let again = call.send(server, SEALED_CONTENT_TYPE, &sealed);
    assert_eq!(again.problem(), refusal(401, "TOKEN_REPLAYED", "REPLAY_CONSUME"));
    // The token limits its arguments, sealed or not.
    let forbidden = third.send(server, SEALED_CONTENT_TYPE, &third.seal(br#"{"q":"all"}"#));
    assert_eq!(forbidden.problem(), refusal(403, "INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION"));

    // Where the token does not ask for it there is no channel, not even a member of that name.
    let answer = agent.call("dequeueToken", json!({"tool": "pay", "waitMs": 20_000}));
    assert_eq!(answer["result"].as_object().unwrap().len(), 3, "{answer}");
    // The other codec says the same.
    let mut options = ConnectOptions::new(PeerName::new("test/1").unwrap());
    options.codec = Codec::Bincode;
    let mut client = Client::connect(Endpoint::at(tqs::socket(home)).unwrap(), options).unwrap();
    let drawn = client.dequeue_token(&tool("search"), PATIENCE).unwrap();
    let channel = serde_json::to_value(drawn.channel.unwrap()).unwrap();
    let call = Call { token: drawn.token.expose().to_owned(), channel };
    let answer = call.send(server, SEALED_CONTENT_TYPE, &call.seal(arguments.as_bytes()));
    assert!(call.open(&answer.bytes).is_some());
    assert!(client.dequeue_token(&tool("pay"), PATIENCE).unwrap().channel.is_none());
}

#[test]
fn an_agent_seals_its_request_and_opens_the_response_in_suite_1() {
    a_sealed_call_in_suite(1);
}

#[test]
fn an_agent_seals_its_request_and_opens_the_response_in_suites_2_to_4() {
    for suite in 2..=4 {
        a_sealed_call_in_suite(suite);
    }
}

#[test]
fn a_channel_is_of_the_tokens_own_session_and_ends_with_it() {
    let store = Store::new();
    let queue = Queue::open(store.database(), store.master_key()).unwrap();
    let world = |number| {
        let mut world = AgentSession::new(number, now(), &["search", "pay"]);
        world.grants[0]["constraints"] = json!({"require_channel_encryption": true});
        world
    };
    queue.provision(world(1).document()).unwrap();
    let token = queue.dequeue_within("search", PATIENCE).unwrap();
    let plain = queue.dequeue_within("pay", PATIENCE).unwrap();
    let keys = queue.channel_keys("search", &token).unwrap().unwrap();
    assert!(queue.channel_keys("pay", &plain).unwrap().is_none());

    // Another session is the current one now; the token is still of its own.
    queue.provision(world(2).document()).unwrap();
    let same = queue.channel_keys("search", &token).unwrap().unwrap();
    assert_eq!(same.request_key(), keys.request_key());
    let named = Draw { tool: "search", audience: None, session: Some(token.session_id()) };
    assert_eq!(queue.channel_keys(named, &token).unwrap().unwrap().response_iv(), keys.response_iv());
    let second = queue.dequeue_within("search", PATIENCE).unwrap();
    assert_ne!(queue.channel_keys("search", &second).unwrap().unwrap().request_key(), keys.request_key());

    queue.flush(&FlushScope::Session(token.session_id()), "test").unwrap();
    assert!(matches!(queue.channel_keys("search", &token), Err(DequeueError::SessionFlushed)));
    assert!(queue.channel_keys("search", &second).unwrap().is_some());
}
