//! Proof of possession from one end to the other: a grant asks for it, the sidecar makes it with the session's key, and a
//! resource server that has the public half alone checks it.
//!
//! The agent's side hashes its arguments with no code of the crates.

use std::path::Path;

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::codec::Codec;
use obol_ipc::names::PeerName;
use obol_ipc::proof::ArgumentsHash;
use obol_queue::{AgentHalf, DequeueError, FlushScope, Queue};
use obol_token::text::to_base64url;
use obol_world::halves::AgentSession;
use obol_world::home::{self, Store, command, wait_until};
use obol_world::now;
use obol_world::rs::RsProcess;
use obol_world::tqs::{self, Tqs};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{self, Answer};
use crate::sidecar::{PATIENCE, Raw, tool};

const CANONICAL: &str = r#"{"amount":5,"to":"ann"}"#;

fn create_session(home: &Path, suite: u8) {
    let created = command(home)
        .args([
            "session",
            "create",
            "--audience",
            "https://api.example",
            "--tool",
            "pay",
            "--require-pop",
            "--suite",
        ])
        .arg(suite.to_string())
        .args(["--rs-file", "sessions.json"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
}

fn pop_for(canonical: &str) -> String {
    to_base64url(&Sha256::digest(canonical))
}

fn ask(server: &RsProcess, token: &Value, arguments: &Value, pop: Option<&Value>) -> Answer {
    let mut body = json!({"token": token, "tool": "pay", "arguments": arguments});
    if let Some(pop) = pop {
        body["pop"] = pop.clone();
    }
    resource::post(([127, 0, 0, 1], server.port()).into(), "/v1/verify", &body.to_string())
}

fn a_proved_call_in_suite(suite: u8) {
    let home = home::home();
    let home = home.path();
    create_session(home, suite);
    let agents = std::fs::read_to_string(home.join("agent-session.json")).unwrap();
    let servers = std::fs::read_to_string(home.join("sessions.json")).unwrap();
    let key: Value = serde_json::from_str(&agents).unwrap();
    assert!(!servers.contains(key["pop_key"].as_str().unwrap()), "the server gets the public half alone");
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let server = RsProcess::start(home, &["--spent", "memory", "--first-start"]);
    let mut agent = Raw::greeted(home, "agent.sock");
    let mut draw = |canonical: &str| {
        let params = json!({"tool": "pay", "waitMs": 20_000, "popFor": pop_for(canonical)});
        let answer = agent.call("dequeueToken", params);
        assert_eq!(answer["result"]["pop"]["alg"], "Ed25519", "{answer}");
        answer["result"].clone()
    };
    let arguments = json!({"to": "ann", "amount": 5});

    let drawn = draw(CANONICAL);
    assert_eq!(ask(&server, &drawn["token"], &arguments, None).problem().1, "POP_REQUIRED");
    let others = draw(CANONICAL);
    for (arguments, pop) in [
        (json!({"to": "eve", "amount": 5}), &drawn["pop"]),
        (json!({}), &drawn["pop"]),
        (arguments.clone(), &others["pop"]),
    ] {
        let refused = ask(&server, &drawn["token"], &arguments, Some(pop));
        assert_eq!(refused.problem().1, "POP_FAILED", "{arguments}");
    }
    let answer = ask(&server, &drawn["token"], &arguments, Some(&drawn["pop"]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let nothing = draw("{}");
    assert_eq!(ask(&server, &nothing["token"], &json!({}), Some(&nothing["pop"])).status, 200);

    // The other codec says the same.
    let mut options = ConnectOptions::new(PeerName::new("test/1").unwrap());
    options.codec = Codec::Bincode;
    let mut client = Client::connect(Endpoint::at(tqs::socket(home)).unwrap(), options).unwrap();
    let hash = ArgumentsHash::parse(&pop_for(CANONICAL)).unwrap();
    let drawn = client.dequeue_token_with_proof(&tool("pay"), None, hash, PATIENCE).unwrap();
    let (token, pop) = (json!(drawn.token.expose()), json!(drawn.pop.unwrap()));
    assert_eq!(ask(&server, &token, &arguments, Some(&pop)).status, 200);
    assert!(client.dequeue_token(&tool("pay"), PATIENCE).is_err(), "over what is not said");
}

#[test]
fn a_grant_that_asks_for_proofs_works_from_end_to_end_in_every_suite() {
    for suite in 1..=4 {
        a_proved_call_in_suite(suite);
    }
}

#[test]
fn nothing_is_drawn_where_a_proof_is_needed_and_its_arguments_are_not_named() {
    let home = home::home();
    let home = home.path();
    create_session(home, 2);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let mut agent = Raw::greeted(home, "agent.sock");
    agent.call("dequeueToken", json!({"tool": "pay", "waitMs": 20_000, "popFor": pop_for("{}")}));
    let depth = |home: &Path| {
        let status = command(home).args(["status", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        status["tools"][0]["handedOut"].as_u64().unwrap()
    };
    let before = depth(home);
    for params in [
        json!({"tool": "pay"}),
        json!({"tool": "pay", "popFor": null}),
        json!({"tool": "pay", "popFor": "AA"}),
        json!({"tool": "pay", "popFor": "A".repeat(44)}),
        json!({"tool": "pay", "popFor": [0]}),
    ] {
        let refused = agent.call("dequeueToken", params.clone());
        assert_eq!(refused["error"]["data"]["code"], "INVALID_ARGUMENT", "{params}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("popFor"), "{refused}");
    }
    assert_eq!(depth(home), before);
}

#[test]
fn obol_dequeue_prints_the_proof_over_the_arguments_of_a_file() {
    let home = home::home();
    let home = home.path();
    create_session(home, 1);
    let _tqs = Tqs::start(home, &["--session", "agent-session.json"]);
    let server = RsProcess::start(home, &["--spent", "memory", "--first-start"]);
    let dequeue = |text: &str, more: &[&str]| {
        std::fs::write(home.join("arguments.json"), text).unwrap();
        command(home).args(["dequeue", "pay", "--arguments", "arguments.json"]).args(more).output().unwrap()
    };
    let arguments = json!({"to": "ann", "amount": 5});
    let plain = dequeue("{\"to\": \"ann\",\n \"amount\": 5.0}", &[]);
    let printed = String::from_utf8(plain.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    let [token, sig] = lines[..] else { panic!("two lines: {printed:?}") };
    let pop = json!({"alg": "Ed25519", "sig": sig});
    assert_eq!(ask(&server, &json!(token), &arguments, Some(&pop)).status, 200);
    let shown: Value = serde_json::from_slice(&dequeue(CANONICAL, &["--json"]).stdout).unwrap();
    assert_eq!(ask(&server, &shown["token"], &arguments, Some(&shown["pop"])).status, 200);
    for wrong in [r#"{"to":9007199254740993}"#, r#"{"a":0.10000000000000001}"#, r#"{"a":1,"a":2}"#, "[]", "{"]
    {
        let refused = dequeue(wrong, &[]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{wrong}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("arguments.json"), "{wrong}");
    }
    let unsaid = command(home).args(["dequeue", "pay"]).output().unwrap();
    assert!(!unsaid.status.success() && String::from_utf8_lossy(&unsaid.stderr).contains("popFor"));
}

#[test]
fn a_proof_is_of_the_tokens_own_session_and_ends_with_it() {
    let store = Store::new();
    let queue = Queue::open(store.database(), store.master_key()).unwrap();
    let world = |number: u64| {
        let mut world = AgentSession::new(number, now(), &["pay", "search"]);
        world.grants[0]["require_pop"] = json!(true);
        world
    };
    let document = |number: u64| {
        let mut json = world(number).agent_json();
        json["pop_key"] = json!(format!("{number:02x}").repeat(32));
        AgentHalf::from_json(json.to_string().as_bytes()).unwrap()
    };
    queue.provision(document(1)).unwrap();
    let token = queue.dequeue_within("pay", PATIENCE).unwrap();
    let plain = queue.dequeue_within("search", PATIENCE).unwrap();
    let depth = || queue.status(Some("pay")).unwrap().queue_depth;
    let before = depth();
    assert_eq!(queue.dequeue_proven("pay", None).unwrap_err(), DequeueError::ProofNeeded);
    assert!(depth() >= before, "a token without its proof would be lost");
    assert_eq!(queue.dequeue_proven("unheard-of", None).unwrap_err(), DequeueError::PolicyDenied);
    let (drawn, signed) = queue.dequeue_proven("pay", Some(&[7; 32])).unwrap();
    assert_eq!(queue.prove("pay", &drawn, &[7; 32]), Ok(signed));
    assert!(signed.is_some() && queue.dequeue_proven("search", None).unwrap().1.is_none());
    let proof = queue.prove("pay", &token, &[7; 32]).unwrap().unwrap();
    assert_eq!(queue.prove("search", &plain, &[7; 32]), Ok(None));
    assert_ne!(queue.prove("pay", &token, &[8; 32]).unwrap(), Some(proof));

    queue.provision(document(2)).unwrap();
    assert_eq!(queue.prove("pay", &token, &[7; 32]), Ok(Some(proof)), "by the key of its own session");
    queue.flush(&FlushScope::Session(token.session_id()), "test").unwrap();
    assert_eq!(queue.prove("pay", &token, &[7; 32]), Err(DequeueError::SessionFlushed));

    // Where the key for proofs is somebody else's, tokens are handed out as ever.
    queue.provision(world(3).document()).unwrap();
    let token = queue.dequeue_within("pay", PATIENCE).unwrap();
    wait_until("another is ready", || {
        queue.dequeue_proven("pay", None).is_ok_and(|(_, proof)| proof.is_none())
    });
    assert_eq!(queue.prove("pay", &token, &[7; 32]), Ok(None));
}
